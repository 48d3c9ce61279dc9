package workflow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// Moment is a moment in the history of an application. The zero Moment is now.
type Moment struct{ point engine.Point }

// IsNow says whether the moment is the zero Moment.
func (m Moment) IsNow() bool { return m.point.IsNow() }

// ErrMoment: the moment does not fit the question, for example an event number of one partition
// where all are asked for.
var ErrMoment = engine.ErrPoint

// ErrTrimmed: the log no longer has events that the answer needs; see Snapshots.Trim.
var ErrTrimmed = engine.ErrTrimmed

// AtTime is the moment after the last event that is not later than t.
func AtTime(t time.Time) Moment { return Moment{engine.AtTime(t)} }

// AtEvent is the moment after event number n of the instance's partition.
func AtEvent(n uint64) Moment { return Moment{engine.AtEvent(n)} }

// AtEvents is the moment after an event number in each partition, such as Page.AsOf. A partition
// that is not named is as it is now.
func AtEvents(n map[int32]uint64) Moment { return Moment{engine.AtEvents(n)} }

// AtOffset is the moment after the record at an offset of the instance's partition of the events
// topic.
func AtOffset(offset int64) Moment { return Moment{engine.AtOffset(offset)} }

// AtOffsets is the moment after the record at an offset in each partition of the events topic. A
// partition that is not named is as it is now.
func AtOffsets(offsets map[int32]uint64) Moment { return Moment{engine.AtOffsets(offsets)} }

// ParseMoment reads a moment as people write it:
//
//	2026-11-24T10:00:00Z   a time; without a zone it is UTC; the time of day may be left out
//	90m                    how long ago
//	117                    an event number of the instance's partition
//	offset:4711            an offset of the instance's partition
//	0:117,1:98             event numbers by partition
//	offset:0:4711,1:98     offsets by partition
//	now
func ParseMoment(text string) (Moment, error) {
	p, err := engine.ParsePoint(text, time.Now())
	return Moment{p}, err
}

// GetAt returns the instance as it was at a moment, folded from the log. ErrNotFound: it did not
// exist then. ErrTrimmed, ErrMoment.
func (e *Engine) GetAt(ctx context.Context, id string, m Moment) (Instance, error) {
	i, _, err := engine.ReadInstanceAt(ctx, e.log, e.store, id, m.point)
	if err != nil {
		return Instance{}, e.told(id, err)
	}
	return e.view(i), nil
}

// Fleet is all instances as they were at a moment. It holds them in memory.
type Fleet struct {
	e    *Engine
	past *engine.Past
}

// AsOf folds the log, from its beginning to a moment, into memory; that takes time and memory
// accordingly. The moment must be a time, or a number for each partition. ErrTrimmed, ErrMoment.
func (e *Engine) AsOf(ctx context.Context, m Moment) (*Fleet, error) {
	past, err := engine.ReadPast(ctx, e.log, m.point, nil)
	if err != nil {
		return nil, fmt.Errorf("fold the log: %w", e.told("", err))
	}
	return &Fleet{e, past}, nil
}

// AsOf returns the number of the last event that counts, by partition.
func (f *Fleet) AsOf() map[int32]uint64 { return maps.Clone(f.past.AsOf()) }

// List is Engine.List as of the moment.
func (f *Fleet) List(ctx context.Context, filter Filter) (Page, error) {
	p, err := f.past.List(ctx, filter.engine())
	if err != nil {
		return Page{}, f.e.told("", err)
	}
	page := Page{Cursor: p.Cursor, AsOf: p.AsOf}
	for _, i := range p.Instances {
		page.Instances = append(page.Instances, f.e.view(i))
	}
	return page, nil
}

// Count is Engine.Count as of the moment.
func (f *Fleet) Count(ctx context.Context, filter Filter) (Counts, error) {
	n, err := f.past.Count(ctx, filter.engine())
	if err != nil {
		return Counts{}, f.e.told("", err)
	}
	return countsOf(n, f.past.AsOf()), nil
}

// Get is Engine.Get as of the moment.
func (f *Fleet) Get(id string) (Instance, error) {
	i, err := f.past.Get(id)
	if err != nil {
		return Instance{}, f.e.told(id, err)
	}
	return f.e.view(i), nil
}

// Change is a difference between two states of an instance.
type Change struct {
	Path string // where, e.g. tasks[Order/ready].status
	From string // as JSON; "" = was not there
	To   string // as JSON; "" = is not there
}

// Diff returns what differs in an instance between two moments. If it did not exist at one of them,
// that is all of it. ErrNotFound: it existed at neither.
func (e *Engine) Diff(ctx context.Context, id string, from, to Moment) ([]Change, error) {
	var states [2][]byte
	var missing error
	for k, m := range []Moment{from, to} {
		i, _, err := engine.ReadInstanceAt(ctx, e.log, e.store, id, m.point)
		if err != nil {
			if err = e.told(id, err); !errors.Is(err, ErrNotFound) || missing != nil {
				return nil, err
			}
			missing = err
			continue
		}
		if states[k], err = engine.Comparable(i); err != nil {
			return nil, err
		}
	}
	var l []Change
	for _, c := range engine.Changes(states[0], states[1]) {
		l = append(l, Change(c))
	}
	return l, nil
}

// Step is an event in the history of an instance.
type Step struct {
	N      uint64 // event number
	At     time.Time
	Type   eventlog.Type
	Path   string // of the task
	By     string // call, handler, message, timer or engine
	Caller string // of a call: who made it (WithCaller)
	Worker string // that owned the partition
	Text   string // what happened, in a few words
	Ended  []Span // what ended with it
}

// Span is what a task did, and how long.
type Span struct {
	Path string
	What string // "ran", "waited for a message on …"
	From time.Time
	To   time.Time // zero: it goes on
}

// History is that of an instance.
type History struct {
	Steps []Step // what happened, oldest first
	Open  []Span // what had not ended
}

// History returns what happened to an instance up to a moment, who did it, what the instance waited
// for, and how long. ErrNotFound: it did not exist then.
func (e *Engine) History(ctx context.Context, id string, m Moment) (History, error) {
	t, err := engine.ReadTimeline(ctx, e.log, e.store, id, m.point)
	if err != nil {
		return History{}, e.told(id, err)
	}
	h := History{Open: spans(t.Open)}
	for _, s := range t.Steps {
		h.Steps = append(h.Steps, Step{N: s.N, At: s.At, Type: s.Type, Path: s.Path, By: s.By, Caller: s.Event.Caller, Worker: s.Worker, Text: s.Text, Ended: spans(s.Spans)})
	}
	return h, nil
}

func spans(l []engine.Span) []Span {
	var out []Span
	for _, s := range l {
		out = append(out, Span(s))
	}
	return out
}
