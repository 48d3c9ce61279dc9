package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// importer is the owner of all partitions of a new application at once: it decides requests
// with the machine, as owners do, and passes on itself what one partition tells another.
type importer struct {
	log    eventlog.Log
	source *importSource
	now    int64
	done   Imported
	parts  []*importPart
}

// importPart is a partition of the new application.
type importPart struct {
	m         *importer
	s         *machine.State
	w         *eventWriter
	topicID   string // of the requests
	offset    int64
	forwarded uint64
	inbox     []eventlog.Request // from other partitions, in order
}

func (m *importer) run(ctx context.Context) (err error) {
	requests, err := m.log.Topic(ctx, eventlog.RequestsTopic(m.log.App()))
	if err != nil {
		return fmt.Errorf("describe the requests topic: %w", err)
	}
	defer func() {
		for _, p := range m.parts {
			err = firstError(err, p.w.close())
		}
	}()
	for k := range m.log.Partitions() {
		w, err := newEventWriter(ctx, m.log, k)
		if err != nil {
			return err
		}
		p := &importPart{m: m, s: machine.NewState(k, m.log.Partitions()), w: w, topicID: requests.ID, offset: requests.Partitions[k].Start}
		m.parts = append(m.parts, p)
		if err := p.emit(ctx, &eventlog.Event{Type: eventlog.PartitionOwned, Worker: "import of " + m.source.head.App}); err != nil {
			return err
		}
	}
	if err := m.definitions(ctx); err != nil {
		return err
	}
	instances := m.source.instances()
	for _, i := range instances {
		if err := m.instance(ctx, i); err != nil {
			return fmt.Errorf("import instance %s: %w", i.ID, err)
		}
		m.done.Instances++
	}
	if err := m.settle(ctx, false); err != nil {
		return err
	}
	for _, w := range m.source.messages(instances) {
		if err := m.message(ctx, w); err != nil {
			return fmt.Errorf("import a message of %s: %w", w.key.Topic, err)
		}
		m.done.Messages++
	}
	if err := m.settle(ctx, true); err != nil {
		return err
	}
	for _, p := range m.parts {
		// Everything that was told has been passed on here.
		pos := &eventlog.Position{TopicID: p.topicID, Offset: p.offset, Forwarded: p.s.N, Sources: m.source.relays()}
		if err := p.emit(ctx, &eventlog.Event{Type: eventlog.Checkpoint, Pos: pos}); err != nil {
			return err
		}
		if err := firstError(p.w.flush(ctx), p.w.before.ended(ctx)); err != nil {
			return fmt.Errorf("append events of partition %d: %w", p.s.Partition, err)
		}
	}
	return nil
}

// definitions records those whose topics are the same here, with the positions at which their
// relays go on. Of others Register says where they begin; what counts already is known anyway.
func (m *importer) definitions(ctx context.Context) error {
	var records []eventlog.Record
	for _, x := range m.source.definitions {
		d := &definition{}
		if err := json.Unmarshal(x.Value, d); err != nil {
			return fmt.Errorf("%w: definition %s: %w", ErrExport, x.Key, err)
		}
		same := true
		for k := range d.Starts {
			s := &d.Starts[k]
			t, err := m.log.Topic(ctx, s.Topic)
			if err != nil && !errors.Is(err, eventlog.ErrNoTopic) {
				return fmt.Errorf("describe topic %s: %w", s.Topic, err)
			}
			same = same && err == nil && t.ID == s.TopicID
			for _, r := range m.source.end.Relays {
				if r.Topic == s.Topic && r.TopicID == s.TopicID && r.Key == s.Key {
					s.Offsets = r.Offsets
				}
			}
		}
		if !same {
			continue
		}
		value, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode definition: %w", err)
		}
		records = append(records, eventlog.Record{Topic: eventlog.DefinitionsTopic(m.log.App()), Key: []byte(x.Key), Value: value})
	}
	if err := publishKeyed(ctx, m.log, records); err != nil {
		return fmt.Errorf("record definitions: %w", err)
	}
	return nil
}

