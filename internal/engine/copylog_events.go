package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

const (
	copyBatch = 2000    // events of a transaction
	copyBytes = 1 << 20 // of a transaction
)

// events copies the events of all partitions as they are.
func (c *copier) events(ctx context.Context) error {
	t := c.before[eventlog.EventsTopic(c.from.App())]
	total, done := int64(0), int64(0)
	for _, p := range t.Partitions {
		total += p.End - p.Start
	}
	for p := range t.Partitions {
		x := copiedPartition{relays: map[eventlog.Source]eventlog.Mark{}}
		if err := c.partition(ctx, t, int32(p), &x, func(upto int64) {
			if c.o.Progress != nil {
				c.o.Progress(done+upto, total)
			}
		}); err != nil {
			return fmt.Errorf("copy partition %d: %w", p, err)
		}
		done += t.Partitions[p].End
		c.parts = append(c.parts, x)
	}
	return nil
}

func (c *copier) partition(ctx context.Context, t eventlog.Topic, p int32, x *copiedPartition, progress func(int64)) (err error) {
	if t.Partitions[p].End == 0 {
		return nil
	}
	w, err := newEventWriter(ctx, c.to, p)
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, w.close()) }()
	if err := all(ctx, c.from, t, p, 0, eventlog.ReadCommitted, func(records []eventlog.Record, next int64) error {
		for k := range records {
			ev, err := decodeEvent(&records[k], p)
			if err != nil {
				return err
			}
			if ev == nil {
				continue
			}
			if ev.N != x.n+1 {
				return fmt.Errorf("event %d follows event %d at offset %d", ev.N, x.n, records[k].Offset)
			}
			x.take(ev)
			if err := w.add(ctx, records[k].Value, ev.Type); err != nil {
				return fmt.Errorf("append event %d: %w", ev.N, err)
			}
			c.done.Events++
		}
		progress(next)
		return nil
	}); err != nil {
		return err
	}
	// Behind what was copied stands what positions has appended.
	if x.ended, err = w.before.next(ctx); err != nil {
		return err
	}
	if err := w.before.ended(ctx); err != nil {
		return err
	}
	return w.flush(ctx)
}

// take folds what an event says of the partition's positions.
func (x *copiedPartition) take(ev *eventlog.Event) {
	x.n, x.at = ev.N, max(x.at, ev.At)
	p := ev.Pos
	if p == nil {
		return
	}
	if p.TopicID != x.topicID {
		x.topicID, x.offset = p.TopicID, 0
	}
	x.offset, x.forwarded = max(x.offset, p.Offset), max(x.forwarded, p.Forwarded)
	for _, s := range p.Sources {
		if s.TopicID != "" {
			x.relays[s.Source] = s.Mark
		}
	}
}

// positions ends each partition with the event that says where its requests begin now, and
// up to where messages count already.
func (c *copier) positions(ctx context.Context) error {
	requests, err := c.to.Topic(ctx, eventlog.RequestsTopic(c.to.App()))
	if err != nil {
		return fmt.Errorf("describe the requests topic: %w", err)
	}
	for p := range c.parts {
		x := &c.parts[p]
		if x.n == 0 {
			continue
		}
		pos := &eventlog.Position{TopicID: requests.ID, Offset: requests.Partitions[p].Start, Forwarded: x.forwarded}
		for _, source := range slices.SortedFunc(maps.Keys(x.relays), compareSources) {
			if s, m, ok := c.source(source, x.relays[source]); ok {
				pos.Sources = append(pos.Sources, eventlog.SourceMark{Source: s, Mark: m})
			}
		}
		ev := &eventlog.Event{V: 1, N: x.n + 1, Type: eventlog.Checkpoint, At: x.at, Pos: pos}
		value := eventlog.AppendEvent(nil, ev)
		if x.ended != nil {
			if !bytes.Equal(x.ended.Value, value) {
				return fmt.Errorf("%w: partition %d of %s ends with another event; throw the log away and begin again with an empty one", ErrNotEmpty, p, c.to.URL())
			}
			continue
		}
		if err := c.last(ctx, int32(p), value, ev.Type); err != nil {
			return fmt.Errorf("end partition %d: %w", p, err)
		}
	}
	return nil
}

func (c *copier) last(ctx context.Context, p int32, value []byte, t eventlog.Type) (err error) {
	owner, err := c.to.Own(ctx, p)
	if err != nil {
		return fmt.Errorf("own the partition: %w", err)
	}
	w := &eventWriter{owner: owner}
	defer func() { err = firstError(err, w.close()) }()
	if err := w.add(ctx, value, t); err != nil {
		return err
	}
	c.done.Events++
	return w.flush(ctx)
}

func compareSources(a, b eventlog.Source) int {
	x, y := sourceKey(a), sourceKey(b)
	return slices.Compare(x, y)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// eventWriter appends events to a partition of a log in transactions of some size, behind
// those that an earlier attempt has appended.
type eventWriter struct {
	owner    eventlog.Owner
	before   *prefix // nil: nothing is compared
	events   [][]byte
	types    []eventlog.Type
	messages []eventlog.Record
	bytes    int
}

func newEventWriter(ctx context.Context, log eventlog.Log, p int32) (*eventWriter, error) {
	owner, err := log.Own(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("own partition %d: %w", p, err)
	}
	before, err := prefixOf(ctx, log, eventlog.EventsTopic(log.App()), p, eventlog.ReadCommitted)
	if err != nil {
		return nil, errors.Join(err, owner.Close())
	}
	return &eventWriter{owner: owner, before: before}, nil
}

// add appends an event; the slice is kept until the next flush.
func (w *eventWriter) add(ctx context.Context, value []byte, t eventlog.Type) error {
	if w.before != nil {
		has, err := w.before.has(ctx, &eventlog.Record{Value: value})
		if has {
			w.messages = nil // they were in its transaction
		}
		if err != nil || has {
			return err
		}
	}
	w.events, w.types, w.bytes = append(w.events, value), append(w.types, t), w.bytes+len(value)
	if len(w.events) >= copyBatch || w.bytes >= copyBytes {
		return w.flush(ctx)
	}
	return nil
}

func (w *eventWriter) flush(ctx context.Context) error {
	if len(w.events) == 0 {
		return nil
	}
	if _, err := w.owner.Append(ctx, w.events, w.types, w.messages); err != nil {
		return err
	}
	if err := w.owner.Commit(ctx); err != nil {
		return err
	}
	w.events, w.types, w.messages, w.bytes = nil, nil, nil, 0
	return nil
}

func (w *eventWriter) close() error {
	if w.before != nil {
		w.before.close()
	}
	return w.owner.Close()
}
