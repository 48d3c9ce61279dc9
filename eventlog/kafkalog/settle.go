package kafkalog

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// settleFor is how long after a commit its markers may still be on their way.
	settleFor = 20 * time.Millisecond
	// settlePoll is the pause between two looks.
	settlePoll = 500 * time.Microsecond
)

// settle waits until the last transaction's markers are written. The brokers answer a commit
// before that; a produce that comes in between they try again only after
// add.partitions.to.txn.retry.backoff.ms, 20 ms on a stock broker, while the markers take
// one or two. It is only for speed, so its errors don't matter.
func (o *owner) settle(ctx context.Context) {
	if o.noSettle {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	for time.Since(o.ended) < settleFor {
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{o.id}
		resp, err := req.RequestWith(ctx, o.s.cl)
		if err != nil || len(resp.TransactionStates) != 1 {
			return
		}
		state := resp.TransactionStates[0]
		if state.ErrorCode != 0 {
			// Who may write with a transactional id may not always describe it.
			o.noSettle = state.ErrorCode == kerr.TransactionalIDAuthorizationFailed.Code
			return
		}
		if state.State != "PrepareCommit" && state.State != "PrepareAbort" {
			return
		}
		pause := time.NewTimer(settlePoll)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}
