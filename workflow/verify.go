package workflow

import (
	"context"
	"fmt"

	"github.com/godagger/dagger/internal/engine"
)

// VerifyOptions say what Verify compares. The zero value compares what this engine owns.
type VerifyOptions struct {
	// Partitions to compare; nil: those that this engine owns, or all if it does not run.
	Partitions []int32
	// Progress is called with the offsets of a partition that are read (done) and that there are
	// (total). It may be nil.
	Progress func(partition int32, done, total int64)
}

// Verified counts what Verify found.
type Verified struct {
	Partitions  int
	Events      int64            // folded
	Instances   int64            // by the log
	Differences int64            // rows of the store that are not what the log says
	Unindexed   int64            // blocks of events that the store has no index of: they are read to find an instance that has no row
	AsOf        map[int32]uint64 // event number up to which each partition was compared
	First       []Difference     // the first ten
}

// Difference is a row of the store that is not as the log says.
type Difference struct {
	Partition int32
	Text      string   // which row, and how
	Changes   []Change // from what the log says to what the store has
}

// Verify folds the log from its beginning and compares the store with the result, byte for byte,
// while engines work: each partition as of the event at which it was read. It changes nothing,
// and keeps the rows of one partition in memory. Of instances in quarantine only the ids are
// compared. Differences are counted; they are no error. Rebuild mends them.
func (e *Engine) Verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	ctx, done, err := e.errands.begin(ctx)
	if err != nil {
		return Verified{}, fmt.Errorf("verify: %w", err)
	}
	defer done()
	if o.Partitions == nil {
		o.Partitions = e.owned()
	}
	v, err := engine.VerifyPartitions(ctx, e.log, e.store, o.Partitions, o.Progress)
	if err != nil {
		return Verified{}, ended(ctx, err)
	}
	out := Verified{Partitions: v.Partitions, Events: v.Events, Instances: v.Instances, Differences: v.Differences, Unindexed: v.Unindexed, AsOf: v.AsOf}
	for _, d := range v.Found {
		x := Difference{Partition: d.Partition, Text: d.Text}
		for _, c := range d.Changes {
			x.Changes = append(x.Changes, Change(c))
		}
		out.First = append(out.First, x)
	}
	return out, nil
}

// owned are the partitions of this engine; nil where it does not run.
func (e *Engine) owned() []int32 {
	if !e.run.Running() {
		return nil
	}
	l := []int32{}
	for _, p := range e.run.Partitions() {
		l = append(l, p.Partition)
	}
	return l
}
