package machine

import (
	"slices"
	"sort"

	"github.com/godagger/dagger/eventlog"
)

// correlation folds the part of a correlation key's owner.
func (s *State) correlation(e *eventlog.Event) {
	// protocol rule 21: a local delivery is outstanding until its instance decided it.
	if e.Local {
		switch e.Type {
		case eventlog.MessageReceived, eventlog.MessageBuffered, eventlog.RequestHeld:
			if m := s.Matched[e.Msg]; m != nil {
				m.Local--
				s.settleMatched(m)
			}
		}
	}
	switch e.Type {
	case eventlog.SubscriptionAdded:
		k := s.key(keyOf(e))
		k.Waiters = append(k.Waiters, Waiter{N: e.N, ID: e.ID, Run: e.Run, Act: e.Act, One: e.Sole})
		s.changed(Row{Kind: RowWaiter, Key: keyOf(e), N: e.N})
	case eventlog.SubscriptionRemoved:
		s.removeWaiter(e)
	case eventlog.MessageKept:
		s.unkeep(keyOf(e), e.Msg)
		k := s.key(keyOf(e))
		k.Kept = append(k.Kept, Kept{Msg: e.Msg, Message: e.Message, Expires: e.Expires})
		sort.SliceStable(k.Kept, func(a, b int) bool { return k.Kept[a].Msg < k.Kept[b].Msg })
		s.changed(Row{Kind: RowKept, Key: keyOf(e), N: e.Msg, Expires: e.Expires})
		s.dropMatched(e.Msg)
	case eventlog.MessageMatched:
		s.unkeep(keyOf(e), e.Msg)
		m := &Matched{Msg: e.Msg, Key: keyOf(e), Message: e.Message, Expires: e.Expires}
		s.Matched[e.Msg] = m
		s.page(m, e)
		s.given(e)
		s.changed(Row{Kind: RowMatched, N: e.Msg})
	case eventlog.FanOutPage:
		if m := s.Matched[e.Msg]; m != nil {
			s.page(m, e)
			s.settleMatched(m)
		}
	case eventlog.DeliveriesAcked:
		s.acked(e)
	case eventlog.MessageReturned:
		s.removeWaiter(e)
		if m := s.Matched[e.Msg]; m != nil {
			m.Back++
			if e.Local {
				m.Local--
			}
			s.settleMatched(m)
		}
	case eventlog.MessageExpired:
		s.unkeep(keyOf(e), e.Msg)
		s.dropMatched(e.Msg)
	}
}

// given counts the message at a waiter that it was given to alone, where one of them takes
// messages alone.
func (s *State) given(e *eventlog.Event) {
	k := s.Keys[keyOf(e)]
	if w := k.Waiter(e.After); w != nil && e.Sole && slices.ContainsFunc(k.Waiters, func(w Waiter) bool { return w.One }) {
		w.Given++
		s.changed(Row{Kind: RowWaiter, Key: keyOf(e), N: w.N})
	}
}

func (s *State) key(ref eventlog.KeyRef) *KeyState {
	k := s.Keys[ref]
	if k == nil {
		k = &KeyState{}
		s.Keys[ref] = k
	}
	return k
}

func (s *State) unkeep(ref eventlog.KeyRef, msg uint64) {
	if k := s.Keys[ref]; k != nil {
		k.Kept = slices.DeleteFunc(k.Kept, func(x Kept) bool {
			if x.Msg == msg {
				s.changed(Row{Kind: RowKept, Key: ref, N: msg, Expires: x.Expires})
			}
			return x.Msg == msg
		})
	}
}

// removeWaiter ends subscriptions by activation, never by path or instance alone; protocol
// rule 20.
func (s *State) removeWaiter(e *eventlog.Event) {
	ref := keyOf(e)
	k := s.Keys[ref]
	if k == nil {
		return
	}
	if s.Rules.RemoveByInstance {
		k.Waiters = slices.DeleteFunc(k.Waiters, func(w Waiter) bool {
			if w.ID == e.ID {
				s.changed(Row{Kind: RowWaiter, Key: ref, N: w.N})
			}
			return w.ID == e.ID
		})
		return
	}
	for at := range k.Waiters {
		if w := &k.Waiters[at]; w.Run == e.Run && w.Act == e.Act && w.ID == e.ID {
			s.changed(Row{Kind: RowWaiter, Key: ref, N: w.N})
			k.remove(at)
			return
		}
	}
}

// remove takes a waiter out from the nearer end: those of a fan-out go from the front, one by
// one, and there may be very many.
func (k *KeyState) remove(at int) {
	if at > len(k.Waiters)/2 {
		k.Waiters = slices.Delete(k.Waiters, at, at+1)
		return
	}
	copy(k.Waiters[1:], k.Waiters[:at])
	k.Waiters[0] = Waiter{}
	k.Waiters = k.Waiters[1:]
}

func (s *State) dropMatched(msg uint64) {
	if s.Matched[msg] != nil {
		delete(s.Matched, msg)
		delete(s.fans, msg)
		s.changed(Row{Kind: RowMatched, N: msg})
	}
}

// page adds the waiters that the event chose.
func (s *State) page(m *Matched, e *eventlog.Event) {
	m.Chosen += e.Chosen
	m.Local += e.Kept
	m.After, m.Until = e.After, e.Until
	for index, o := range e.Out {
		if o.Request.Type == eventlog.DeliverTo {
			m.wait(o.To, eventlog.Mark{Pos: int64(e.N), Index: index})
		}
	}
	for _, w := range m.Waits {
		if w.Mark.Pos == int64(e.N) {
			s.unacked[w.Partition] = append(s.unacked[w.Partition], delivery{w.Mark, m.Msg})
		}
	}
	if m.Until > 0 {
		s.fans[m.Msg] = m
	} else {
		delete(s.fans, m.Msg)
	}
}

func (m *Matched) wait(partition int32, mark eventlog.Mark) {
	at, found := slices.BinarySearchFunc(m.Waits, partition, func(w Wait, p int32) int { return int(w.Partition) - int(p) })
	if found {
		m.Waits[at].Mark = mark
	} else {
		m.Waits = slices.Insert(m.Waits, at, Wait{partition, mark})
	}
}

// acked ends the waits for deliveries that their partition has decided.
func (s *State) acked(e *eventlog.Event) {
	l := s.unacked[e.From]
	for len(l) > 0 && l[0].mark.Compare(*e.Upto) <= 0 {
		m := s.Matched[l[0].msg]
		l = l[1:]
		if m == nil {
			continue
		}
		before := len(m.Waits)
		m.Waits = slices.DeleteFunc(m.Waits, func(w Wait) bool {
			return w.Partition == e.From && w.Mark.Compare(*e.Upto) <= 0
		})
		if len(m.Waits) < before {
			s.settleMatched(m)
		}
	}
	if len(l) == 0 {
		delete(s.unacked, e.From)
	} else {
		s.unacked[e.From] = l
	}
}

// settleMatched drops the body when nobody can return it any more and somebody took it.
func (s *State) settleMatched(m *Matched) {
	s.changed(Row{Kind: RowMatched, N: m.Msg})
	if len(m.Waits) == 0 && m.Local == 0 && m.Back < m.Chosen && m.Until == 0 {
		delete(s.Matched, m.Msg)
	}
}
