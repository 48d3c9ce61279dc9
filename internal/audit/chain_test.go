package audit

import (
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// chain lets the events name the ones before them, as far as nothing is forgotten.
func (h history) chain() history {
	for _, l := range h {
		last := map[string]uint64{}
		for _, e := range l {
			own := ""
			if changes(e) {
				own = e.ID
				e.Prev = last[own]
			}
			if e.Pos != nil {
				for k := range e.Pos.Refused {
					if r := &e.Pos.Refused[k]; r.ID != own {
						r.Prev = last[r.ID]
					}
				}
				for _, r := range e.Pos.Refused {
					last[r.ID] = e.N
				}
			}
			if own != "" {
				last[own] = e.N
			}
		}
	}
	return h
}

// lives is a history with refused calls, in events of other instances too, and stops that are
// kept.
func lives() history {
	const hour = 3600_000
	h := good()
	refuse := func(ids ...string) *eventlog.Position {
		p := &eventlog.Position{TopicID: "t", Offset: 90 + int64(len(h[0])), Forwarded: uint64(len(h[0]))}
		for _, id := range ids {
			p.Refused = append(p.Refused, eventlog.Refusal{ID: id, Request: "refused-" + id + string(rune('a'+len(h[0])+len(p.Refused))), Made: 1, Answer: "not found"})
		}
		return p
	}
	h.add(0, eventlog.Event{Type: eventlog.Checkpoint, Pos: refuse(order, halted, order)})
	h.add(0, eventlog.Event{Type: eventlog.InstanceDeleted, ID: order, Seq: 9, Run: 3, Request: "delete", Made: 1, Pos: refuse(order, early)})
	h.add(0, eventlog.Event{Type: eventlog.StopKept, ID: early, Definition: "Pizza", Request: "stop", Message: &eventlog.Message{}, Expires: 90_000})
	h.add(0, eventlog.Event{Type: eventlog.StopExpired, ID: early, Msg: uint64(len(h[0])), At: 90_000})
	h.add(0, eventlog.Event{Type: eventlog.AnswersForgotten, ID: early, At: 26 * hour})
	h.add(0, eventlog.Event{Type: eventlog.AnswersForgotten, ID: order})
	return h.chain()
}

var early = named("early", 0)

func (h history) start(id string, prev uint64) {
	h.add(0, eventlog.Event{Type: eventlog.InstanceStarted, ID: id, Seq: 1, Run: h[0][len(h[0])-1].N + 1, Definition: "Pizza", Plan: planHash, Prev: prev,
		Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}})
}

// What is forgotten begins anew, with the event before or without.
func TestChain(t *testing.T) {
	for _, again := range []bool{false, true} {
		h := lives()
		n := h[0][len(h[0])-1].N
		if !again {
			n = 0
		}
		h.start(order, n)
		h.start(named("new", 0), 0)
		if err := audit(h, false).Err(); err != nil {
			t.Error(err)
		}
	}
}

// Events of versions that did not name the ones before them pass: all of a log, and those of
// single owners.
func TestUnchained(t *testing.T) {
	h := lives()
	for _, l := range h {
		for _, e := range l {
			unchain(e)
		}
	}
	if err := audit(h, false).Err(); err != nil {
		t.Error(err)
	}
	h.add(0, eventlog.Event{Type: eventlog.PartitionOwned})
	h.add(0, eventlog.Event{Type: eventlog.AnswersForgotten, ID: halted, Prev: h.find(0, eventlog.Checkpoint, 0).N})
	h.add(0, eventlog.Event{Type: eventlog.PartitionOwned})
	h.add(0, eventlog.Event{Type: eventlog.AnswersForgotten, ID: halted})
	if err := audit(h, false).Err(); err != nil {
		t.Error(err)
	}
	h[0][len(h[0])-2].Type = eventlog.Checkpoint // the owner is the one that did
	if r := audit(h, false); r.Violations != 1 || !strings.Contains(r.First[0].Text, "does not name") {
		t.Errorf("report %+v", r)
	}
}

func unchain(e *eventlog.Event) {
	e.Prev = 0
	if e.Pos != nil {
		for k := range e.Pos.Refused {
			e.Pos.Refused[k].Prev = 0
		}
	}
}

// Each event that names another one is spoiled in each way: it names a later one, itself, one
// earlier, one of another instance, and none.
func TestChainViolations(t *testing.T) {
	want := lives()
	spoiled := 0
	for k, e := range want[0] {
		refused := 0
		if e.Pos != nil {
			refused = len(e.Pos.Refused)
		}
		for at := -1; at < refused; at++ {
			prev := func(h history) *uint64 {
				if at < 0 {
					return &h[0][k].Prev
				}
				return &h[0][k].Pos.Refused[at].Prev
			}
			was := *prev(want)
			for _, n := range []uint64{0, 1, max(was, 1) - 1, was + 1, e.N, e.N + 1, 1 << 40} {
				if n == was {
					continue
				}
				h := lives()
				*prev(h) = n
				r := audit(h, false)
				if r.Violations != 1 || r.First[0].N != e.N || !strings.Contains(r.First[0].Text, "name") {
					t.Errorf("event %d %s, refused call %d: prev %d instead of %d: %v", e.N, e.Type, at, n, was, r.First)
				}
				spoiled++
			}
		}
	}
	if spoiled < 150 {
		t.Errorf("%d events spoiled", spoiled)
	}
}
