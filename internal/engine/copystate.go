package engine

import (
	"context"
	"fmt"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// CopyStateOptions of CopyState. The zero value works.
type CopyStateOptions struct {
	Parallel int // partitions at once; 0 = as many as there are processors
	// Progress is told how many offsets of how many of a partition are read, first while the
	// store is made and then while it is compared with the log. It is called by several goroutines.
	Progress func(compares bool, partition int32, done, total int64)
}

// CopiedState is what CopyState did.
type CopiedState struct {
	Partitions  int   `json:"partitions"`
	Events      int64 `json:"events"` // folded
	Instances   int64 `json:"instances"`
	Compared    int   `json:"compared"` // partitions of the old store that were compared
	Differences int64 `json:"differences"`
	// First are the first differences, to be read.
	First []string `json:"first,omitempty"`
}

// CopyState makes the store to of the log, and compares it byte for byte with the log and with
// the store from; where that stands at another event, it is compared with the log as of that one. The two
// may be of different kinds; from is only read. What engines do meanwhile is missing in to, and an
// engine on to folds it. A difference is no error. Cut off, the next CopyState goes on with what
// was built.
func CopyState(ctx context.Context, log eventlog.Log, from, to projection.Store, o CopyStateOptions) (c CopiedState, err error) {
	progress := func(compares bool) func(int32, int64, int64) {
		if o.Progress == nil {
			return nil
		}
		return func(p int32, done, total int64) { o.Progress(compares, p, done, total) }
	}
	made, err := Rebuild(ctx, log, to, RebuildOptions{Parallel: o.Parallel, Resume: true, Progress: progress(false)})
	if err != nil {
		return c, err
	}
	v, err := Verify(ctx, log, to, progress(true))
	if err != nil {
		return c, err
	}
	c = CopiedState{Partitions: len(made), Instances: v.Instances, Differences: v.Differences, First: v.First}
	for _, r := range made {
		c.Events += r.Events
		a, n, err := StoreSum(ctx, from, r.Partition)
		if err != nil {
			return c, err
		}
		b, m, err := StoreSum(ctx, to, r.Partition)
		if err != nil {
			return c, err
		}
		c.Compared++
		if n != m {
			v, err := VerifyPartitions(ctx, log, from, []int32{r.Partition}, nil)
			if err != nil {
				return c, fmt.Errorf("compare the old store: %w", err)
			}
			c.Differences += v.Differences
			for _, d := range v.First {
				c.First = append(c.First, "in the old store, "+d)
			}
			continue
		}
		if a != b {
			c.Differences++
			c.First = append(c.First, fmt.Sprintf("partition %d differs between the two stores", r.Partition))
		}
	}
	return c, nil
}
