package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// defaultTTL is how long a message waits for a listener that names no time.
const defaultTTL = 24 * time.Hour

// registry holds the definitions of this process, and what <app>.definitions has of all.
type registry struct {
	e    *Engine
	turn chan struct{} // one Register or refresh at a time

	mu       sync.Mutex
	codes    map[string]*Code
	current  map[string]*Code
	order    []*Code // as they were registered
	recorded map[string]*definition
	latest   map[string]*machine.Plan // by name, of recorded ones
	next     int64                    // in the definitions topic
	changed  chan struct{}            // closed at the next change
}

// definition is the value of a record of <app>.definitions; its key is name@hash.
type definition struct {
	V      int             `json:"v"`
	Name   string          `json:"name"`
	Hash   string          `json:"hash"`
	Plan   json.RawMessage `json:"plan"`
	Starts []relayStart    `json:"starts,omitempty"`

	plan *machine.Plan
}

// relayStart says where the relay of a topic and key name starts when it has not committed
// anything; protocol rule 18.
type relayStart struct {
	Topic   string  `json:"topic"`
	TopicID string  `json:"topicId"`
	Key     string  `json:"key"`
	Offsets []int64 `json:"offsets"`
}

// relaySpec is a relay that this process can run.
type relaySpec struct {
	TopicKey
	ttl  time.Duration // the longest of the topic's listeners
	keys MessageKeys
}

func newRegistry(e *Engine) (*registry, error) {
	return &registry{e: e, turn: make(chan struct{}, 1), codes: map[string]*Code{}, current: map[string]*Code{},
		recorded: map[string]*definition{}, latest: map[string]*machine.Plan{}, changed: make(chan struct{})}, nil
}

// Register makes definitions known to this process: it creates missing topics, records the
// plans in <app>.definitions with the positions at which their relays start, and returns when
// both are durable. It may be called while Run works.
func (e *Engine) Register(ctx context.Context, codes ...*Code) error {
	e.mu.Lock()
	closed := e.state == isClosed
	e.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return e.registry.register(ctx, codes)
}

// Plan is a plan that this process has code for or that <app>.definitions had when it was
// read last; nil when neither knows the hash.
func (e *Engine) Plan(hash string) *machine.Plan { return e.registry.Plan(hash) }

func (r *registry) lock(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *registry) register(ctx context.Context, codes []*Code) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer func() { <-r.turn }()
	for _, c := range codes {
		if err := r.topics(ctx, c); err != nil {
			return fmt.Errorf("register %s: %w", c.Plan.Name, err)
		}
	}
	if err := r.refresh(ctx); err != nil {
		return err
	}
	var missing []eventlog.Record
	for _, c := range codes {
		rec, err := r.record(ctx, c)
		if err != nil {
			return fmt.Errorf("register %s: %w", c.Plan.Name, err)
		}
		if rec != nil {
			missing = append(missing, *rec)
		}
	}
	if len(missing) > 0 {
		if err := r.e.log.Publish(ctx, missing...); err != nil {
			return fmt.Errorf("record definitions: %w", err)
		}
		// Another worker may have recorded the same plan first: the first record counts.
		if err := r.refresh(ctx); err != nil {
			return err
		}
	}
	for _, c := range codes {
		r.add(c)
	}
	return nil
}

// topics creates the topics of a definition and notes what fits them.
func (r *registry) topics(ctx context.Context, c *Code) error {
	names := slices.Clone(c.Topics)
	for _, n := range c.Plan.Tasks() {
		if n.Topic != "" && !slices.Contains(names, n.Topic) {
			names = append(names, n.Topic)
		}
	}
	var errs []error
	for _, name := range names {
		if err := r.e.log.EnsureTopic(ctx, name, 1); err != nil {
			errs = append(errs, fmt.Errorf("create topic %s: %w", name, err))
			continue
		}
		t, err := r.e.log.Topic(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("describe topic %s: %w", name, err))
			continue
		}
		r.e.describe(t)
	}
	return errors.Join(errs...)
}

// record makes the record of a plan that the topic does not have; positions once recorded
// are never changed.
func (r *registry) record(ctx context.Context, c *Code) (*eventlog.Record, error) {
	key := c.Plan.Name + "@" + c.Plan.Hash()
	r.mu.Lock()
	known := r.recorded[key] != nil
	r.mu.Unlock()
	if known {
		return nil, nil
	}
	d := definition{V: 1, Name: c.Plan.Name, Hash: c.Plan.Hash(), Plan: c.Plan.Recorded()}
	for _, n := range c.Plan.Tasks() {
		if n.Kind != eventlog.Listen {
			continue
		}
		at, err := r.start(ctx, c, n)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(d.Starts, func(s relayStart) bool { return s.Topic == at.Topic && s.Key == at.Key }) {
			d.Starts = append(d.Starts, at)
		}
	}
	value, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode definition: %w", err)
	}
	return &eventlog.Record{Topic: eventlog.DefinitionsTopic(r.e.log.App()), Key: []byte(key), Value: value}, nil
}

// start finds the first record that is younger than the listeners' time to live.
func (r *registry) start(ctx context.Context, c *Code, n *machine.Node) (relayStart, error) {
	ttl := topicTTL(c.Plan, n.Topic)
	topic, err := r.e.log.Topic(ctx, n.Topic)
	if err != nil {
		return relayStart{}, fmt.Errorf("describe topic %s: %w", n.Topic, err)
	}
	offsets, err := r.e.log.OffsetAt(ctx, n.Topic, time.Now().Add(-ttl))
	if err != nil {
		return relayStart{}, fmt.Errorf("find where to start in topic %s: %w", n.Topic, err)
	}
	return relayStart{Topic: n.Topic, TopicID: topic.ID, Key: n.Key, Offsets: offsets}, nil
}

