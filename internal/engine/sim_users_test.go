package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Definitions, handlers, messages and calls of a simulated world.

// simRelays are the topics that are listened to, with their key names.
var simRelays = []TopicKey{{"t0", "a"}, {"t0", "b"}, {"t1", "a"}, {"t1", "b"}, {simTriggered, "start/short"}, {simTriggered, "stop/short"}}

type simRetryAfter struct{ error }

func (simRetryAfter) RetryAfter() int64 { return 700 }

type simTerminal struct{ error }

func (simTerminal) TerminalError() bool { return true }

type simStop struct{ error }

func (simStop) StopReason() string { return "enough of it" }

// simTask names an attempt; simTries is what became of its handlers.
type simTask struct {
	id      string
	run     uint64
	path    string
	act     uint64
	attempt int
}

type simTries struct {
	starts int
}

func taskOf(r *eventlog.Request) simTask { return simTask{r.ID, r.Run, r.Path, r.Act, r.Attempt} }

func (w *world) try(k simTask) *simTries {
	t := w.tasks[k]
	if t == nil {
		t = &simTries{}
		w.tasks[k] = t
	}
	return t
}

// handle draws what a handler does: how long it takes and what comes out.
func (w *world) handle(wk *simWorker, x *poolJob) (took int64, outcome func() eventlog.Request) {
	j := x.job
	var p *simPlan
	for _, l := range w.plans {
		if l.plan.Hash() == j.plan {
			p = l
		}
	}
	k := j.key
	w.count.handlers++
	w.try(simTask{k.instance, k.run, k.work.Path, k.work.Act, k.work.Attempt}).starts++
	w.tracef("w%d starts handler %s/%d/%s/%d/%d", wk.index, k.instance, k.run, k.work.Path, k.work.Act, k.work.Attempt)
	took = w.between(1, 400)
	if w.chance(200) {
		took = w.between(500, 4000)
	}
	if k.work.Path == "" {
		return took, func() eventlog.Request { return w.ran(p, j, simOutcome{}) }
	}
	n := p.plan.Task(k.work.Path)
	if w.fault(w.env.kill) {
		wk.then(took, func() {
			w.tracef("a handler kills w%d", wk.index)
			wk.crash()
		})
		return took, func() eventlog.Request { return eventlog.Request{} }
	}
	var o simOutcome
	switch c := w.rng.IntN(100); {
	case c < 10:
		o.err = errors.New("it did not work")
	case c < 12:
		o.err = simTerminal{errors.New("it can't work")}
	case c < 14:
		o.err = simRetryAfter{errors.New("later")}
	case c < 17:
		o.panic = true
	case c < 18 && p.wide:
		o.err = simStop{errors.New("stop")}
	case c < 23 && j.due > 0: // hangs until its time is over
		took = max(0, j.due-wk.clock()) + w.between(0, 30)
		if !w.chance(200) {
			o.err = context.DeadlineExceeded
		}
	}
	patch := map[string]any{}
	switch c := w.rng.IntN(100); {
	case c < 15:
		patch["x"] = w.key()
	case c < 30:
		patch["y"] = w.key()
	case c < 34:
		patch["y"] = nil
	case c < 40:
		patch["z"] = fmt.Sprint(w.count.handlers)
	}
	if k.work.Path == "R/check" && w.chance(500) {
		o.err = errors.New("do it again")
	}
	if p.wide && w.chance(100) {
		patch["due"] = w.due(wk)
	}
	if len(patch) > 0 {
		o.out.Patch, _ = json.Marshal(patch)
	}
	w.choose(n, j, &o.out)
	return took, func() eventlog.Request { return w.ran(p, j, o) }
}

// ran is the result of a handler, by the pool's own code.
func (w *world) ran(p *simPlan, j job, o simOutcome) eventlog.Request {
	p.next = o
	j.due = 0 // the real clock has nothing to do with it
	r := run(simContext, p.code, j)
	r.Jitter = rand.New(rand.NewPCG(uint64(w.count.handlers), j.key.run)).Float64()
	if r.Stack != "" {
		r.Stack = "stack"
	}
	return r
}

func (w *world) key() string { return fmt.Sprintf("k%d", w.rng.IntN(w.env.keys)) }

func (w *world) id() string {
	if w.env.hot && w.chance(700) {
		return "i0"
	}
	return fmt.Sprintf("i%d", w.count.ids-w.rng.IntN(w.env.instances))
}

// simUnit is a message for one key: what must arrive at the key's owner exactly once.
type simUnit struct {
	value string
	topic string
	order int
}

func unitName(topicID string, offset int64, tk TopicKey, value string) string {
	return fmt.Sprintf("%s@%d %s %s", topicID, offset, tk.Key, value)
}

