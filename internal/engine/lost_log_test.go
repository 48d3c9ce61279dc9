package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// notReady waits until a partition says why it is not ready.
func notReady(t *testing.T, e *Engine, partition int32, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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

