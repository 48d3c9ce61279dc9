package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// epoch is when every test history begins, ms.
const epoch = 1_700_000_000_000

// world is a few partitions with what goes between them, driven by hand. Every turn is
// checked on the way: a twin of the state decides the same requests and must say the same,
// and a shadow folds the events as they stand in the log and must become the same state.
type world struct {
	now      int64
	maxEvent int
	maxMsg   int
	parts    []*part
	current  map[string]*Plan
	plans    map[string]*Plan         // by hash
	poison   map[string]eventlog.Type // instances whose next fold panics, of this type of event
	letters  []eventlog.Record
	onEvent  func(p *part, e *eventlog.Event, before, after *Instance)
}

type part struct {
	s, twin, shadow *State
	offset          int64
	inbox           []eventlog.Request // what other partitions and relays told it
	outbox          [][]eventlog.Request
	rows            map[string]string // as a store would have them
	dues            map[Due]int
	works           map[string][]Work
}

func newWorld(partitions int) *world {
	w := &world{now: epoch, current: map[string]*Plan{}, plans: map[string]*Plan{}, poison: map[string]eventlog.Type{}, maxEvent: 1 << 20, maxMsg: 1 << 19}
	for k := range partitions {
		p := &part{rows: map[string]string{}, dues: map[Due]int{}, works: map[string][]Work{}, outbox: make([][]eventlog.Request, partitions)}
		p.s, p.twin, p.shadow = NewState(int32(k), int32(partitions)), NewState(int32(k), int32(partitions)), NewState(int32(k), int32(partitions))
		inject := func(e *eventlog.Event) {
			if typ, ok := w.poison[e.ID]; ok && (typ == "" || typ == e.Type) {
				panic("poisoned")
			}
		}
		p.s.Inject, p.twin.Inject = inject, inject // the shadow folds with other code, so to say
		w.parts = append(w.parts, p)
	}
	return w
}

func (w *world) Current(name string) *Plan { return w.current[name] }
func (w *world) Plan(hash string) *Plan    { return w.plans[hash] }

func (w *world) addPlan(p *Plan) { w.current[p.Name], w.plans[p.Hash()] = p, p }

func (w *world) of(r *eventlog.Request) *part {
	return w.parts[eventlog.PartitionOfKey(r.PartitionKey(), int32(len(w.parts)))]
}

// instance is the live state of an instance, or nil.
func (w *world) instance(id string) *Instance {
	return w.parts[eventlog.PartitionOf(id, int32(len(w.parts)))].s.Instances[id]
}

