package audit

import (
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

type sub struct {
	eventlog.KeyRef
	act uint64
}

type buffered struct {
	eventlog.KeyRef
	seq     uint64
	msg     uint64
	expires int64
	sole    bool
	origin  uint64
}

const bufferLimit = 100

// mailbox folds subscriptions and buffered messages; a quarantine does not touch them.
func (p *partition) mailbox(i *instance, e *eventlog.Event) {
	for _, k := range e.Unsubs {
		at := slices.IndexFunc(i.subs, func(s sub) bool { return s.KeyRef == k })
		if !p.check(i, e, at >= 0, "ends a subscription to %s that it does not have", name(k)) {
			continue
		}
		p.a.note(e.ID, e.Run, i.subs[at].act, k, func(s *subscription) { s.ended = true })
		i.subs = slices.Delete(i.subs, at, at+1)
	}
	for _, k := range e.Subs {
		p.check(i, e, !slices.ContainsFunc(i.subs, func(s sub) bool { return s.KeyRef == k }), "subscribes to %s a second time", name(k))
		p.check(i, e, i.mayWait(k), "subscribes to %s, and no listener that takes messages alone was reached", name(k))
		i.subs = append(i.subs, sub{k, e.Seq})
		p.a.note(e.ID, e.Run, e.Seq, k, func(s *subscription) { s.wanted, s.partition, s.n = true, p.index, e.N })
	}
	for _, m := range e.Back {
		at := slices.IndexFunc(i.buffer, func(b buffered) bool { return b.seq == m })
		if p.check(i, e, at >= 0, "message %d leaves, but it was not buffered", m) {
			if b := i.buffer[at]; b.sole {
				p.handBack(e, b.KeyRef, b.msg)
			} else {
				i.dropped = append(i.dropped, b)
			}
			i.buffer = slices.Delete(i.buffer, at, at+1)
		}
	}
	k := keyOf(e)
	switch e.Type {
	case eventlog.MessageReceived:
		was := i.unbuffer(k, e.Msg)
		p.check(i, e, was || e.Message != nil, "message %d was not buffered, and it is not here", e.Msg)
		if !was {
			p.took(i, e)
		}
	case eventlog.MessageBuffered:
		p.took(i, e)
		p.check(i, e, !slices.ContainsFunc(i.buffer, func(b buffered) bool { return b.msg == e.Msg && b.KeyRef == k }), "message %d is buffered a second time", e.Msg)
		i.buffer = append(i.buffer, buffered{k, e.Seq, e.Msg, e.Expires, e.Sole, p.a.origin(k, e.Message)})
		n := 0
		for _, b := range i.buffer {
			if b.KeyRef == k {
				n++
			}
		}
		p.check(i, e, n <= p.a.o.Buffered, "%d messages of one key are buffered", n)
	case eventlog.BufferExpired:
		at := slices.IndexFunc(i.buffer, func(b buffered) bool { return b.msg == e.Msg && b.KeyRef == k })
		if p.check(i, e, at >= 0, "message %d is not buffered", e.Msg) {
			p.check(i, e, e.At >= i.buffer[at].expires, "message %d expired at %d, its time is %d", e.Msg, e.At, i.buffer[at].expires)
			p.a.deadLetters.expect(i.buffer[at].origin)
			i.unbuffer(k, e.Msg)
		}
	case eventlog.ListenerFull:
		p.took(i, e)
		p.check(i, e, slices.Contains(e.Unsubs, k), "its subscription goes on")
	}
}

// mayWait says that a listener of the key takes part before it is reached, or was reached.
func (i *instance) mayWait(k eventlog.KeyRef) bool {
	if i.plan == nil || !i.plan.known {
		return true
	}
	is := func(n *node) bool {
		return n != nil && n.Kind == eventlog.Listen && n.Topic == k.Topic && n.Key == k.Key
	}
	for _, n := range i.plan.nodes {
		if is(n) && (!n.One || n.SkipTo != "") {
			return true
		}
	}
	for _, t := range i.tasks {
		if n := i.plan.node(t.path); is(n) && (t.status == running || t.status == completed && n.Reprocess) {
			return true
		}
	}
	return false
}

func (i *instance) unbuffer(k eventlog.KeyRef, msg uint64) bool {
	n := len(i.buffer)
	i.buffer = slices.DeleteFunc(i.buffer, func(b buffered) bool { return b.msg == msg && b.KeyRef == k })
	return len(i.buffer) < n
}

func name(k eventlog.KeyRef) string { return fmt.Sprintf("%s %s=%s", k.Topic, k.Key, k.Value) }

func (a *Auditor) note(id string, run, act uint64, k eventlog.KeyRef, f func(*subscription)) {
	h := a.activation(id, run, act, k)
	s := a.subs[h]
	f(&s)
	a.subs[h] = s
}

// after checks what must hold between events: an ended instance has no subscription and no
// message, a waiting listener is subscribed to its key.
func (p *partition) after(i *instance, e *eventlog.Event) {
	if i.frozen {
		return
	}
	if i.status != running {
		p.check(i, e, len(i.subs) == 0, "the instance has ended and is subscribed to %d keys", len(i.subs))
		p.check(i, e, len(i.buffer) == 0, "the instance has ended and keeps %d messages", len(i.buffer))
		return
	}
	for _, t := range i.tasks {
		if t.status != running || t.phase != waiting || t.kind != eventlog.Listen || i.plan == nil {
			continue
		}
		n := i.plan.node(t.path)
		if n == nil {
			continue
		}
		k := eventlog.KeyRef{Topic: n.Topic, Key: n.Key, Value: i.value(t.path)}
		if k.Value == "" {
			continue
		}
		has := slices.ContainsFunc(i.subs, func(s sub) bool { return s.KeyRef == k })
		full := 0
		for _, b := range i.buffer {
			if b.KeyRef == k {
				full++
			}
		}
		p.check(i, e, has || full >= p.a.o.Buffered, "task %s waits for %s and is not subscribed", t.path, name(k))
	}
}
