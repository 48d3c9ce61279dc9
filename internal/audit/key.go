package audit

import (
	"sort"

	"github.com/godagger/dagger/eventlog"
)

// message is a message at its correlation key.
type message struct {
	key          eventlog.KeyRef
	origin       uint64 // of the record
	expires      int64
	kept         bool
	matched      bool
	chosen, back int
	until        uint64
}

func keyOf(e *eventlog.Event) eventlog.KeyRef {
	return eventlog.KeyRef{Topic: e.Topic, Key: e.Key, Value: e.Value}
}

// keyOf is the key of the event; a page of a fan-out names only the message.
func (p *partition) keyOf(e *eventlog.Event) eventlog.KeyRef {
	if m := p.messages[e.Msg]; m != nil && e.Type == eventlog.FanOutPage {
		return m.key
	}
	return keyOf(e)
}

// key checks the events of correlation keys.
func (p *partition) key(e *eventlog.Event) {
	switch e.Type {
	case eventlog.SubscriptionAdded, eventlog.SubscriptionRemoved, eventlog.MessageKept, eventlog.MessageMatched,
		eventlog.MessageReturned, eventlog.MessageExpired:
		if to := eventlog.PartitionOf(e.Value, p.a.count); to != p.index {
			p.fail(e, "the value %q belongs to partition %d", e.Value, to)
			return
		}
	}
	switch e.Type {
	case eventlog.SubscriptionAdded, eventlog.SubscriptionRemoved:
		p.subscription(e)
	case eventlog.MessageKept:
		m := p.arrive(e)
		m.kept, m.expires, m.matched = true, e.Expires, false
	case eventlog.MessageMatched:
		m := p.arrive(e)
		m.kept, m.expires, m.matched = false, e.Expires, true
		m.chosen, m.back, m.until = 0, 0, 0
		if e.Chosen == 0 {
			p.fail(e, "message %d was matched with nobody", e.Msg)
		}
		p.page(m, e)
	case eventlog.FanOutPage:
		m := p.messages[e.Msg]
		if m == nil || !m.matched || m.until == 0 {
			p.fail(e, "message %d has no unfinished fan-out", e.Msg)
			return
		}
		p.page(m, e)
	case eventlog.MessageReturned:
		m := p.messages[e.Msg]
		h := p.a.activation(e.ID, e.Run, e.Act, keyOf(e))
		s := p.a.subs[h]
		s.removed = true
		p.a.subs[h] = s
		delete(p.live, h)
		if m == nil || !m.matched {
			p.fail(e, "message %d was not given to anybody", e.Msg)
			return
		}
		if m.back++; m.back > m.chosen {
			p.fail(e, "message %d was returned %d times and given to %d", e.Msg, m.back, m.chosen)
		}
	case eventlog.MessageExpired:
		m := p.messages[e.Msg]
		if m == nil {
			p.fail(e, "message %d never arrived here", e.Msg)
			return
		}
		if e.At < m.expires {
			p.fail(e, "message %d expired at %d, its time is %d", e.Msg, e.At, m.expires)
		}
		p.again(m, e.Msg)
		m.kept, m.matched = false, false
		p.a.deadLetters.expect(m.origin)
	case eventlog.DeliveriesAcked:
		p.ack(e)
	}
}

func (p *partition) subscription(e *eventlog.Event) {
	h := p.a.activation(e.ID, e.Run, e.Act, keyOf(e))
	s := p.a.subs[h]
	if s.n == 0 {
		s.partition, s.n = p.index, e.N
	}
	if e.Type == eventlog.SubscriptionAdded {
		if s.added {
			p.fail(e, "the subscription of activation (%d, %d) a second time", e.Run, e.Act)
		}
		s.added = true
		p.live[h] = struct{}{}
	} else {
		if !s.added {
			p.fail(e, "there was no subscription of activation (%d, %d)", e.Run, e.Act)
		}
		if s.unsubscribed {
			p.fail(e, "the subscription of activation (%d, %d) a second time", e.Run, e.Act)
		}
		s.removed, s.unsubscribed = true, true
		delete(p.live, h)
	}
	p.a.subs[h] = s
}

// arrive checks a message that arrives at its key, or comes back to it.
func (p *partition) arrive(e *eventlog.Event) *message {
	m := p.messages[e.Msg]
	if m == nil {
		if e.Msg != e.N {
			p.fail(e, "message %d never arrived here", e.Msg)
		}
		m = &message{key: keyOf(e), origin: p.a.origin(keyOf(e), e.Message)}
		p.messages[e.Msg] = m
		if g := e.Message; g != nil {
			if _, twice := p.arrived[m.origin]; twice {
				p.fail(e, "the record at partition %d offset %d of topic %s arrived a second time", g.Partition, g.Offset, g.Topic)
			}
			p.arrived[m.origin] = struct{}{}
		}
		return m
	}
	if e.Msg == e.N {
		p.fail(e, "message %d a second time", e.Msg)
	}
	p.again(m, e.Msg)
	return m
}

// again notes why a message moves that was here before: it was kept, or everybody returned
// it, or else somebody who had taken it handed it back.
func (p *partition) again(m *message, msg uint64) {
	if m.kept || m.matched && m.back >= m.chosen && m.until == 0 {
		return
	}
	p.a.body(p.index, msg).taken++
}

// page checks how many waiters were chosen.
func (p *partition) page(m *message, e *eventlog.Event) {
	m.chosen += e.Chosen
	m.until = e.Until
	out := 0
	for _, o := range e.Out {
		if o.Request.Type == eventlog.DeliverTo {
			out++
		}
	}
	if out+e.Kept != e.Chosen {
		p.fail(e, "%d were chosen for message %d, but %d told and %d kept", e.Chosen, e.Msg, out, e.Kept)
	}
	if e.Kept > 0 {
		d := p.local[e.Msg]
		if d == nil {
			d = &deliver{}
			p.local[e.Msg] = d
		}
		d.told += int32(e.Kept)
	}
}

func (p *partition) ack(e *eventlog.Event) {
	if e.Upto == nil {
		p.fail(e, "without a mark")
		return
	}
	upto := mark{e.Upto.Pos, int32(e.Upto.Index)}
	if !p.acked[e.From].less(upto) {
		p.fail(e, "partition %d acknowledged %d.%d after %d.%d", e.From, upto.n, upto.index, p.acked[e.From].n, p.acked[e.From].index)
	}
	told := p.a.told[route{p.index, e.From}]
	k := sort.Search(len(told), func(k int) bool { return !told[k].less(upto) })
	if k == len(told) || told[k] != upto {
		p.fail(e, "partition %d acknowledged %d.%d, which it was never told", e.From, upto.n, upto.index)
	}
	p.acked[e.From] = upto
}