// topicTTL is the longest time to live of the plan's listeners to a topic.
func topicTTL(p *machine.Plan, topic string) (ttl time.Duration) {
	for _, n := range p.Tasks() {
		if n.Kind != eventlog.Listen || n.Topic != topic {
			continue
		}
		d := time.Duration(n.TTL) * time.Millisecond
		if d <= 0 {
			d = defaultTTL
		}
		ttl = max(ttl, d, time.Minute)
	}
	return ttl
}

// refresh reads what the definitions topic got since the last time. Needs the turn.
func (r *registry) refresh(ctx context.Context) error {
	name := eventlog.DefinitionsTopic(r.e.log.App())
	topic, err := r.e.log.Topic(ctx, name)
	if err != nil {
		return fmt.Errorf("describe the definitions topic: %w", err)
	}
	end, next := topic.Partitions[0].End, max(r.next, topic.Partitions[0].Start)
	if next >= end {
		return nil
	}
	reader, err := r.e.log.Read(ctx, name, 0, next, "", eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read definitions: %w", err)
	}
	defer reader.Close()
	for next < end {
		var records []eventlog.Record
		if records, next, err = reader.Next(ctx); err != nil {
			return fmt.Errorf("read definitions: %w", err)
		}
		r.take(records)
		r.next = next
	}
	return nil
}

// learn reads the definitions topic when a Start needs a plan that is not known yet: whoever
// made the Start recorded the plan before.
func (r *registry) learn(ctx context.Context, units []unit) error {
	if !slices.ContainsFunc(units, func(u unit) bool {
		q := &u.request
		return u.bad == nil && q.Type == eventlog.StartInstance && (q.Plan != "" && r.Plan(q.Plan) == nil || q.Plan == "" && r.Current(q.Definition) == nil)
	}) {
		return nil
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer func() { <-r.turn }()
	return r.refresh(ctx)
}

// take keeps recorded definitions; the first record of a key counts.
func (r *registry) take(records []eventlog.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := false
	for k := range records {
		rec := &records[k]
		key := string(rec.Key)
		if len(rec.Value) == 0 || r.recorded[key] != nil {
			continue
		}
		d := &definition{}
		err := json.Unmarshal(rec.Value, d)
		if err == nil {
			d.plan, err = machine.DecodePlan(d.Plan)
		}
		if err != nil {
			r.e.logger.Warn("a definition can't be read", "definition", key, "offset", rec.Offset, "err", err)
			continue
		}
		r.recorded[key], news = d, true
		if p := r.latest[d.Name]; p == nil || d.plan.Version >= p.Version {
			r.latest[d.Name] = d.plan
		}
	}
	if news {
		r.notify()
	}
}

// add makes code known without recording its plan.
func (r *registry) add(c *Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.codes[c.Plan.Hash()] = c
	r.order = append(slices.DeleteFunc(r.order, func(x *Code) bool { return x.Plan.Hash() == c.Plan.Hash() }), c)
	if x := r.current[c.Plan.Name]; x == nil || c.Plan.Version >= x.Plan.Version {
		r.current[c.Plan.Name] = c
	}
	r.notify()
}

// notify tells who waits for changes. Needs mu.
func (r *registry) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// changes is closed when something is registered or read after the call.
func (r *registry) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// code is the user code behind a plan, or nil.
func (r *registry) code(hash string) *Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.codes[hash]
}

// Current implements machine.Registry: of this process's versions the highest, else of the
// recorded ones.
func (r *registry) Current(definition string) *machine.Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.current[definition]; c != nil {
		return c.Plan
	}
	return r.latest[definition]
}

// Plan implements machine.Registry.
func (r *registry) Plan(hash string) *machine.Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.codes[hash]; c != nil {
		return c.Plan
	}
	for _, d := range r.recorded {
		if d.Hash == hash {
			return d.plan
		}
	}
	return nil
}

// relays are the relays whose key function this process has; protocol rule 17.
func (r *registry) relays() []relaySpec {
	r.mu.Lock()
	defer r.mu.Unlock()
	var l []relaySpec
	for _, c := range r.order {
		for tk, keys := range c.Messages {
			k := slices.IndexFunc(l, func(s relaySpec) bool { return s.TopicKey == tk })
			if k < 0 {
				k, l = len(l), append(l, relaySpec{TopicKey: tk})
			}
			l[k].keys = keys
		}
	}
	for k := range l {
		for _, c := range r.order {
			l[k].ttl = max(l[k].ttl, topicTTL(c.Plan, l[k].Topic))
		}
		for _, d := range r.recorded {
			l[k].ttl = max(l[k].ttl, topicTTL(d.plan, l[k].Topic))
		}
	}
	return l
}

// relay is the relay of a topic and key name as it is known now.
func (r *registry) relay(tk TopicKey) (relaySpec, bool) {
	l := r.relays()
	k := slices.IndexFunc(l, func(s relaySpec) bool { return s.TopicKey == tk })
	if k < 0 {
		return relaySpec{}, false
	}
	return l[k], true
}

// startOf is the recorded start of a relay's partition: the lowest of all definitions, and 0
// for a partition that was unknown then. known is false when no record is of this topic id.
func (r *registry) startOf(tk TopicKey, topicID string, partition int32) (offset int64, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.recorded {
		for _, s := range d.Starts {
			if s.Topic != tk.Topic || s.Key != tk.Key || s.TopicID != topicID {
				continue
			}
			at := int64(0)
			if int(partition) < len(s.Offsets) {
				at = s.Offsets[partition]
			}
			if !known || at < offset {
				offset, known = at, true
			}
		}
	}
	return offset, known
}
