package machine

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/godagger/dagger/eventlog"
)

// correlate decides what concerns a correlation key.
func (t *Turn) correlate(r *eventlog.Request) string {
	s := t.S
	key := eventlog.KeyRef{Topic: r.Topic, Key: r.Key, Value: r.Value}
	switch r.Type {
	case eventlog.Deliver:
		// protocol rule 21: the time to live counts from the arrival here.
		t.arrive(key, Kept{Message: r.Message, Expires: max(t.Now, s.At) + max(r.TTL, minTTL)})
	case eventlog.Subscribe:
		t.emit(&eventlog.Event{Type: eventlog.SubscriptionAdded, Topic: r.Topic, Key: r.Key, Value: r.Value, ID: r.ID, Run: r.Run, Act: r.Act, Sole: r.Sole})
		if t.fanning(key) && !s.Rules.NoFanOrder {
			return OK // protocol rule 22: a drain waits behind an unfinished fan-out
		}
		w := s.Keys[key].Waiters
		me := w[len(w)-1]
		for _, m := range append([]Kept(nil), s.Keys[key].Kept...) {
			if m.Expires <= max(t.Now, s.At) {
				t.expire(key, m, "nobody waited for it in time")
				continue
			}
			t.match(key, m, []Waiter{me})
		}
	case eventlog.Unsubscribe:
		t.emit(&eventlog.Event{Type: eventlog.SubscriptionRemoved, Topic: r.Topic, Key: r.Key, Value: r.Value, ID: r.ID, Run: r.Run, Act: r.Act})
	case eventlog.Returned:
		t.returned(key, r)
	case eventlog.Ack:
		t.emit(&eventlog.Event{Type: eventlog.DeliveriesAcked, From: r.From, Upto: r.Upto})
	case FanOut:
		t.fanOut(r.Msg)
	case ExpireKept:
		if k := s.Keys[key]; k != nil {
			for _, m := range k.Kept {
				if m.Msg == r.Msg && m.Expires <= max(t.Now, s.At) {
					t.expire(key, m, "nobody waited for it in time")
					return OK
				}
			}
		}
		return Ignored
	}
	return OK
}

const minTTL = 60_000 // ms

func (t *Turn) expire(key eventlog.KeyRef, m Kept, reason string) {
	t.emit(&eventlog.Event{Type: eventlog.MessageExpired, Topic: key.Topic, Key: key.Key, Value: key.Value, Msg: m.Msg, Reason: reason})
	t.deadLetter(key, m.Message, reason, "")
}

// arrive matches a message with everybody who waits for its key, or keeps it.
func (t *Turn) arrive(key eventlog.KeyRef, m Kept) {
	if !t.carries(m.Message) {
		t.unfit(key, m)
		return
	}
	k := t.S.Keys[key]
	if k == nil || len(k.Waiters) == 0 || t.fanning(key) && !t.S.Rules.NoFanOrder {
		if m.Msg == 0 {
			m.Msg = t.S.N + 1
		}
		t.emit(&eventlog.Event{Type: eventlog.MessageKept, Topic: key.Topic, Key: key.Key, Value: key.Value, Msg: m.Msg, Message: m.Message, Expires: m.Expires})
		return
	}
	t.match(key, m, k.Waiters)
}

// carries says that an event takes the message, with a page of waiters beside it. What relays
// sent did when they sent it; the limit may have been lowered since.
func (t *Turn) carries(m *eventlog.Message) bool {
	fits := t.MaxEvent - min(128<<10, t.MaxEvent/4)
	if t.MaxEvent == 0 || m == nil || 6*messageSize(m) <= fits { // a byte may be \u0000 in JSON
		return true
	}
	data, err := json.Marshal(m)
	return err == nil && len(data) <= fits
}

// unfit gives up a message that no event takes.
func (t *Turn) unfit(key eventlog.KeyRef, m Kept) {
	const reason = "it is larger than the events topic takes, whose limit was lowered"
	if m.Msg != 0 {
		t.expire(key, m, reason)
		return
	}
	t.deadLetter(key, m.Message, reason, "")
}

