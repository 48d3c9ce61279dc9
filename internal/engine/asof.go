package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Point is a moment in the history of a log. The zero Point is now.
type Point struct {
	by     pointKind
	time   int64 // ms
	n      uint64
	offset int64
	ns     map[int32]uint64 // numbers or offsets, by partition
}

type pointKind byte

const (
	pointNow pointKind = iota
	pointTime
	pointEvent
	pointEvents
	pointOffset
	pointOffsets
)

// ErrPoint: the point does not fit what is asked for.
var ErrPoint = errors.New("engine: this moment is not one of what is asked for")

// ErrTrimmed: the log has dropped its oldest events, which are needed for it.
var ErrTrimmed = errors.New("engine: the log was trimmed")

// AtTime is the state of all events that are not later than t.
func AtTime(t time.Time) Point { return Point{by: pointTime, time: t.UnixMilli()} }

// AtEvent is the state of the events of an instance's partition up to number n.
func AtEvent(n uint64) Point { return Point{by: pointEvent, n: n} }

// AtEvents is the state of the events up to a number for each partition, as Page.AsOf has
// them; a partition that is not named is as it is now.
func AtEvents(n map[int32]uint64) Point { return Point{by: pointEvents, ns: n} }

// AtOffset is the state of the events of an instance's partition up to an offset of the
// events topic.
func AtOffset(offset int64) Point { return Point{by: pointOffset, offset: offset} }

// AtOffsets is the state of the events up to an offset of the events topic for each partition; a
// partition that is not named is as it is now.
func AtOffsets(offsets map[int32]uint64) Point { return Point{by: pointOffsets, ns: offsets} }

// IsNow says whether the point is the zero Point.
func (p Point) IsNow() bool { return p.by == pointNow }

// of narrows the point to a partition.
func (p Point) of(partition int32) Point {
	n, named := p.ns[partition]
	switch {
	case p.by != pointEvents && p.by != pointOffsets:
		return p
	case !named:
		return Point{}
	case p.by == pointOffsets:
		return AtOffset(int64(n))
	}
	return AtEvent(n)
}

// fits refuses a point that names a partition which the log has not: as if it were not named, the
// answer would be of now.
func (p Point) fits(partitions int32) error {
	for _, n := range slices.Sorted(maps.Keys(p.ns)) {
		if n < 0 || n >= partitions {
			return fmt.Errorf("%w: it names partition %d, and the log has the partitions 0 to %d", ErrPoint, n, partitions-1)
		}
	}
	return nil
}

// covers says whether an event counts; the point is one of a partition.
func (p Point) covers(n uint64, at, offset int64) bool {
	switch p.by {
	case pointTime:
		return at <= p.time
	case pointEvent:
		return n <= p.n
	case pointOffset:
		return offset <= p.offset
	}
	return true
}

// finder finds events of one partition.
type finder struct {
	log       eventlog.Log
	name      string
	topicID   string
	partition int32
	start     int64
	end       int64 // of the topic when the search began
}

func newFinder(ctx context.Context, log eventlog.Log, partition int32) (*finder, error) {
	name := eventlog.EventsTopic(log.App())
	topic, err := log.Topic(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("describe the events topic: %w", err)
	}
	if partition < 0 || int(partition) >= len(topic.Partitions) {
		return nil, fmt.Errorf("partition %d: the log has %d", partition, len(topic.Partitions))
	}
	p := topic.Partitions[partition]
	return &finder{log: log, name: name, topicID: topic.ID, partition: partition, start: p.Start, end: p.End}, nil
}

// peek opens readers for one who needs few records.
func (s *finder) peek() opener {
	if p, ok := s.log.(eventlog.Peeker); ok {
		return p.Peek
	}
	return s.log.Read
}

// found is where an event stands; n is 0 when there is none.
type found struct {
	n      uint64
	at     int64
	offset int64
}

// read gives the records from an offset on to f until it returns false or the end is
// reached. Barriers are left out. f is told when a piece of the log ends, too, with a nil
// record: a good moment to stop.
func (s *finder) read(ctx context.Context, from int64, f func(*eventlog.Record) (bool, error)) error {
	return s.through(ctx, s.log.Read, from, f)
}

// opener is Read of a log, or Peek.
type opener func(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error)