func (m *importer) part(key string) *importPart {
	return m.parts[eventlog.PartitionOf(key, int32(len(m.parts)))]
}

// instance brings an instance into the state that it had: it is started, put into quarantine,
// and released with that state.
func (m *importer) instance(ctx context.Context, i *machine.Instance) error {
	p := m.part(i.ID)
	const why = "import"
	answer, err := p.decide(ctx, eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: i.ID, Definition: i.Definition, Plan: i.Plan, Params: i.Params, Keys: i.Keys, HasKeys: true},
		eventlog.Request{V: 1, Type: machine.Quarantine, ID: i.ID, Reason: why})
	if err != nil {
		return err
	}
	if answer != machine.OK {
		return fmt.Errorf("start: %s", answer)
	}
	state, err := json.Marshal(m.body(i, p.s.Instances[i.ID].Seq+1))
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	answer, err = p.decide(ctx, eventlog.Request{V: 1, Type: eventlog.ReleaseInstance, ID: i.ID, State: state, Reason: "imported from " + m.source.head.App})
	if err != nil {
		return err
	}
	if answer != machine.OK && i.Terminal() { // nothing follows from it
		have := p.s.Instances[i.ID]
		answer = machine.OK
		if err := p.emit(ctx, &eventlog.Event{Type: eventlog.InstanceReset, ID: i.ID, Seq: have.Seq + 1, Run: have.Run, State: state, Reason: "imported from " + m.source.head.App, Unsubs: keysOf(have.Subs)}); err != nil {
			return err
		}
	}
	if answer != machine.OK {
		return fmt.Errorf("take its state: %s", answer)
	}
	if i.Quarantined != "" {
		if _, err := p.decide(ctx, eventlog.Request{V: 1, Type: machine.Quarantine, ID: i.ID, Reason: i.Quarantined}); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(subs []machine.Subscription) []eventlog.KeyRef {
	var l []eventlog.KeyRef
	for _, s := range subs {
		l = append(l, s.KeyRef)
	}
	return l
}

// body is the state with the activations of the reset.
func (m *importer) body(i *machine.Instance, seq uint64) machine.Body {
	b := i.Clone().Body
	b.ParamsSeq, b.Evaluate = seq, 0
	for k := range b.Tasks {
		b.Tasks[k].Act = seq
	}
	return b
}

// message puts a message to where it waited.
func (m *importer) message(ctx context.Context, w waiting) error {
	p := m.part(w.key.Value)
	if k := p.s.Keys[w.key]; k != nil && len(w.ids) > 0 {
		e := &eventlog.Event{Type: eventlog.MessageMatched, Topic: w.key.Topic, Key: w.key.Key, Value: w.key.Value, Msg: p.s.N + 1, Message: w.message, Expires: max(w.expires, m.now)}
		var local []eventlog.Request
		for _, x := range k.Waiters {
			if !slices.Contains(w.ids, x.ID) {
				continue
			}
			q := eventlog.Request{V: 1, Type: eventlog.DeliverTo, ID: x.ID, Run: x.Run, Act: x.Act, Topic: w.key.Topic, Key: w.key.Key, Value: w.key.Value, Msg: e.Msg, Expires: e.Expires}
			q.Sole = w.sole && len(w.ids) == 1
			e.Chosen, e.After, e.Sole = e.Chosen+1, x.N, q.Sole
			if to := eventlog.PartitionOf(x.ID, int32(len(m.parts))); to != p.s.Partition {
				e.Out = append(e.Out, eventlog.Out{To: to, Request: q})
				continue
			}
			q.Message = w.message
			e.Kept++
			local = append(local, q)
		}
		if e.Chosen > 0 {
			if err := p.emit(ctx, e); err != nil {
				return err
			}
			if _, err := p.decide(ctx, local...); err != nil {
				return err
			}
			return m.settle(ctx, false)
		}
	}
	_, err := p.decide(ctx, eventlog.Request{V: 1, Type: eventlog.Deliver, Topic: w.key.Topic, Key: w.key.Key, Value: w.key.Value, Message: w.message, TTL: max(w.expires-m.now, 1)})
	if err != nil {
		return err
	}
	return m.settle(ctx, false)
}

// settle decides what partitions have told each other, until nothing is left; at the end with
// the acknowledgements that are owed.
func (m *importer) settle(ctx context.Context, ack bool) error {
	for busy := true; busy; {
		busy = false
		for _, p := range m.parts {
			for len(p.inbox) > 0 {
				n := min(len(p.inbox), 256)
				batch := p.inbox[:n]
				p.inbox = p.inbox[n:]
				if _, err := p.decide(ctx, batch...); err != nil {
					return err
				}
				busy = true
			}
			if ack && len(p.s.AckDue) > 0 {
				if _, err := p.turn(ctx, nil, true); err != nil {
					return err
				}
				busy = true
			}
		}
	}
	return nil
}

// decide takes requests in one turn; the answer is that of the first one.
func (p *importPart) decide(ctx context.Context, requests ...eventlog.Request) (answer string, err error) {
	return p.turn(ctx, requests, false)
}

func (p *importPart) turn(ctx context.Context, requests []eventlog.Request, ack bool) (answer string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decide: %v", r)
		}
	}()
	t := &machine.Turn{S: p.s, Registry: p.m.source, App: p.m.log.App(), Now: p.m.now}
	for k := range requests {
		p.know(t, &requests[k])
		if a := t.Decide(&requests[k]); k == 0 {
			answer = a
		}
		for {
			next, ok := t.NextLocal()
			if !ok {
				break
			}
			p.know(t, &next)
			t.Decide(&next)
		}
	}
	t.Close(machine.Position{TopicID: p.topicID, Offset: p.offset, Forwarded: p.forwarded, AckNow: ack})
	if len(p.s.Frozen) > 0 {
		return "", fmt.Errorf("a fold of this version failed: %v", p.s.Frozen)
	}
	var messages []eventlog.Record
	for _, s := range t.Sendings {
		messages = append(messages, s.Record)
	}
	for k, e := range t.Events {
		var with []eventlog.Record
		if k == len(t.Events)-1 {
			with = messages
		}
		if err := p.write(ctx, e, with); err != nil {
			return "", err
		}
	}
	p.s.ForgetChanged()
	return answer, nil
}

