package engine

import (
	"encoding/json"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestWaitForDeleted lets an instance end and be deleted in one turn: who waits for its end is
// told that it is gone, and does not wait for the next run of the id.
func TestWaitForDeleted(t *testing.T) {
	w := newWorld(1, simEnv{partitions: 1, workers: 1, instances: 1, keys: 1, seconds: 10, cache: 4000}, simRules{}, nil)
	w.calm = true
	wk := w.workers[0]
	wk.boot()
	w.until(1000, nil)
	r := wk.runners[0]
	r.o.maxTurn = 10
	deletion := &simCall{request: eventlog.Request{V: 1, Type: eventlog.DeleteInstance, ID: "i0", Request: "delete"}}
	wk.pool.deliver = func(p int32, u unit) {
		r.calls = append(r.calls, unit{offset: -1, request: deletion.request, token: &simToken{w: w, call: deletion}})
		wk.deliver(p, u)
	}
	start := &simCall{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: "i0", Request: "start", Definition: "short", Params: json.RawMessage(`{}`)}}
	w.post(r, unit{offset: -1, request: start.request, token: &simToken{w: w, call: start}})
	waiter := &simToken{w: w, wait: &simWait{id: "i0"}}
	w.until(w.now+20, func() bool { return start.done })
	w.post(r, unit{offset: -1, request: eventlog.Request{ID: "i0"}, token: waiter, read: true, wait: true})
	w.until(w.now+10_000, nil)
	if !start.done || deletion.answer != "ok" {
		t.Fatalf("the start was answered %q, the deletion %q", start.answer, deletion.answer)
	}
	if !waiter.used || waiter.wait.done {
		t.Errorf("who waits was answered: %v, with an instance: %v", waiter.used, waiter.wait.done)
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}
