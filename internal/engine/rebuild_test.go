package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// TestFoldWritesAndReadsBack folds more than fits one batch and the cache, so that instances
// and correlation keys are written, dropped from memory and read again on the way.
func TestFoldWritesAndReadsBack(t *testing.T) {
	log := memLog(t)
	plan := orderCode(t, 1, time.Hour).Plan
	const p, instances = 2, 2000
	var ids []string
	for k := 0; len(ids) < instances; k++ {
		if id := fmt.Sprintf("i-%d", k); eventlog.PartitionOf(id, 4) == p {
			ids = append(ids, id)
		}
	}
	var events []*eventlog.Event
	add := func(e eventlog.Event) uint64 {
		e.N, e.At = uint64(len(events)+1), int64(len(events))
		events = append(events, &e)
		return e.N
	}
	add(eventlog.Event{Type: eventlog.PartitionOwned, Worker: "w"})
	add(eventlog.Event{Type: eventlog.PlanUsed, Plan: plan.Hash(), PlanData: plan.Recorded()})
	runs := map[string]uint64{}
	for _, id := range ids {
		runs[id] = uint64(len(events) + 1)
		add(eventlog.Event{Type: eventlog.InstanceStarted, ID: id, Seq: 1, Run: runs[id], Definition: "Order", Plan: plan.Hash(), Params: []byte(`{}`),
			Starts: []eventlog.Start{{Path: "P/price", Kind: eventlog.Execute}}})
	}
	for k, id := range ids {
		value := fmt.Sprint("v-", k)
		add(eventlog.Event{Type: eventlog.SubscriptionAdded, Topic: "status", Key: "order", Value: value, ID: id, Run: runs[id], Act: 1})
		add(eventlog.Event{Type: eventlog.MessageKept, Topic: "status", Key: "order", Value: "k" + value, Msg: uint64(len(events) + 1),
			Message: &eventlog.Message{Topic: "status", Offset: int64(k)}, Expires: 1 << 40})
	}
	for _, id := range ids {
		add(eventlog.Event{Type: eventlog.InstanceStopped, ID: id, Seq: 2, Run: runs[id]})
	}
	for k, id := range ids {
		if k%2 == 0 {
			add(eventlog.Event{Type: eventlog.SubscriptionRemoved, Topic: "status", Key: "order", Value: fmt.Sprint("v-", k), ID: id, Run: runs[id], Act: 1})
		}
	}
	for from := 0; from < len(events); from += 5000 {
		appendEvents(t, log, p, events[from:min(from+5000, len(events))]...)
	}

	wide, narrow := memStore(t), memStore(t)
	began := time.Now()
	r, err := rebuildOne(t.Context(), log, wide, p, RebuildOptions{})
	if err != nil || r.Events != int64(len(events)) {
		t.Fatal(r, err)
	}
	t.Logf("%d events in %v", r.Events, time.Since(began))
	f, err := newFolder(t.Context(), log, narrow, p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.r.o.cacheSize, f.r.o.gatherRows = 100<<10, 500
	written, read, vain := 0, 0, 0
	seen := map[eventlog.KeyRef]bool{}
	if err := f.run(func(next op) result {
		switch x := next.(type) {
		case opApply:
			written++
		case opRead:
			for _, id := range x.ids {
				if runs[id] <= f.r.o.mark.N { // it had been in memory
					read++
				} else {
					vain++
				}
			}
			for _, key := range x.keys {
				if !seen[key] && strings.HasPrefix(key.Value, "kv-") { // those have one event each
					vain++
				}
				seen[key] = true
			}
		}
		return f.r.do(t.Context(), next)
	}); err != nil {
		t.Fatal(err)
	}
	if written < 5 || read < instances/2 {
		t.Errorf("%d batches were written and %d instances read again", written, read)
	}
	if vain > 2*instances/100 {
		t.Errorf("of %d instances and as many keys the store was asked for %d before it could have them", instances, vain)
	}
	if err := f.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := dumpRows(t, wide, p), dumpRows(t, narrow, p); !slices.Equal(a, b) {
		t.Error(cmp.Diff(a, b))
	}
	began = time.Now()
	if v, err := Verify(t.Context(), log, narrow, nil); err != nil || v.Differences != 0 || v.Instances != instances {
		t.Errorf("%+v, %v", v, err)
	}
	t.Logf("verified in %v", time.Since(began))
}