// know makes the entity that a request is about known: everything is in memory.
func (p *importPart) know(t *machine.Turn, r *eventlog.Request) {
	if _, key, isKey := t.Needs(r); isKey && p.s.Keys[key] == nil {
		p.s.Keys[key] = &machine.KeyState{}
	}
}

// emit appends an event that no request made.
func (p *importPart) emit(ctx context.Context, e *eventlog.Event) error {
	e.V, e.N, e.At = 1, p.s.N+1, max(p.m.now, p.s.At)
	e.Prev = p.s.Before(e)
	if err := p.s.Evolve(e); err != nil {
		return err
	}
	return p.write(ctx, e, nil)
}

// write appends a folded event, and passes on what it tells other partitions.
func (p *importPart) write(ctx context.Context, e *eventlog.Event, messages []eventlog.Record) error {
	for k := range e.Out {
		to := p.m.parts[e.Out[k].To]
		to.inbox = append(to.inbox, machine.Told(e, k, p.s.Partition))
	}
	p.m.done.Events++
	p.w.messages = append(p.w.messages, messages...)
	if err := p.w.add(ctx, eventlog.AppendEvent(nil, e), e.Type); err != nil {
		return fmt.Errorf("append event %d of partition %d: %w", e.N, p.s.Partition, err)
	}
	return nil
}