// match chooses waiters, at most a page of them now; protocol rule 22: the list is fixed
// here, as all waiters up to the last one's number.
func (t *Turn) match(key eventlog.KeyRef, m Kept, waiters []Waiter) {
	if !t.carries(m.Message) {
		t.unfit(key, m)
		return
	}
	if m.Msg == 0 {
		m.Msg = t.S.N + 1
	}
	if slices.ContainsFunc(waiters, func(w Waiter) bool { return w.One }) {
		waiters = []Waiter{fewest(waiters)}
	}
	sole := len(waiters) == 1
	e := &eventlog.Event{Type: eventlog.MessageMatched, Topic: key.Topic, Key: key.Key, Value: key.Value, Msg: m.Msg, Message: m.Message, Expires: m.Expires, Sole: sole}
	page := waiters
	if size := t.S.Rules.Limits.page(); len(page) > size {
		page, e.Until = waiters[:size], waiters[len(waiters)-1].N
	}
	t.choose(e, key, page, m, sole)
}

// fewest is the waiter that was given the fewest messages alone; of several the oldest.
func fewest(waiters []Waiter) Waiter {
	return slices.MinFunc(waiters, func(a, b Waiter) int { return cmp.Or(cmp.Compare(a.Given, b.Given), cmp.Compare(a.N, b.N)) })
}

// choose emits a match or page whose deliveries go to the waiters. The message stands in the
// event once; each delivery gets it when it is passed on (Told).
func (t *Turn) choose(e *eventlog.Event, key eventlog.KeyRef, page []Waiter, m Kept, sole bool) {
	for _, w := range page {
		to := eventlog.PartitionOf(w.ID, t.S.Partitions)
		if to == t.S.Partition {
			e.Kept++
		}
		e.Out = append(e.Out, eventlog.Out{To: to, Request: eventlog.Request{V: 1, Type: eventlog.DeliverTo, ID: w.ID, Run: w.Run, Act: w.Act,
			Topic: key.Topic, Key: key.Key, Value: key.Value, Msg: m.Msg, Expires: m.Expires, Sole: sole}})
	}
	e.Chosen = len(page)
	if len(page) > 0 {
		e.After = page[len(page)-1].N
	}
	t.emit(e)
}

func (t *Turn) fanning(key eventlog.KeyRef) bool {
	for _, m := range t.S.fans {
		if m.Key == key {
			return true
		}
	}
	return false
}

// fanOut serves the next page of an unfinished fan-out, then what waited behind it.
func (t *Turn) fanOut(msg uint64) {
	s := t.S
	m := s.Matched[msg]
	if m == nil || m.Until == 0 {
		return
	}
	key := m.Key
	var page []Waiter
	more := false
	if k := s.Keys[key]; k != nil {
		for _, w := range k.Waiters {
			if w.N <= m.After || w.N > m.Until {
				continue
			}
			if len(page) == s.Rules.Limits.page() {
				more = true
				break
			}
			page = append(page, w)
		}
	}
	e := &eventlog.Event{Type: eventlog.FanOutPage, Msg: msg, Message: m.Message, After: m.After}
	if !t.carries(m.Message) { // the fan-out ends here
		if len(page) > 0 {
			t.deadLetter(key, m.Message, "it is larger than the events topic takes, whose limit was lowered: not all who wait got it", "")
		}
		page, more, e.Message = nil, false, nil
	}
	if more {
		e.Until = m.Until
	}
	t.choose(e, key, page, Kept{Msg: msg, Message: m.Message, Expires: m.Expires}, false)
	t.again(s.Matched[msg]) // the earlier pages may have returned it, and this one be empty
	for !s.Rules.NoFanOrder && !t.fanning(key) {
		k := s.Keys[key]
		if k == nil || len(k.Kept) == 0 || len(k.Waiters) == 0 {
			return
		}
		t.match(key, k.Kept[0], k.Waiters)
	}
}

