package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Records that start and stop instances of a simulated world.

const simTriggered = "t2"

// userTrigger is a record that starts an instance, stops one, or does both.
func (w *world) userTrigger() {
	if w.calm {
		return
	}
	value := map[string]string{}
	switch w.rng.IntN(3) {
	case 0:
		value["stop"] = w.id()
	case 1:
		value["stop"] = w.id()
		fallthrough
	default:
		value["start"] = w.id()
		if w.chance(300) { // one that no client starts
			value["start"] = fmt.Sprintf("r%d", w.rng.IntN(1000))
		}
	}
	data, _ := json.Marshal(value)
	t := w.log.topics[simTriggered]
	at := w.log.produce(t, eventlog.Record{Value: data, Time: time.UnixMilli(simBase + w.now)})
	w.tracef("record at %s@%d %s", t.id, at, data)
	for _, kind := range []string{"start", "stop"} {
		if value[kind] != "" {
			w.triggers = append(w.triggers, simAsked{fmt.Sprintf("%s/%s/0/%d/%s", kind, simTriggered, at, t.id), value[kind]})
		}
	}
}

// simAsked is what a record must have asked for exactly once.
type simAsked struct{ request, id string }

func simCallOf(kind string) func(*eventlog.Message) (*eventlog.Request, error) {
	return func(m *eventlog.Message) (*eventlog.Request, error) {
		var v map[string]string
		if err := json.Unmarshal(m.Value, &v); err != nil || v[kind] == "" {
			return nil, err
		}
		r := &eventlog.Request{Type: eventlog.StartInstance, ID: v[kind], Definition: "short", Params: json.RawMessage(`{"x":"k0"}`), HasKeys: true}
		if kind == "stop" {
			r = &eventlog.Request{Type: eventlog.StopInstance, ID: v[kind], Definition: "short"}
		}
		return r, nil
	}
}

// triggers looks for the answer to each record: it was decided once, in the partition of the
// id, and a stop that came before its start was kept. Protocol rule 19.
func (a *simAudit) triggers() {
	w := a.w
	decided := map[simAsked]int{}
	count := func(request, id string) {
		if strings.Contains(request, "/"+simTriggered+"/") {
			decided[simAsked{request, id}]++
		}
	}
	kept := map[simAsked]bool{} // decided when it was kept; it is applied, or expires, later
	known := map[string]bool{}  // ids that have a history
	w.eachEvent(func(_ int32, _ int64, e *eventlog.Event) {
		asked := simAsked{e.Request, e.ID}
		if e.Seq > 0 {
			known[e.ID] = true
		}
		switch {
		case e.Type == eventlog.StopKept:
			kept[asked] = true
			count(e.Request, e.ID)
		case e.Seq > 0 && kept[asked]:
			delete(kept, asked)
		case e.Seq > 0:
			count(e.Request, e.ID)
		}
		if e.Pos != nil {
			for _, r := range e.Pos.Refused {
				count(r.Request, r.ID)
				if strings.HasPrefix(r.Request, "stop/") && !known[r.ID] {
					w.violation("%s of %s, which has not started yet, was refused: %s", r.Request, r.ID, r.Answer)
				}
			}
		}
	})
	for _, c := range w.triggers {
		if n := decided[c]; n != 1 {
			w.violation("what record %s asks of %s was decided %d times", c.request, c.id, n)
		}
		delete(decided, c)
	}
	for c := range decided {
		w.violation("%s of %s was asked by no record", c.request, c.id)
	}
}
