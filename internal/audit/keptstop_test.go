package audit

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestKeptStops: a stop is kept where nothing runs, ends what starts after it, and expires in
// its time; nothing else.
func TestKeptStops(t *testing.T) {
	id := named("overtaken", 0)
	keep := func(h history, request string) {
		h.add(0, eventlog.Event{Type: eventlog.StopKept, ID: id, Definition: "Pizza", Request: request, Message: &eventlog.Message{Topic: "stops"}, Expires: 9000})
	}
	start := func(h history) {
		h.add(0, eventlog.Event{Type: eventlog.InstanceStarted, ID: id, Seq: 1, Run: uint64(len(h[0]) + 1), Definition: "Pizza", Plan: planHash,
			Params: json.RawMessage(`{}`), Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}, Request: "start", Made: 1})
	}
	stop := func(h history, request string) {
		h.add(0, eventlog.Event{Type: eventlog.InstanceStopped, ID: id, Seq: 2, Run: h[0][len(h[0])-1].N, Request: request})
	}
	// freeze brings the instance into quarantine with its start, release gives it a state.
	freeze := func(h history) {
		h.add(0, eventlog.Event{Type: eventlog.InstanceQuarantined, ID: id, Seq: 2, Run: h[0][len(h[0])-1].N, Act: 1, Reason: "r"})
	}
	next := func(h history, e eventlog.Event) {
		e.ID, e.Seq, e.Run = id, h[0][len(h[0])-1].Seq+1, h[0][len(h[0])-1].Run
		h.add(0, e)
	}
	release := func(h history, status string) {
		next(h, eventlog.Event{Type: eventlog.InstanceReset, Request: "release",
			State: json.RawMessage(`{"definition":"Pizza","plan":"` + planHash + `","status":"` + status + `"}`)})
	}
	expire := func(h history, at int64) {
		n := h.find(0, eventlog.StopKept, 0).N
		h.add(0, eventlog.Event{Type: eventlog.StopExpired, ID: id, Msg: n, At: at})
	}
	for _, c := range []struct {
		want string
		do   func(h history)
	}{
		{"", func(h history) { keep(h, "s1"); start(h); stop(h, "s1") }},
		{"", func(h history) { keep(h, "s1"); keep(h, "s2"); start(h); stop(h, "s2") }},
		{"", func(h history) { keep(h, "s1"); expire(h, 9000) }},
		{"the stop s2, which is kept, must come first", func(h history) { keep(h, "s1"); keep(h, "s2"); start(h); stop(h, "s1") }},
		{"the stop s1, which is kept, must come first", func(h history) { keep(h, "s1"); start(h); stop(h, "") }},
		{"has time left", func(h history) { keep(h, "s1"); expire(h, 8999) }},
		{"no stop", func(h history) { keep(h, "s1"); expire(h, 9000); expire(h, 9000) }},
		{"no stop", func(h history) { keep(h, "s1"); start(h); stop(h, "s1"); expire(h, 9000) }},
		{"the instance exists", func(h history) { start(h); keep(h, "s1") }},
		{"", func(h history) {
			keep(h, "s1")
			start(h)
			freeze(h)
			release(h, "EXECUTING")
			next(h, eventlog.Event{Type: eventlog.InstanceStopped, Request: "s1"})
		}},
		{"", func(h history) { keep(h, "s1"); start(h); freeze(h); release(h, "COMPLETED"); expire(h, 5000) }},
		{"the stop s1, which is kept, must come first", func(h history) {
			keep(h, "s1")
			start(h)
			freeze(h)
			release(h, "EXECUTING")
			next(h, eventlog.Event{Type: eventlog.InstanceStopped})
		}},
		{"the instance is in quarantine", func(h history) { keep(h, "s1"); start(h); freeze(h); expire(h, 9000) }},
		{"has time left", func(h history) { keep(h, "s1"); start(h); expire(h, 5000) }},
		{"without a definition", func(h history) { keep(h, "") }},
	} {
		h := good()
		c.do(h)
		r := audit(h, true)
		switch {
		case c.want == "":
			if err := r.Err(); err != nil {
				t.Error(err)
			}
		case r.Violations != 1 || !strings.Contains(r.First[0].String(), c.want):
			t.Errorf("want %q, found %v", c.want, r.First)
		}
	}
}
