package engine

import (
	"encoding/json"
	"fmt"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// simClients make calls, wait, and ask again.
type simClients struct {
	calls []*simCall
	waits []*simWait
}

type simCall struct {
	request eventlog.Request
	done    bool
	answer  string
	sent    int64
	settled int64 // when it was answered
	direct  bool
}

type simWait struct {
	id   string
	done bool
	sent int64
}

// simToken is who asked an owner.
type simToken struct {
	w    *world
	call *simCall
	wait *simWait
	used bool
}

func (t *simToken) reply(x reply) {
	w := t.w
	if t.used {
		w.violation("a call is answered twice")
	}
	t.used = true
	if w.fault(w.env.lost) {
		return
	}
	if t.wait != nil {
		if x.err == nil {
			t.wait.done = true
			if x.instance == nil || !x.instance.Terminal() {
				w.violation("a wait for %s ends with an instance that runs", t.wait.id)
			}
		}
		return
	}
	if x.err == nil {
		t.call.answered(w, x.answer.Answer)
	}
}

func (c *simCall) answered(w *world, answer string) {
	r := &c.request
	w.tracef("call %s %s of %s is answered %q", r.Request, r.Type, r.ID, answer)
	switch {
	case answer == machine.Ahead:
		return // its time will come
	case !c.done:
		c.done, c.answer, c.settled = true, answer, w.now
	case c.answer != answer && answer != machine.Expired && c.answer != machine.Expired:
		w.violation("call %s %s of %s was answered %q and then %q", r.Request, r.Type, r.ID, c.answer, answer)
	}
}

func (c *simClients) busy(w *world) string {
	for _, x := range c.calls {
		if !x.done {
			return fmt.Sprintf("call %s %s of %s has no answer", x.request.Request, x.request.Type, x.request.ID)
		}
	}
	return ""
}

// clientCall is a new call.
func (w *world) clientCall() {
	if w.calm {
		return
	}
	w.count.calls++
	if w.chance(250) {
		w.count.ids++
	}
	r := eventlog.Request{V: 1, Request: fmt.Sprintf("c%d", w.count.calls), ID: w.id(), Made: simBase + w.now + w.wall + w.between(-3000, 3000)}
	switch c := w.rng.IntN(1000); {
	case c < 30:
		r.Made += w.between(50_000, 90_000)
	case c < 45:
		r.Made -= w.between(23, 26) * 3600_000
	}
	switch c := w.rng.IntN(100); {
	case c < 50:
		r.Type, r.Definition = eventlog.StartInstance, w.plans[w.rng.IntN(len(w.plans))].plan.Name
		if w.chance(30) {
			r.Definition = "unknown"
		}
		params := map[string]string{"x": w.key(), "y": w.key(), "due": fmt.Sprint(simBase + w.now + w.wall + w.between(-500, 8000))}
		r.Params, _ = json.Marshal(params)
	case c < 60:
		r.Type, r.Reason = eventlog.StopInstance, "enough"
	case c < 82:
		r.Type = eventlog.RetryInstance
	case c < 86:
		r.Type = eventlog.DeleteInstance
	default:
		r.Type = eventlog.ReleaseInstance
		if w.chance(300) { // as if it had just started
			r.State = w.fresh("short")
		}
	}
	call := &simCall{request: r}
	w.clients.calls = append(w.clients.calls, call)
	w.send(call)
	if w.chance(100) {
		wait := &simWait{id: r.ID}
		w.clients.waits = append(w.clients.waits, wait)
		w.ask(wait)
	}
}

// fresh is the state of an instance of which nothing has run.
func (w *world) fresh(definition string) json.RawMessage {
	for _, c := range w.plans {
		if c.plan.Name == definition {
			return json.RawMessage(fmt.Sprintf(`{"definition":%q,"plan":%q,"status":"EXECUTING","params":{"x":"k0"}}`, definition, c.plan.Hash()))
		}
	}
	return nil
}

// door is an owner that takes calls of a partition, or nil.
func (w *world) door(p int32) *simRunner {
	var l []*simRunner
	for _, wk := range w.workers {
		if r := wk.runners[p]; r != nil && r.o.phase >= ready && r.o.phase < failed && !r.stopping && wk.up {
			l = append(l, r)
		}
	}
	if len(l) == 0 {
		return nil
	}
	return l[w.rng.IntN(len(l))]
}

// post hands a unit to an owner, as long as it lives.
func (w *world) post(r *simRunner, u unit) {
	r.wk.then(w.delay(), func() {
		if r.gone || r.stopping {
			return
		}
		r.calls = append(r.calls, u)
		r.wake()
	})
}

func (w *world) send(c *simCall) {
	c.sent = w.now
	p := eventlog.PartitionOf(c.request.ID, w.env.partitions)
	r := w.door(p)
	if r != nil && (w.calm || w.chance(700)) {
		c.direct = true
		w.post(r, unit{offset: -1, request: c.request, token: &simToken{w: w, call: c}})
		return
	}
	w.sendInbox(c)
}

// sendInbox appends the call to the requests, sometimes to the wrong partition.
func (w *world) sendInbox(c *simCall) {
	p := eventlog.PartitionOf(c.request.ID, w.env.partitions)
	if w.chance(60) {
		p = int32(w.rng.IntN(int(w.env.partitions)))
	}
	value, err := eventlog.AppendRequest(nil, &c.request)
	if err != nil {
		w.violation("encode call: %v", err)
	}
	w.after(w.delay(), func() {
		if !w.fault(w.env.lost) {
			w.log.request(p, eventlog.Record{Key: []byte(c.request.PartitionKey()), Value: value})
		}
	})
}

func (w *world) ask(x *simWait) {
	x.sent = w.now
	if r := w.door(eventlog.PartitionOf(x.id, w.env.partitions)); r != nil {
		w.post(r, unit{offset: -1, request: eventlog.Request{ID: x.id}, token: &simToken{w: w, wait: x}, read: true, wait: true})
	}
}

// clientsAgain repeats what has no answer, and now and then what has one.
func (w *world) clientsAgain() {
	for _, c := range w.clients.calls {
		if c.done || w.now-c.sent < 2500 {
			continue
		}
		if answer, ok := w.log.byCall[[2]string{c.request.ID, c.request.Request}]; ok {
			c.answered(w, answer)
			continue
		}
		w.send(c)
	}
	for _, x := range w.clients.waits {
		if !x.done && w.now-x.sent > 5000 {
			w.ask(x)
		}
	}
	if n := len(w.clients.calls); !w.calm && n > 0 && w.chance(400) {
		c := w.clients.calls[w.rng.IntN(n)]
		if c.done {
			w.tracef("late duplicate of %s", c.request.Request)
			if r := w.door(eventlog.PartitionOf(c.request.ID, w.env.partitions)); r != nil && w.chance(500) {
				w.post(r, unit{offset: -1, request: c.request, token: &simToken{w: w, call: c}})
			} else {
				w.sendInbox(c)
			}
		}
	}
}