// returned takes back a message that a waiter could not take; protocol rule 21.
func (t *Turn) returned(key eventlog.KeyRef, r *eventlog.Request) {
	s := t.S
	now := max(t.Now, s.At)
	if r.Message != nil { // after the acknowledgement: it comes with its body
		m := Kept{Msg: r.Msg, Message: r.Message, Expires: r.Expires}
		if m.Expires <= now {
			t.expire(key, m, "returned after its time to live")
		} else {
			t.arrive(key, m)
		}
		return
	}
	t.emit(&eventlog.Event{Type: eventlog.MessageReturned, Topic: key.Topic, Key: key.Key, Value: key.Value, Msg: r.Msg, ID: r.ID, Run: r.Run, Act: r.Act, Local: r.Source == nil})
	t.again(s.Matched[r.Msg])
}

// again matches a message once more that every chosen waiter has returned, when no more of
// them are to be chosen.
func (t *Turn) again(m *Matched) {
	if m == nil || m.Back < m.Chosen || m.Until > 0 {
		return
	}
	k := Kept{Msg: m.Msg, Message: m.Message, Expires: m.Expires}
	if m.Expires <= max(t.Now, t.S.At) {
		t.expire(m.Key, k, "every waiter returned it, after its time to live")
	} else {
		t.arrive(m.Key, k)
	}
}

// deadLetterOverhead is what a dead letter's headers take, generously.
const deadLetterOverhead = 8 << 10

// deadLetter sends a message to the dead-letter topic in the transaction of the event that
// was emitted last.
func (t *Turn) deadLetter(key eventlog.KeyRef, m *eventlog.Message, reason, id string) {
	rec := DeadLetter(t.App, reason)
	if m != nil {
		rec.Key, rec.Value = m.Key, m.Value
		if m.Value == nil {
			rec.Value = m.Bytes
		}
		if t.MaxMessage != nil && len(rec.Key)+len(rec.Value)+deadLetterOverhead > t.MaxMessage(rec.Topic) {
			// By reference: where it came from is in the headers.
			rec.Headers = append(rec.Headers, eventlog.Header{Key: "dagger-omitted-bytes", Value: strconv.AppendInt(nil, int64(len(rec.Value)), 10)})
			rec.Key, rec.Value = nil, nil
		}
		rec.Headers = append(rec.Headers,
			eventlog.Header{Key: "dagger-topic", Value: []byte(m.Topic)},
			eventlog.Header{Key: "dagger-topic-id", Value: []byte(m.TopicID)},
			eventlog.Header{Key: "dagger-partition", Value: strconv.AppendInt(nil, int64(m.Partition), 10)},
			eventlog.Header{Key: "dagger-offset", Value: strconv.AppendInt(nil, m.Offset, 10)})
	}
	rec.Headers = append(rec.Headers,
		eventlog.Header{Key: "dagger-key", Value: []byte(key.Key)},
		eventlog.Header{Key: "dagger-value", Value: []byte(key.Value)})
	if id != "" {
		rec.Headers = append(rec.Headers, eventlog.Header{Key: "dagger-instance", Value: []byte(id)})
	}
	t.Sendings = append(t.Sendings, Sending{Event: max(len(t.Events)-1, 0), Record: rec})
}

// DeadLetter is a dead-letter record with its reason and nothing else yet.
func DeadLetter(app, reason string) eventlog.Record {
	return eventlog.Record{Topic: eventlog.DeadLetterTopic(app), Partition: 0,
		Headers: []eventlog.Header{{Key: "dagger-reason", Value: []byte(reason)}}}
}

// DeadLetter adds a dead-letter record to the turn.
func (t *Turn) DeadLetter(r eventlog.Record) {
	t.Sendings = append(t.Sendings, Sending{Event: max(len(t.Events)-1, 0), Record: r})
}
