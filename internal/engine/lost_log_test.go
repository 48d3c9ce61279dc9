package engine

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// notReady waits until a partition says why it is not ready.
func notReady(t *testing.T, e *Engine, partition int32, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	until(t, ctx, "partition says "+words, func() bool {
		for _, p := range e.Partitions() {
			if p.Partition == partition && !p.Ready && strings.Contains(p.Err, words) {
				return true
			}
		}
		return false
	})
}

// TestEmptiedEventsAreRefused: a partition whose events were all deleted, by a retention or by
// somebody, has lost its instances. Numbered from 1 again it would look like a new one.
func TestEmptiedEventsAreRefused(t *testing.T) {
	log := memLog(t)
	ordersDone(t, log, memStore(t))
	name := eventlog.EventsTopic(log.App())
	topic, err := log.Topic(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	const emptied = 2
	if err := log.DeleteRecords(t.Context(), name, emptied, topic.Partitions[emptied].End); err != nil {
		t.Fatal(err)
	}
	e, stop := runEngine(t, log, memStore(t), runOrders(t))
	notReady(t, e, emptied, "events were deleted")
	stop()
	r, err := log.Read(t.Context(), name, emptied, topic.Partitions[emptied].End, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	records, _, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range records {
		if !eventlog.IsBarrier(records[k].Value) {
			t.Errorf("an owner wrote %s", records[k].Value)
		}
	}
}

// heldLog gives no committed events, as while a stranger's transaction is open on their topic.
type heldLog struct{ eventlog.Log }

func (l heldLog) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	r, err := l.Log.Read(ctx, topic, partition, from, topicID, isolation)
	if err == nil && topic == eventlog.EventsTopic(l.App()) && isolation == eventlog.ReadCommitted {
		r = heldReader{r}
	}
	return r, err
}

type heldReader struct{ eventlog.Reader }

func (heldReader) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	<-ctx.Done()
	return nil, 0, context.Cause(ctx)
}

// TestOpenTransactionOfAStranger: an owner that can't read up to its own barrier says why.
func TestOpenTransactionOfAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, stop := runEngine(t, heldLog{memLog(t)}, memStore(t), runOrders(t))
		defer stop()
		time.Sleep(2 * stuckAfter)
		for _, p := range e.Partitions() {
			if p.Ready || !strings.Contains(p.Err, "is open on the events topic") {
				t.Errorf("partition %d: ready %v, %q", p.Partition, p.Ready, p.Err)
			}
		}
	})
}