// userMessage is somebody's message.
func (w *world) userMessage() {
	if w.calm {
		return
	}
	t := w.log.topics[[]string{"t0", "t0", "t1"}[w.rng.IntN(3)]]
	value := map[string]any{"u": len(w.units)}
	for _, name := range []string{"a", "b"} {
		var keys []string
		for n := 1 + w.rng.IntN(3)*w.rng.IntN(2); n > 0; n-- {
			keys = append(keys, w.key())
		}
		value[name] = keys
	}
	bad := w.chance(15)
	if bad {
		value["bad"] = true
	}
	data, _ := json.Marshal(value)
	at := w.log.produce(t, eventlog.Record{Key: []byte("m"), Value: data, Time: time.UnixMilli(simBase + w.now)})
	w.tracef("message at %s@%d %s", t.id, at, data)
	for _, tk := range simRelays {
		if tk.Topic != t.name || bad {
			continue
		}
		for _, k := range value[tk.Key].([]string) {
			w.units[unitName(t.id, at, tk, k)] = &simUnit{value: k, topic: t.id, order: len(w.units)}
		}
	}
}

func simKeys(name string) MessageKeys {
	return func(m *eventlog.Message) ([]string, error) {
		var v struct {
			A, B []string
			Bad  bool
		}
		if err := json.Unmarshal(m.Value, &v); err != nil {
			return nil, err
		}
		if v.Bad {
			return nil, errors.New("bad message")
		}
		if name == "a" {
			return v.A, nil
		}
		return v.B, nil
	}
}

// simRelay drives a relay.
type simRelay struct {
	w    *world
	wk   *simWorker
	step *relay
	gone bool
	life int
	pos  int64
	id   string
	last relayOp
}

func newSimRelay(wk *simWorker, tk TopicKey) *simRelay {
	r := &simRelay{w: wk.w, wk: wk, step: &relay{app: simApp, tk: tk, partitions: wk.w.env.partitions, maxRequest: 1 << 20, maxDead: 1 << 20,
		goOn: wk.w.rules.relayOn, ttl: time.Minute, keys: simKeys(tk.Key)}}
	if kind, _, is := strings.Cut(tk.Key, "/"); is {
		r.step.call = simCallOf(kind)
	}
	r.then(0, relayResult{})
	return r
}

// close makes the relay open again: its topic was made anew.
func (r *simRelay) close() {
	r.life++
	r.last = nil
	r.step.out, r.step.sent, r.step.moved = nil, 0, false
	r.then(r.w.between(1, 500), relayResult{})
}

// then steps with an answer after a delay.
func (r *simRelay) then(ms int64, res relayResult) {
	life := r.life
	r.wk.then(ms, func() {
		if !r.gone && r.life == life {
			r.last = r.step.step(r.last, res)
			r.do(r.last)
		}
	})
}

func (r *simRelay) do(next relayOp) {
	w := r.w
	switch x := next.(type) {
	case relayPublish:
		w.tracef("w%d relay %v publishes %d", r.wk.index, r.step.tk, len(x.records))
	case relayCommit, relayFail, relayOpen:
		w.tracef("w%d relay %v %T %v", r.wk.index, r.step.tk, next, next)
	}
	tk := r.step.tk
	t := w.log.topics[tk.Topic]
	switch x := next.(type) {
	case relayOpen:
		r.pos, r.id = w.offsets[tk], t.id
		r.then(w.delay(), relayResult{topicID: t.id})
	case relayRead:
		r.read(t)
	case relayPublish:
		life := r.life
		w.publish(r.wk, slices.Clone(x.records), func(err error) {
			if r.life == life {
				r.then(0, relayResult{err: err})
			}
		})
	case relayCommit:
		id, life, member := r.id, r.life, r.wk.life
		w.after(w.delay(), func() {
			var err error
			switch {
			case r.gone: // the group has another generation since
				err = eventlog.ErrNotMember
			case w.relayOf[tk] != r.wk.index && !w.fault(w.env.stale), t.id != id, r.wk.life != member:
				err = eventlog.ErrNotMember
			case w.fault(w.env.lost):
				err = errSimLost
				if w.chance(500) {
					w.offsets[tk] = x.offset
				}
			default:
				w.offsets[tk] = x.offset
			}
			if r.life == life {
				r.then(w.delay(), relayResult{err: err})
			}
		})
	case relayFail:
		r.then(w.between(50, 500), relayResult{})
	}
}

// read gives some records, when there are any.
func (r *simRelay) read(t *simTopic) {
	res := relayResult{next: r.pos}
	for n := 1 + r.w.rng.IntN(5); n > 0 && res.next < t.end; n-- {
		k := slices.IndexFunc(t.records, func(rec eventlog.Record) bool { return rec.Offset >= res.next })
		if k < 0 {
			res.next = t.end
			break
		}
		res.records = append(res.records, t.records[k])
		res.next = t.records[k].Offset + 1
	}
	if res.next == r.pos {
		life := r.life
		r.wk.then(r.w.between(20, 200), func() {
			if !r.gone && r.life == life {
				r.read(t)
			}
		})
		return
	}
	r.pos = res.next
	r.then(r.w.delay(), res)
}