// own appends the event of a new owner.
func (w *world) own() error {
	for _, p := range w.parts {
		e := &eventlog.Event{V: 1, N: p.s.N + 1, Type: eventlog.PartitionOwned, At: w.now, Worker: "w1", Address: "localhost"}
		if err := errors.Join(p.s.Evolve(e), p.twin.Evolve(e), w.follow(p, []*eventlog.Event{e})); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) newTurn(s *State) *Turn {
	return &Turn{S: s, Registry: w, App: "app", Now: w.now, MaxEvent: w.maxEvent, MaxMessage: func(string) int { return w.maxMsg }}
}

// decided is what a turn came to.
type decided struct {
	answers []string // of the requests, in order
	turn    *Turn
}

// turn decides a batch at a partition and follows it up as an owner does.
func (w *world) turn(p *part, ackNow bool, requests ...eventlog.Request) (*decided, error) {
	before := p.s.N
	pos := Position{TopicID: "requests", Offset: p.offset + int64(len(requests)), Forwarded: before, AckNow: ackNow}
	p.offset = pos.Offset
	w.healed(p.s)
	d := w.decide(p.s, pos, requests)
	twin := w.decide(p.twin, pos, requests)
	for id := range w.poison {
		if i := p.s.Instances[id]; i != nil && i.Quarantined != "" {
			delete(w.poison, id)
		}
	}
	if diff := cmp.Diff(d.answers, twin.answers); diff != "" {
		return d, fmt.Errorf("deciding twice gives two answers:\n%s", diff)
	}
	if diff := cmp.Diff(encoded(d.turn.Events), encoded(twin.turn.Events)); diff != "" {
		return d, fmt.Errorf("deciding twice gives two histories:\n%s", diff)
	}
	if diff := cmp.Diff(d.turn.Sendings, twin.turn.Sendings); diff != "" {
		return d, fmt.Errorf("deciding twice sends different messages:\n%s", diff)
	}
	for _, e := range d.turn.Events {
		for index, o := range e.Out {
			r := Told(e, index, p.s.Partition)
			p.outbox[o.To] = append(p.outbox[o.To], r)
			w.parts[o.To].inbox = append(w.parts[o.To].inbox, r)
		}
	}
	for _, m := range d.turn.Sendings {
		if m.Path == "" {
			w.letters = append(w.letters, m.Record)
		}
	}
	return d, w.follow(p, d.turn.Events)
}

// healed lets the poison act once for each turn that finds it.
func (w *world) healed(s *State) {
	for id := range w.poison {
		if i := s.Instances[id]; i != nil && i.Quarantined != "" {
			delete(w.poison, id)
		}
	}
}

func (w *world) decide(s *State, pos Position, requests []eventlog.Request) *decided {
	d := &decided{turn: w.newTurn(s)}
	t := d.turn
	quarantine := func() {
		for len(s.Frozen) > 0 {
			ids := make([]string, 0, len(s.Frozen))
			for id := range s.Frozen {
				ids = append(ids, id)
			}
			sort.Strings(ids)
			t.Decide(&eventlog.Request{Type: Quarantine, ID: ids[0], Reason: "poisoned"})
		}
	}
	for _, r := range requests {
		d.answers = append(d.answers, t.Decide(&r))
		quarantine()
		for {
			local, ok := t.NextLocal()
			if !ok {
				break
			}
			t.Decide(&local)
			quarantine()
		}
	}
	t.Close(pos)
	return d
}

func encoded(events []*eventlog.Event) []string {
	l := make([]string, len(events))
	for k, e := range events {
		l[k] = string(eventlog.AppendEvent(nil, e))
	}
	return l
}

// follow folds the events into the shadow as a reader of the log does, and its changed rows
// and index entries as a store does.
func (w *world) follow(p *part, events []*eventlog.Event) error {
	for _, e := range events {
		var read eventlog.Event
		data := eventlog.AppendEvent(nil, e)
		if err := eventlog.DecodeEvent(data, &read); err != nil {
			return fmt.Errorf("decode %s: %w", data, err)
		}
		var before *Instance
		if i := p.shadow.Instances[e.ID]; i != nil {
			before = i.Clone()
		}
		if err := p.chained(&read); err != nil {
			return fmt.Errorf("%s: %w", data, err)
		}
		if err := p.shadow.Evolve(&read); err != nil {
			return fmt.Errorf("fold %s: %w", data, err)
		}
		p.store()
		if w.onEvent != nil {
			w.onEvent(p, &read, before, p.shadow.Instances[e.ID])
		}
	}
	return nil
}

func mustUnmarshal(data string, v any) {
	if err := json.Unmarshal([]byte(data), v); err != nil {
		panic(err)
	}
}

func mustMarshal(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func lines(s string) []string { return strings.Split(s, "\n") }

// step decides the oldest request that waits at a partition, a page of a fan-out, or what is
// owed to others; false when all is quiet.
func (w *world) step() (p *part, d *decided, more bool, err error) {
	for _, p := range w.parts {
		if msg, ok := p.s.FanOut(); ok {
			d, err = w.turn(p, false, eventlog.Request{Type: FanOut, Msg: msg})
			return p, d, true, err
		}
		if len(p.inbox) > 0 {
			r := p.inbox[0]
			p.inbox = p.inbox[1:]
			d, err = w.turn(p, false, r)
			return p, d, true, err
		}
	}
	for _, p := range w.parts {
		if len(p.s.AckDue) > 0 {
			d, err = w.turn(p, true)
			return p, d, true, err
		}
	}
	return nil, nil, false, nil
}

// due has what is due by now at a partition, in order.
func (w *world) due(p *part) []Due {
	var l []Due
	for d := range p.dues {
		if d.At <= w.now {
			l = append(l, d)
		}
	}
	slices.SortFunc(l, func(a, b Due) int {
		if a.At != b.At {
			return int(a.At - b.At)
		}
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	return l
}

// events and answers of all scenarios, for the count at the end.
type seen struct {
	events  map[eventlog.Type]int
	answers map[string]int
}

func (s *seen) check(t *testing.T, types []eventlog.Type, answers []string) {
	t.Helper()
	for _, x := range types {
		if s.events[x] == 0 {
			t.Errorf("no scenario has an event %s", x)
		}
	}
	for _, x := range answers {
		if s.answers[x] == 0 {
			t.Errorf("no scenario has the answer %q", x)
		}
	}
}
