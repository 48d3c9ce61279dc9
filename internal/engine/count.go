package engine

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"github.com/godagger/dagger/projection"
)

// Count counts the instances that a filter chooses, by "definition/status", as of event
// numbers by partition. Limit and Cursor of the filter do not matter. Workers and errors are
// as in List.
func (e *Engine) Count(ctx context.Context, f Filter) (map[string]int64, map[int32]uint64, error) {
	var all counted
	err := gather(ctx, e, asked[counted]{
		read: func(ctx context.Context, partitions []int32) (c counted, err error) {
			c.Counts, c.AsOf, err = readCount(ctx, e.store, partitions, f)
			return c, err
		},
		path: countPath, query: f.query(), add: all.add,
	})
	return all.Counts, all.AsOf, err
}

// ReadCount is Engine.Count without an engine, over the partitions that the store has.
func ReadCount(ctx context.Context, store projection.Store, f Filter) (counts map[string]int64, asOf map[int32]uint64, err error) {
	partitions, err := store.Partitions(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list partitions of the store: %w", err)
	}
	return readCount(ctx, store, partitions, f)
}

func readCount(ctx context.Context, store viewer, partitions []int32, f Filter) (counts map[string]int64, asOf map[int32]uint64, err error) {
	parts := make([]counted, len(partitions))
	if err := eachOf(partitions, func(k int, p int32) (err error) {
		parts[k], err = countPartition(ctx, store, p, &f)
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("count %w", err)
	}
	all := counted{AsOf: map[int32]uint64{}, Counts: map[string]int64{}}
	for _, c := range parts {
		all.add(c)
	}
	return all.Counts, all.AsOf, nil
}

// counted are the counts of some partitions.
type counted struct {
	LogID  string           `json:"log"`
	AsOf   map[int32]uint64 `json:"asOf"`
	Counts map[string]int64 `json:"counts"`
}

func (x counted) log() string { return x.LogID }

func (x *counted) add(y counted) {
	if x.AsOf == nil {
		x.AsOf, x.Counts = map[int32]uint64{}, map[string]int64{}
	}
	maps.Copy(x.AsOf, y.AsOf)
	for name, n := range y.Counts {
		x.Counts[name] += n
	}
}

func countPartition(ctx context.Context, store viewer, p int32, f *Filter) (c counted, err error) {
	v, err := store.View(ctx, p)
	if err != nil {
		return c, err
	}
	defer v.Close()
	counters, at, err := f.counters(ctx, v)
	if err == nil && at < f.AtLeast[p] {
		if err = waitFor(ctx, v, f.AtLeast[p]); err == nil {
			counters, at, err = f.counters(ctx, v)
		}
	}
	if err != nil {
		return c, err
	}
	c = counted{AsOf: map[int32]uint64{p: at}, Counts: map[string]int64{}}
	for _, x := range counters {
		n := x.n
		if f.IDPrefix != "" {
			if n, err = countLane(ctx, v, x.lane(position{}), f.IDPrefix); err != nil {
				return c, err
			}
		}
		if n > 0 {
			c.Counts[x.definition+"/"+x.status] = n
		}
	}
	return c, nil
}

// countLane counts the instances of a lane whose ids begin with a prefix.
func countLane(ctx context.Context, v projection.View, l *lane, idPrefix string) (n int64, err error) {
	for !l.ended {
		if _, err := l.extend(ctx, v, idPrefix, scanPage); err != nil {
			return 0, err
		}
		n += int64(len(l.found))
		l.found = l.found[:0]
	}
	return n, nil
}

// counter is how many instances of a definition have a status.
type counter struct {
	definition, status string
	n                  int64
}

// lane is where they are listed.
func (c counter) lane(after position) *lane {
	return newLane(projection.KindList, projection.AppendString(projection.AppendString(nil, c.status), c.definition), after)
}

// counters are those of the definitions and statuses that the filter chooses, as of event at.
func (f *Filter) counters(ctx context.Context, v projection.View) (l []counter, at uint64, err error) {
	rows, at, err := scanAll(ctx, v, projection.KindCount, nil, nil)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rows {
		k := keyReader{rest: r.Key}
		c := counter{definition: k.string(), status: k.string()}
		if err := k.lost("count"); err != nil {
			return nil, 0, err
		}
		if f.Definition != "" && f.Definition != c.definition || f.Status != "" && f.Status != c.status {
			continue
		}
		if c.n, err = strconv.ParseInt(string(r.Value), 10, 64); err != nil {
			return nil, 0, fmt.Errorf("%w: counter: %w", projection.ErrStateLost, err)
		}
		l = append(l, c)
	}
	return l, at, nil
}
