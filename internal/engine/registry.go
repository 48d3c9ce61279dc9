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
	first    map[version]*machine.Plan // that was recorded as a version
	latest   map[string]*machine.Plan  // by name, of recorded ones
	composed map[string]*Code          // put together from codes; nil: that can't be done
	next     int64                     // in the definitions topic
	filling  filling
	changed  chan struct{} // closed at the next change
}

// version is a definition as people name it.
type version struct {
	name   string
	number int
}

// definition is the value of a record of <app>.definitions; its key is name@hash. One without
// a plan says where a trigger begins; see Trigger.recordKey.
type definition struct {
	V      int             `json:"v"`
	Name   string          `json:"name"`
	Hash   string          `json:"hash,omitempty"`
	Plan   json.RawMessage `json:"plan,omitempty"`
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

func newRegistry(e *Engine) (*registry, error) {
	return &registry{e: e, turn: make(chan struct{}, 1), codes: map[string]*Code{}, current: map[string]*Code{},
		recorded: map[string]*definition{}, first: map[version]*machine.Plan{}, latest: map[string]*machine.Plan{}, composed: map[string]*Code{}, changed: make(chan struct{})}, nil
}

// Register makes definitions known to this process: it creates missing topics, records the
// plans in <app>.definitions with the positions at which their relays start, and returns when
// both are durable. It may be called while Run works. A *ChangedError for each definition that
// is not what its name and version were recorded for; then nothing is registered.
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
	if err := r.refresh(ctx); err != nil {
		return err
	}
	if err := r.unchanged(codes); err != nil {
		return err
	}
	for _, c := range codes {
		if err := r.topics(ctx, c); err != nil {
			return fmt.Errorf("register %s: %w", c.Plan.Name, err)
		}
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
		more, err := r.triggerRecords(ctx, c)
		if err != nil {
			return fmt.Errorf("register %s: %w", c.Plan.Name, err)
		}
		missing = append(missing, more...)
	}
	if len(missing) > 0 {
		if err := r.e.log.Publish(ctx, missing...); err != nil {
			return fmt.Errorf("record definitions: %w", err)
		}
		// Another worker may have recorded the same plan first, or another one as the same
		// version: the first record counts.
		if err := r.refresh(ctx); err != nil {
			return err
		}
		if err := r.unchanged(codes); err != nil {
			return err
		}
	}
	for _, c := range codes {
		r.add(c)
	}
	return nil
}

// unchanged compares definitions with what was recorded as their versions, and with each
// other. A plan that only another version of this package encodes otherwise is the same.
func (r *registry) unchanged(codes []*Code) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	here := map[version]*machine.Plan{}
	for _, c := range codes {
		v := version{c.Plan.Name, c.Plan.Version}
		have := r.first[v]
		if have == nil {
			have = here[v]
		}
		if have == nil || have.Hash() == c.Plan.Hash() {
			here[v] = c.Plan
			continue
		}
		if diff := diffPlans(have, c.Plan); len(diff) > 0 {
			errs = append(errs, &ChangedError{Name: v.name, Version: v.number, Next: r.nextVersion(codes, v.name), Diff: diff})
		}
	}
	return errors.Join(errs...)
}

// nextVersion is above all that are known. Needs mu.
func (r *registry) nextVersion(codes []*Code, name string) (next int) {
	for v := range r.first {
		if v.name == name {
			next = max(next, v.number+1)
		}
	}
	for _, c := range codes {
		if c.Plan.Name == name {
			next = max(next, c.Plan.Version+1)
		}
	}
	return next
}

// topics creates the topics of a definition and notes what fits them.
func (r *registry) topics(ctx context.Context, c *Code) error {
	names := slices.Clone(c.Topics)
	for _, n := range c.Plan.Tasks() {
		if n.Topic != "" && !slices.Contains(names, n.Topic) {
			names = append(names, n.Topic)
		}
	}
	for _, t := range c.Triggers {
		if !slices.Contains(names, t.Topic) {
			names = append(names, t.Topic)
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
		tk := TopicKey{n.Topic, n.Key}
		at, err := r.begin(ctx, tk, c.Begins[tk], topicTTL(c.Plan, n.Topic))
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
		if r.filling.take(rec) || len(rec.Value) == 0 || r.recorded[key] != nil {
			continue
		}
		d := &definition{}
		err := json.Unmarshal(rec.Value, d)
		if err == nil && len(d.Plan) > 0 {
			d.plan, err = machine.DecodePlan(d.Plan)
		}
		if err != nil {
			r.e.logger.Warn("a definition can't be read", "definition", key, "offset", rec.Offset, "err", err)
			continue
		}
		r.recorded[key], news = d, true
		if d.plan == nil {
			continue
		}
		if v := (version{d.Name, d.plan.Version}); r.first[v] == nil {
			r.first[v] = d.plan
		}
		if p := r.latest[d.Name]; p == nil || d.plan.Version > p.Version {
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
	c = c.withTriggers(r.codes[c.Plan.Hash()])
	r.codes[c.Plan.Hash()] = c
	r.order = append(slices.DeleteFunc(r.order, func(x *Code) bool { return x.Plan.Hash() == c.Plan.Hash() }), c)
	if x := r.current[c.Plan.Name]; x == nil || c.Plan.Version >= x.Plan.Version {
		r.current[c.Plan.Name] = c
	}
	r.notify()
}

// notify tells who waits for changes. Needs mu.
func (r *registry) notify() {
	clear(r.composed)
	close(r.changed)
	r.changed = make(chan struct{})
}

// changes is closed when something is registered or read after the call.
func (r *registry) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// code is the user code behind a plan, or nil. That of a plan which was composed elsewhere is
// put together from the definitions that its processes came from.
func (r *registry) code(hash string) *Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.codes[hash]; c != nil {
		return c
	}
	c, tried := r.composed[hash]
	if !tried {
		if p := r.planOf(hash); p != nil {
			c = compose(p, r.order)
		}
		r.composed[hash] = c
	}
	return c
}

// planOf is a recorded plan. Needs mu.
func (r *registry) planOf(hash string) *machine.Plan {
	for _, d := range r.recorded {
		if d.plan != nil && d.Hash == hash {
			return d.plan
		}
	}
	return nil
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
	return r.planOf(hash)
}
