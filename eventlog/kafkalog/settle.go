package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// settlePoll is the first pause between two looks at a transaction; later ones are longer.
	settlePoll     = 500 * time.Microsecond
	settlePollMost = 20 * time.Millisecond
)

var errUnsettled = errors.New("the connection was lost before the brokers had written the transaction's end")

// settle waits until the end of the transaction is written to all its partitions. The
// brokers answer a commit before that, and two things go wrong in between:
//
//   - A broker that is killed may on its restart forget to write the end where it was not
//     written yet (seen with Kafka 4.4.0 as a single node: "partitions are likely deleted
//     already and hence can be skipped"), and the commit is lost. So only what is written
//     counts, and a connection that breaks before makes the outcome unknown.
//   - A produce that comes too early waits for add.partitions.to.txn.retry.backoff.ms, 20 ms
//     on a stock broker, while the end is written after one or two.
//
// It also means that what Commit has acknowledged is visible to readers.
func (o *owner) settle(ctx context.Context) error {
	for pause := settlePoll; !o.blind; pause = min(2*pause, settlePollMost) {
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{o.id}
		resp, err := req.RequestWith(ctx, o.s.cl)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnsettled, err)
		}
		if len(resp.TransactionStates) != 1 {
			return errUnsettled
		}
		state := resp.TransactionStates[0]
		if state.ErrorCode == kerr.TransactionalIDAuthorizationFailed.Code {
			o.blind = true // who may write with an id may not always describe it
			break
		}
		if err := kerr.ErrorForCode(state.ErrorCode); err != nil {
			return fmt.Errorf("%w: %w", errUnsettled, err)
		}
		if state.State != "PrepareCommit" && state.State != "PrepareAbort" {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", errUnsettled, context.Cause(ctx))
		}
	}
	if o.wire.broken() {
		return errUnsettled
	}
	return nil
}

// wire watches whether the end of a transaction was asked for and confirmed without a
// broken connection.
type wire struct{ lost, connects atomic.Int32 }

func (w *wire) reset() {
	w.lost.Store(0)
	w.connects.Store(0)
}

// lostAnswer tells whether an answer to the end of the transaction may have been lost.
func (w *wire) lostAnswer() bool { return w.lost.Load() > 0 }

// answered: from here on the connection exists, and a new one means that it broke.
func (w *wire) answered() { w.connects.Store(0) }

func (w *wire) broken() bool { return w.lost.Load()+w.connects.Load() > 0 }

func (w *wire) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if e2e.Err() != nil && (key == int16(kmsg.EndTxn) || key == int16(kmsg.DescribeTransactions)) {
		w.lost.Add(1)
	}
}

func (w *wire) OnBrokerConnect(kgo.BrokerMetadata, time.Duration, net.Conn, error) { w.connects.Add(1) }
