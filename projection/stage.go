package projection

import "context"

// Stager is a Store that can build a partition anew beside the one that is in use, and put it
// in its place in one step. A store need not be one: a partition of it is then emptied first.
type Stager interface {
	// Stage opens what an earlier Stage of the partition has left, or nothing. One at a time:
	// ErrInUse. Where several processes may open the store, the last one to stage a partition
	// goes on, and what an earlier one still writes is ErrFenced. Damage is no error: what is
	// damaged begins empty.
	Stage(ctx context.Context, partition int32) (Staged, error)
}

// Staged is a partition that is being built beside the one in use. Its epoch is the one that
// its Watermark tells; nobody is fenced by it. Close keeps what was built for the next Stage.
type Staged interface {
	Partition
	// Reset throws away what was built.
	Reset(ctx context.Context) error
	// Replace puts what was built in the place of the partition, damaged or not, in one step
	// that also survives a crash, and closes the Staged. The partition keeps its epoch. Who has
	// it open reads the new rows from then on; its owner's next Apply fits only if both stood
	// at the same event. After an error the partition is the old one or the new one, whole.
	Replace(ctx context.Context) error
}

// Gatherer is a Staged that would rather have few large batches.
type Gatherer interface {
	// Gather is how many changed rows (an instance with its entries is one) should be gathered
	// before they are applied, unless they are large.
	Gather() int
}

// Checkpointer is a Store that can copy a partition, while it is in use, into a directory of
// this machine. A store need not be one.
type Checkpointer interface {
	// Checkpoint writes the partition, as of one watermark, into dir, which must not exist
	// yet or be empty. Opened with the store's own scheme, the directories of all partitions
	// make a store.
	Checkpoint(ctx context.Context, partition int32, dir string) (Watermark, error)
}
