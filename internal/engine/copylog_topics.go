package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// copiedTopic is a user's topic: which records were copied, and where they stand now.
type copiedTopic struct {
	old, new eventlog.Topic
	whole    bool
	read     map[string][]int64 // by key name: what its relay reads next
	moved    [][]int64          // by partition: old offsets of the copied records
}

// messages copies what relays have not read, or whole topics.
func (c *copier) messages(ctx context.Context) error {
	add := func(name string) (*copiedTopic, error) {
		if x := c.topics[name]; x != nil {
			return x, nil
		}
		t, err := c.from.Topic(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", name, err)
		}
		x := &copiedTopic{old: t, read: map[string][]int64{}, moved: make([][]int64, len(t.Partitions))}
		c.topics[name] = x
		return x, nil
	}
	for _, name := range c.o.Topics {
		x, err := add(name)
		if err != nil {
			return err
		}
		x.whole = true
	}
	for _, d := range c.defs {
		for _, s := range d.Starts {
			x, err := add(s.Topic)
			if errors.Is(err, eventlog.ErrNoTopic) {
				continue // deleted since
			}
			if err != nil {
				return err
			}
			if x.read[s.Key] == nil {
				if x.read[s.Key], err = c.next(ctx, x.old, s.Key); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.topics)) {
		if err := c.topic(ctx, name, c.topics[name]); err != nil {
			return fmt.Errorf("copy topic %s: %w", name, err)
		}
	}
	return nil
}

// next is what a relay reads next in each partition of its topic.
func (c *copier) next(ctx context.Context, t eventlog.Topic, key string) (next []int64, err error) {
	err = resting(ctx, c.from, c.from.App()+".relay."+t.Name+"."+key, t.Name, func(m eventlog.Member, partitions int) error {
		for p := range partitions {
			at, err := m.Committed(ctx, int32(p))
			if err != nil {
				return fmt.Errorf("read the offset of the relay of topic %s, key %s: %w", t.Name, key, err)
			}
			if at < 0 {
				at = c.startOf(t, key, p)
			}
			next = append(next, max(at, t.Partitions[p].Start))
		}
		return nil
	})
	return next, err
}

// startOf is where a relay that has committed nothing starts.
func (c *copier) startOf(t eventlog.Topic, key string, partition int) int64 {
	at := int64(-1)
	for _, d := range c.defs {
		for _, s := range d.Starts {
			if s.Topic != t.Name || s.Key != key || s.TopicID != t.ID {
				continue
			}
			x := int64(0)
			if partition < len(s.Offsets) {
				x = s.Offsets[partition]
			}
			if at < 0 || x < at {
				at = x
			}
		}
	}
	return max(at, 0)
}

// topic copies a user's topic.
func (c *copier) topic(ctx context.Context, name string, x *copiedTopic) error {
	if err := c.to.EnsureTopic(ctx, name, int32(len(x.old.Partitions))); err != nil {
		return err
	}
	var err error
	if x.new, err = c.to.Topic(ctx, name); err != nil {
		return err
	}
	if x.new.ID == x.old.ID {
		return nil // both logs are on the same brokers
	}
	for p := range x.old.Partitions {
		from := x.old.Partitions[p].End
		for _, next := range x.read {
			from = min(from, next[p])
		}
		if x.whole {
			from = x.old.Partitions[p].Start
		}
		if from >= x.old.Partitions[p].End {
			continue
		}
		if len(x.new.Partitions) != len(x.old.Partitions) {
			return fmt.Errorf("%w: it has %d partitions in the target and %d in the source", eventlog.ErrPartitions, len(x.new.Partitions), len(x.old.Partitions))
		}
		if x.new.Partitions[p].End > 0 && !c.resumes {
			return fmt.Errorf("%w: it has records in the target, and %d in the source that no relay has read: let an engine read them first", ErrNotEmpty, x.old.Partitions[p].End-from)
		}
		to, err := newAppender(ctx, c.to, name, int32(p))
		if err != nil {
			return err
		}
		defer to.close()
		if err := all(ctx, c.from, x.old, int32(p), from, eventlog.ReadCommitted, func(records []eventlog.Record, _ int64) error {
			for k := range records {
				x.moved[p] = append(x.moved[p], records[k].Offset)
				records[k].Partition = int32(p)
				for i := range records[k].Headers { // of a Command task of this application
					if h := &records[k].Headers[i]; h.Key == "dagger-app" && string(h.Value) == c.from.App() {
						h.Value = []byte(c.to.App())
					}
				}
			}
			c.done.Messages[name] += int64(len(records))
			return to.add(ctx, records)
		}); err != nil {
			return err
		}
		if err := to.end(ctx); err != nil {
			return err
		}
	}
	return nil
}

// publish appends records in pieces.
func publish(ctx context.Context, log eventlog.Log, records []eventlog.Record) error {
	for piece := range slices.Chunk(records, 500) {
		if err := log.Publish(ctx, piece...); err != nil {
			return fmt.Errorf("append: %w", err)
		}
	}
	return nil
}

// to is where a record stands now, or where the next one that was copied does; -1 = before
// all that were copied.
func (x *copiedTopic) to(partition int32, offset int64) int64 {
	if x.new.ID == x.old.ID {
		return offset
	}
	if int(partition) >= len(x.moved) {
		return -1
	}
	k, found := slices.BinarySearch(x.moved[partition], offset)
	if !found && k == 0 {
		return -1
	}
	if !found {
		k--
	}
	return int64(k)
}
