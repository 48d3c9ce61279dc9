package audit

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// about checks events about an instance that are not in its history.
func (p *partition) about(e *eventlog.Event) {
	switch e.Type {
	case eventlog.RequestHeld, eventlog.RequestReleased, eventlog.AnswersForgotten, eventlog.DeliveryRefused, eventlog.MessageDropped,
		eventlog.StopKept, eventlog.StopExpired:
	case eventlog.PartitionOwned, eventlog.PlanUsed, eventlog.Checkpoint, eventlog.SubscriptionAdded, eventlog.SubscriptionRemoved,
		eventlog.MessageKept, eventlog.MessageMatched, eventlog.FanOutPage, eventlog.MessageReturned, eventlog.MessageExpired,
		eventlog.DeliveriesAcked:
		return
	default:
		p.fail(e, "has no seq")
		return
	}
	p.home(e)
	i := p.instances[e.ID]
	switch e.Type {
	case eventlog.RequestHeld:
		if i == nil || !i.frozen {
			p.fail(e, "the instance is not in quarantine")
			return
		}
		held := buffered{}
		if h := e.Held; h != nil && h.Type == eventlog.DeliverTo {
			held.KeyRef, held.msg, held.sole = eventlog.KeyRef{Topic: h.Topic, Key: h.Key, Value: h.Value}, e.Msg, h.Sole
			held.origin = p.a.origin(held.KeyRef, h.Message)
			p.taken(e, h.Value)
		}
		i.held = append(i.held, held)
	case eventlog.RequestReleased:
		if i == nil || i.frozen || len(i.held) == 0 {
			p.fail(e, "nothing is held, or the instance is in quarantine")
			return
		}
		i.released, i.held = i.held[0], i.held[1:]
	case eventlog.DeliveryRefused:
		if p.took(i, e) {
			p.handBack(e, keyOf(e), e.Msg) // it counted as taken when it was held
		}
	case eventlog.MessageDropped:
		p.drop(i, e)
	case eventlog.StopKept:
		p.stopKept(e)
	case eventlog.StopExpired:
		p.stopExpired(e)
	}
}

// drop checks that the message that is dead-lettered was here, and nowhere else to go.
func (p *partition) drop(i *instance, e *eventlog.Event) {
	is := func(b buffered) bool { return b.msg == e.Msg && b.KeyRef == keyOf(e) }
	if i == nil {
		p.fail(e, "the instance has no message")
		return
	}
	if at := slices.IndexFunc(i.dropped, is); at >= 0 {
		p.a.deadLetters.expect(i.dropped[at].origin)
		i.dropped = slices.Delete(i.dropped, at, at+1)
		return
	}
	if !is(i.released) || i.released.sole {
		p.fail(e, "message %d did not leave the instance", e.Msg)
		return
	}
	p.a.deadLetters.expect(i.released.origin)
	i.released = buffered{}
}

// took counts a delivery, unless it counted when it was held.
func (p *partition) took(i *instance, e *eventlog.Event) (held bool) {
	if i != nil && i.released.msg == e.Msg && i.released.KeyRef == keyOf(e) && e.Msg != 0 {
		i.released = buffered{}
		return true
	}
	p.taken(e, e.Value)
	return false
}

func (p *partition) home(e *eventlog.Event) {
	if to := eventlog.PartitionOf(e.ID, p.a.count); to != p.index {
		p.fail(e, "the instance belongs to partition %d", to)
	}
}
