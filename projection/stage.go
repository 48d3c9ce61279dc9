package projection

import "context"

// Stager is implemented by a Store that can build a partition anew beside the one in use, and then
// replace that in one step. In any other store a partition that is rebuilt is emptied first.
type Stager interface {
	// Stage opens what an earlier Stage of the partition has left, or begins it. ErrInUse: somebody
	// in this process stages it already. Where several processes may open the store, the last one
	// to call Stage wins, and writes of an earlier one are ErrFenced. What is damaged begins empty;
	// that is no error.
	Stage(ctx context.Context, partition int32) (Staged, error)
}

// Staged is a partition that is being built beside the one in use. Its epoch is that of its
// Watermark; it fences nobody. Close keeps what was built for the next Stage.
type Staged interface {
	Partition
	// Reset throws away what was built.
	Reset(ctx context.Context) error
	// Replace puts what was built in the place of the partition, which may be damaged, and closes
	// the Staged. It is one step, also if the process crashes: after an error the partition is
	// either the old one or the new one. The partition keeps its epoch. Those who have it open read
	// the new rows from then on. Its owner's next Apply succeeds only if both were at the same event.
	Replace(ctx context.Context) error
}

// Gatherer is implemented by a Staged that works best with few, large batches.
type Gatherer interface {
	// Gather returns how many changed rows should be applied at once, unless they are large. An
	// instance with its index entries counts as one.
	Gather() int
}

// Checkpointer is implemented by a Store that can copy a partition, while it is in use, into a
// directory of this machine.
type Checkpointer interface {
	// Checkpoint writes the partition, as of one watermark, into dir, which must not exist
	// yet or be empty. Opened with the store's own scheme, the directories of all partitions
	// make a store.
	Checkpoint(ctx context.Context, partition int32, dir string) (Watermark, error)
}