func (s *finder) through(ctx context.Context, open opener, from int64, f func(*eventlog.Record) (bool, error)) error {
	at := max(from, s.start)
	if at >= s.end {
		return nil
	}
	reader, err := open(ctx, s.name, s.partition, at, s.topicID, eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	for at < s.end {
		records, next, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		for k := range records {
			if records[k].Offset >= s.end {
				return nil
			}
			if eventlog.IsBarrier(records[k].Value) {
				continue
			}
			if on, err := f(&records[k]); err != nil || !on {
				return err
			}
		}
		at = next
	}
	return nil
}

// probe is the first event at or behind an offset.
func (s *finder) probe(ctx context.Context, offset int64) (x found, err error) {
	err = s.through(ctx, s.peek(), offset, func(r *eventlog.Record) (bool, error) {
		ev, err := decodeEvent(r, s.partition)
		if err == nil {
			x = found{ev.N, ev.At, r.Offset}
		}
		return false, err
	})
	return x, err
}

// last is the last event that the point covers. Numbers, offsets and times all rise with each
// other, so it is searched by halves.
func (s *finder) last(ctx context.Context, p Point) (x found, err error) {
	low, high := s.start, s.end // what is covered ends in [low, high)
	if p.by == pointOffset {
		high = min(high, p.offset+1)
	}
	for guess := s.guess(ctx, p); low < high; guess = low + (high-low)/2 {
		guess = min(max(guess, low), high-1)
		y, err := s.probe(ctx, guess)
		switch {
		case err != nil:
			return x, err
		case y.n == 0 || !p.covers(y.n, y.at, y.offset):
			high = guess
		default:
			x, low = y, y.offset+1
		}
	}
	return x, nil
}

// guess is where the search for the last event begins.
func (s *finder) guess(ctx context.Context, p Point) int64 {
	switch p.by {
	case pointNow, pointOffset:
		return s.end - 1
	case pointEvent:
		return s.start + int64(p.n) - 1
	}
	// The records' own times are near, except in a copied log.
	offsets, err := s.log.OffsetAt(ctx, s.name, time.UnixMilli(p.time+1))
	if err != nil || int(s.partition) >= len(offsets) {
		return s.start
	}
	return offsets[s.partition] - 1
}

// ReadInstanceAt is ReadInstance as of a point. From the store's row of the instance it goes back
// from event to event; without that row, and to a point before all that the row knows of, it reads
// the blocks of events up to the point that may name the instance, as the store's index says, and
// without a store the partition.
// ErrNotFound: the instance did not exist then. ErrTrimmed: the events that would tell are gone.
func ReadInstanceAt(ctx context.Context, log eventlog.Log, store projection.Store, id string, p Point) (*machine.Instance, *machine.Plan, error) {
	if err := p.fits(log.Partitions()); err != nil {
		return nil, nil, err
	}
	f := newFold(log.Partitions(), id)
	if p = p.of(f.partition); p.IsNow() {
		return ReadInstance(ctx, log, store, id)
	}
	s, err := newFinder(ctx, log, f.partition)
	if err != nil {
		return nil, nil, err
	}
	if p.by == pointOffset {
		x, err := s.last(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		p = AtEvent(x.n)
	}
	if err := f.foldTo(ctx, s, store, p); err != nil {
		return nil, nil, err
	}
	i, err := f.instance()
	if errors.Is(err, ErrNotFound) {
		err = s.absent(ctx, f)
	}
	if err != nil {
		return nil, nil, err
	}
	return i, f.plan(), nil
}

// trimmed says why an event is missing: the log may have dropped its oldest ones.
func (s *finder) trimmed(err error) error {
	if errors.Is(err, machine.ErrGap) && s.start > 0 {
		return fmt.Errorf("%w: partition %d begins at offset %d now: %w", ErrTrimmed, s.partition, s.start, err)
	}
	return err
}

// absent is the error of an instance of which nothing was found: ErrNotFound, or ErrTrimmed where
// that may have stood among the events which the log has dropped.
func (s *finder) absent(ctx context.Context, f *fold) error {
	if _, heard := f.st.Instances[f.id]; heard || f.based || s.start == 0 {
		return ErrNotFound
	}
	first, err := s.probe(ctx, s.start)
	if err != nil {
		return err
	}
	if first.n == 1 {
		return ErrNotFound
	}
	return fmt.Errorf("%w: partition %d begins at offset %d now, and what is left of it does not know the instance; the store may", ErrTrimmed, s.partition, s.start)
}

// foldTo folds the events that the point covers.
func (f *fold) foldTo(ctx context.Context, s *finder, store projection.Store, p Point) error {
	from, until, done, err := f.window(ctx, s, store, p)
	if err != nil || done {
		return err
	}
	take := func(ev *eventlog.Event, offset int64) error {
		if err := f.event(ev); err != nil {
			return s.trimmed(fmt.Errorf("fold offset %d of partition %d: %w", offset, f.partition, err))
		}
		return nil
	}
	if from <= s.start && until == 0 {
		return s.search(ctx, store, f.id, p, nil, take)
	}
	return s.about(ctx, s.log.Read, f.id, from, until, p, nil, take)
}

// window is the part of the log to fold, and leaves in f what comes before it. Without a
// readable row of the store that is nothing, and all of the log. done: f has all that counts.
func (f *fold) window(ctx context.Context, s *finder, store projection.Store, p Point) (from int64, until uint64, done bool, err error) {
	if store == nil {
		return s.start, 0, false, nil
	}
	partitions := f.st.Partitions
	offset, err := f.base(ctx, store, s)
	if ctx.Err() != nil {
		return 0, 0, false, context.Cause(ctx)
	}
	row := f.st.Instances[f.id]
	if err != nil || row == nil || f.after == 0 {
		*f = *newFold(partitions, f.id)
		return s.start, 0, false, nil
	}
	if p.by == pointEvent && p.n >= row.N || p.by == pointTime && row.Updated > 0 && p.time >= row.Updated {
		return offset, 0, false, nil // all that the store has of it counts
	}
	m, end := f.after, offset
	plan := f.plan()
	again := func() error {
		*f = *newFold(partitions, f.id)
		if plan == nil {
			return nil
		}
		return f.st.AddPlan(plan.Hash(), plan.Recorded())
	}
	w := walk{s: s, hint: found{n: m, offset: end}}
	events, ok, err := w.backwards(ctx, f.id, row.N, row.Run)
	if err != nil {
		return 0, 0, false, err
	}
	if err := again(); err != nil {
		return 0, 0, false, err
	}
	if ok && f.chain(events, p) {
		return 0, 0, true, f.usePlan(ctx, store)
	}
	if err := again(); err != nil {
		return 0, 0, false, err
	}
	// Events that do not say what was before them are of an earlier version. Only a first run
	// begins with nothing before it, and only from its start on is it here.
	run, last := row.Run, row.N
	if ok || run == 0 {
		return s.start, 0, false, nil
	}
	first, from, err := w.event(ctx, run)
	if err != nil {
		return 0, 0, false, err
	}
	if first == nil || first.Seq != 1 || first.ID != f.id || first.Type != eventlog.InstanceStarted || !p.covers(first.N, first.At, from) {
		return s.start, 0, false, nil
	}
	if p.by == pointEvent && p.n <= m {
		until = last // nothing of the instance comes between it and the point
	}
	return from, until, false, nil
}

// chain folds those of an instance's events that the point covers. It is false where they do not
// say what the instance was then: an earlier one of its id may have been forgotten.
func (f *fold) chain(events []*eventlog.Event, p Point) bool {
	gone := false
	for _, ev := range events {
		if !p.covers(ev.N, ev.At, 0) {
			break
		}
		if err := f.event(ev); err != nil {
			return false
		}
		gone = gone || ev.Type == eventlog.InstanceDeleted
	}
	i := f.st.Instances[f.id]
	return gone || i != nil && (i.Run > 0 || i.Quarantined != "")
}

// usePlan takes the plan of the instance from the store, where it is not the one of its row.
func (f *fold) usePlan(ctx context.Context, store projection.Store) error {
	i := f.st.Instances[f.id]
	if i == nil || i.Plan == "" || f.st.Plans[i.Plan] != nil {
		return nil
	}
	v, err := store.View(ctx, f.partition)
	if err != nil {
		return fmt.Errorf("read plan %s: %w", i.Plan, err)
	}
	defer v.Close()
	return f.readPlan(ctx, v, i.Plan)
}
