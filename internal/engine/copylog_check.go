package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// own are the application's own topics of a log.
func own(log eventlog.Log) []string {
	app := log.App()
	return []string{eventlog.EventsTopic(app), eventlog.RequestsTopic(app), eventlog.DefinitionsTopic(app), eventlog.DeadLetterTopic(app)}
}

// check refuses what can't be copied.
func (c *copier) check(ctx context.Context) error {
	if a, b := c.from.Partitions(), c.to.Partitions(); a != b {
		return fmt.Errorf("%w: %d in %s and %d in %s; a copy keeps the count (daggerctl export and import change it)", eventlog.ErrPartitions, a, c.from.URL(), b, c.to.URL())
	}
	c.before = map[string]eventlog.Topic{}
	for _, name := range own(c.from) {
		t, err := c.from.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		c.before[name] = t
	}
	if err := resting(ctx, c.from, c.from.App()+".owners", eventlog.RequestsTopic(c.from.App()), nil); err != nil {
		return err
	}
	for p, x := range c.before[eventlog.EventsTopic(c.from.App())].Partitions {
		if x.Start > 0 {
			return fmt.Errorf("copy partition %d: its events begin at offset %d: the older ones were trimmed, and a copy needs all of them", p, x.Start)
		}
	}
	return nil
}

// empty refuses a log that has records of its application.
func empty(ctx context.Context, log eventlog.Log) error {
	for _, name := range own(log) {
		t, err := log.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		for _, p := range t.Partitions {
			if p.End > 0 {
				return fmt.Errorf("%w: topic %s of %s has records; give a new application or an empty directory", ErrNotEmpty, name, log.URL())
			}
		}
	}
	return nil
}

// resting joins a consumer group and refuses when others are in it; f (or nil) may ask it.
func resting(ctx context.Context, log eventlog.Log, group, topic string, f func(eventlog.Member, int) error) (err error) {
	t, err := log.Topic(ctx, topic)
	if err != nil {
		return fmt.Errorf("describe topic %s: %w", topic, err)
	}
	m, err := log.Join(ctx, group, topic)
	if err != nil {
		return fmt.Errorf("join group %s: %w", group, err)
	}
	defer func() {
		if e := m.Close(); e != nil && err == nil {
			err = fmt.Errorf("leave group %s: %w", group, e)
		}
	}()
	// Who died lately still counts as a member for some seconds.
	wait, cancel := context.WithTimeoutCause(ctx, 10*time.Second, fmt.Errorf("%w: the group %s has other members; stop the engines that run on %s", ErrNotQuiet, group, log.URL()))
	defer cancel()
	for {
		assigned, err := m.Assigned(wait)
		if err != nil {
			return fmt.Errorf("assignment of group %s: %w", group, err)
		}
		if len(assigned) == len(t.Partitions) {
			break
		}
	}
	if f != nil {
		return f(m, len(t.Partitions))
	}
	return nil
}

// all gives the records of a partition, as they were when the copy began, to f.
func all(ctx context.Context, log eventlog.Log, t eventlog.Topic, partition int32, from int64, isolation eventlog.Isolation, f func([]eventlog.Record, int64) error) error {
	end := t.Partitions[partition].End
	if from >= end {
		return nil
	}
	r, err := log.Read(ctx, t.Name, partition, from, t.ID, isolation)
	if err != nil {
		return fmt.Errorf("read topic %s: %w", t.Name, err)
	}
	defer r.Close()
	for at := from; at < end; {
		records, next, err := r.Next(ctx)
		if err != nil {
			return fmt.Errorf("read topic %s: %w", t.Name, err)
		}
		for len(records) > 0 && records[len(records)-1].Offset >= end {
			records = records[:len(records)-1]
		}
		if err := f(records, min(next, end)); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// unmoved refuses a source that was written to meanwhile.
func (c *copier) unmoved(ctx context.Context) error {
	for name, was := range c.before {
		is, err := c.from.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		if is.ID != was.ID || !slices.Equal(is.Partitions, was.Partitions) {
			return fmt.Errorf("%w: topic %s of %s has got records meanwhile: stop who writes, throw away what was made, and begin again", ErrNotQuiet, name, strings.TrimSpace(c.from.URL()))
		}
	}
	return nil
}
