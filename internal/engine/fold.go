package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// errUndecodable: an event can't be read, perhaps because it is of a newer version.
var errUndecodable = errors.New("engine: event can't be decoded")

// decodeEvent reads a record of the events topic; nil for a barrier.
func decodeEvent(rec *eventlog.Record, partition int32) (*eventlog.Event, error) {
	if eventlog.IsBarrier(rec.Value) {
		return nil, nil
	}
	ev := &eventlog.Event{}
	if err := eventlog.DecodeEvent(rec.Value, ev); err != nil {
		return nil, fmt.Errorf("%w: offset %d of partition %d: %w", errUndecodable, rec.Offset, partition, err)
	}
	return ev, nil
}

// scan reads the events of a partition that can be about one instance.
type scan struct {
	log       eventlog.Log
	partition int32
	topicID   string
	id        string // "" = all
	from      int64  // below the start: the start
	until     int64  // 0 = the end now
}

// run calls f with each event and its offset until f returns false. Events that can't touch
// the instance may be left out; those that record a plan never are.
func (s scan) run(ctx context.Context, f func(*eventlog.Event, int64) bool) error {
	name := eventlog.EventsTopic(s.log.App())
	topic, err := s.log.Topic(ctx, name)
	if err != nil {
		return fmt.Errorf("describe the events topic: %w", err)
	}
	have := topic.Partitions[s.partition]
	at, until := max(s.from, have.Start), have.End
	if s.until > 0 {
		until = s.until
	}
	if at >= until {
		return nil
	}
	reader, err := s.log.Read(ctx, name, s.partition, at, s.topicID, eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	id, plans := []byte(s.id), []byte(eventlog.PlanUsed)
	filter := s.id != "" && plain(s.id)
	for at < until {
		records, next, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		for k := range records {
			rec := &records[k]
			if rec.Offset >= until || filter && !bytes.Contains(rec.Value, id) && !bytes.Contains(rec.Value, plans) {
				continue
			}
			ev, err := decodeEvent(rec, s.partition)
			if err != nil {
				return err
			}
			if ev != nil && !f(ev, rec.Offset) {
				return nil
			}
		}
		at = next
	}
	return nil
}

// plain says whether an id stands in JSON as it is.
func plain(id string) bool {
	for k := range len(id) {
		if c := id[k]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '/' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// fold is one instance, folded from a store's row and the events after it.
type fold struct {
	id        string
	partition int32
	st        *machine.State
	after     uint64 // number of the last event that counts already
	based     bool   // on what a store has, or does not have, of the instance
}

func newFold(partitions int32, id string) *fold {
	p := eventlog.PartitionOf(id, partitions)
	return &fold{id: id, partition: p, st: machine.NewState(p, partitions)}
}

// instance is a copy of what was folded.
func (f *fold) instance() (*machine.Instance, error) {
	i := f.st.Instances[f.id]
	if i == nil || i.Run == 0 && i.Quarantined == "" {
		return nil, ErrNotFound
	}
	return i.Clone(), nil
}

// plan is the plan of the instance, if it came by.
func (f *fold) plan() *machine.Plan {
	if i := f.st.Instances[f.id]; i != nil {
		return f.st.Plans[i.Plan]
	}
	return nil
}

// event folds what an event does to the instance, and nothing else of it.
func (f *fold) event(ev *eventlog.Event) error {
	if ev.N <= f.after {
		return nil
	}
	e := *ev
	e.Pos, e.Out = nil, nil
	own := false
	if ev.ID == f.id {
		ids, _, _ := machine.Touches(&e)
		own = len(ids) > 0
	}
	if !own && ev.Type != eventlog.PlanUsed {
		e = eventlog.Event{V: 1, N: ev.N, Type: eventlog.Checkpoint, At: ev.At}
	}
	if ev.Pos != nil {
		var refused []eventlog.Refusal
		for _, r := range ev.Pos.Refused {
			if r.ID == f.id {
				refused = append(refused, r)
			}
		}
		if len(refused) > 0 {
			e.Pos = &eventlog.Position{Refused: refused}
		}
	}
	if !own && ev.Type != eventlog.PlanUsed && e.Pos == nil {
		return nil
	}
	f.st.N = ev.N - 1
	f.st.ForgetChanged()
	if err := f.st.Evolve(&e); err != nil {
		return err
	}
	f.after = ev.N
	return nil
}

// read folds the events up to an offset (0 = the end now). ErrNotFound, or ErrTrimmed where the
// events that would tell are gone.
func (f *fold) read(ctx context.Context, log eventlog.Log, store projection.Store, until int64) error {
	s, err := newFinder(ctx, log, f.partition)
	if err != nil {
		return err
	}
	if err := f.catchUp(ctx, s, store, until); err != nil {
		return s.trimmed(err)
	}
	if _, err := f.instance(); errors.Is(err, ErrNotFound) {
		return s.absent(ctx, f)
	}
	return nil
}

// catchUp folds the events up to an offset (0 = the end now), beginning with what the store
// has of the instance where it can be read from here. store may be nil.
func (f *fold) catchUp(ctx context.Context, s *finder, store projection.Store, until int64) error {
	from := int64(0)
	if store != nil {
		offset, err := f.base(ctx, store, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil { // held by another process, or damaged: the log has all
			*f = *newFold(f.st.Partitions, f.id)
		}
		from = offset
	}
	var failed error
	sc := scan{log: s.log, partition: f.partition, topicID: s.topicID, id: f.id, from: from, until: until}
	if err := sc.run(ctx, func(ev *eventlog.Event, offset int64) bool {
		if failed = f.event(ev); failed != nil {
			failed = fmt.Errorf("fold offset %d of partition %d: %w", offset, f.partition, failed)
		}
		return failed == nil
	}); err != nil {
		return err
	}
	return failed
}

// base takes the store's row of the instance and says from which offset to go on. Nothing is
// taken from a store that is older than the log's beginning.
func (f *fold) base(ctx context.Context, store projection.Store, s *finder) (offset int64, err error) {
	v, err := store.View(ctx, f.partition)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	w, err := v.Watermark(ctx)
	if err != nil || w.N == 0 || w.LogID != s.topicID || w.Offset < s.start {
		return 0, err
	}
	values, at, err := v.Get(ctx, projection.KindInstance, [][]byte{[]byte(f.id)})
	if err != nil {
		return 0, err
	}
	if at < w.N { // dropped meanwhile
		return 0, projection.ErrStateLost
	}
	if values[0] != nil {
		i := &machine.Instance{}
		if err := decodeRow(values[0], i); err != nil {
			return 0, err
		}
		f.st.Instances[f.id] = i
		if i.Plan != "" {
			if err := f.readPlan(ctx, v, i.Plan); err != nil {
				return 0, err
			}
		}
	}
	f.after, f.based = at, true
	return w.Offset, nil
}

// readPlan takes a plan from the store, if it is there.
func (f *fold) readPlan(ctx context.Context, v projection.View, hash string) error {
	plans, _, err := v.Scan(ctx, projection.KindPlan, []byte(hash), append([]byte(hash), 0), 1)
	if err != nil || len(plans) == 0 || len(plans[0].Value) == 0 {
		return err
	}
	return f.st.AddPlan(hash, plans[0].Value[1:])
}

// Events are the events of an instance's partition that name it, from the beginning of the
// log to its end at the call, in order. An error ends them.
func (e *Engine) Events(ctx context.Context, id string) iter.Seq2[*eventlog.Event, error] {
	return ReadEvents(ctx, e.log, e.store, id)
}

// ReadEvents is Engine.Events without an engine; store, which may be nil, says where they are.
func ReadEvents(ctx context.Context, log eventlog.Log, store projection.Store, id string) iter.Seq2[*eventlog.Event, error] {
	return func(yield func(*eventlog.Event, error) bool) {
		enough := errors.New("engine: nobody wants more")
		s, err := newFinder(ctx, log, eventlog.PartitionOf(id, log.Partitions()))
		if err == nil {
			err = s.search(ctx, store, id, Point{}, nil, func(ev *eventlog.Event, _ int64) error {
				if ev.ID == id && !yield(ev, nil) {
					return enough
				}
				return nil
			})
		}
		if err != nil && err != enough {
			yield(nil, err)
		}
	}
}
