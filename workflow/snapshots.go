package workflow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection/snapshot"
)

// Snapshots says when copies of the store's partitions are put into a bucket. An engine with an
// empty store then starts from them, instead of folding the whole log. The zero value takes none.
// All engines of an application name the same bucket.
type Snapshots struct {
	// URL of the bucket: file:DIR, or what is linked; see package projection/snapshot. Bucket
	// is used instead of opening URL, and is not closed with the engine.
	URL    string
	Bucket snapshot.Bucket

	Every time.Duration // between two snapshots of a partition that changes; 0 = an hour
	Keep  int           // snapshots of each partition; 0 = 3
	// Trim lets the log drop events once they are in the oldest kept snapshot, in this engine's
	// store, and no longer needed by a cursor in the bucket (see snapshot.CursorIn). Instances can
	// then be seen as of an earlier time only as far back as the log goes. Without Trim nothing is
	// ever dropped.
	Trim bool
}

// open opens the bucket; closing is nil where there is nothing to close.
func (s Snapshots) open(ctx context.Context) (policy engine.Snapshots, closing func() error, err error) {
	policy = engine.Snapshots{Bucket: s.Bucket, Every: s.Every, Keep: s.Keep, Trim: s.Trim}
	if s.URL == "" {
		return policy, nil, nil
	}
	if policy.Bucket, err = snapshot.OpenBucket(ctx, s.URL); err != nil {
		return policy, nil, err
	}
	return policy, policy.Bucket.Close, nil
}

func (s Snapshots) mistakes() []error {
	var l []error
	if s.URL != "" && s.Bucket != nil {
		l = append(l, errors.New("open engine: Snapshots.URL and Snapshots.Bucket exclude each other"))
	}
	if s.Every < 0 || s.Keep < 0 {
		l = append(l, errors.New("open engine: Snapshots.Every or Snapshots.Keep is negative; 0 is the default"))
	}
	if s.URL == "" && s.Bucket == nil && (s.Trim || s.Every > 0 || s.Keep > 0) {
		l = append(l, errors.New("open engine: Snapshots has a policy and no bucket"))
	}
	return l
}

// RebuildOptions say what Rebuild rebuilds, and how. The zero value rebuilds everything.
type RebuildOptions struct {
	Partitions []int32 // nil: all
	Parallel   int     // partitions at once; 0 = as many as there are processors
	// Resume goes on from where the store stands, where it can't build a partition beside the
	// one in use. Otherwise such a partition is emptied first.
	Resume bool
	// Snapshots is a bucket from whose newest valid snapshots the rebuild begins; nil: it begins
	// with the log. See RebuildFromSnapshots.
	Snapshots snapshot.Bucket
	BatchRows int // changed rows that are written at once; 0 = what suits the store
	// Progress is called with the offsets of a partition that are read (done) and that there
	// are (total). It may be nil, and is called from several goroutines.
	Progress func(partition int32, done, total int64)
}

// Rebuilt is what Rebuild did with a partition.
type Rebuilt struct {
	Partition int32
	Events    int64  // folded
	AsOf      uint64 // number of the last event that counts
	From      uint64 // number of the last event that a snapshot, or an earlier attempt, had; 0 = neither
	ByOwner   bool   // the engine that owns the partition has folded it itself
}

// Rebuild makes partitions of the engine's store anew from the log, while the engine works. A store
// that can build a partition beside the one in use (projection.Stager) replaces that in one step at
// the end; after an error or the end of ctx, the next call goes on with what was built. In any
// other store the partition is emptied, its owner folds it again, and Rebuild waits for that. The
// first error ends it.
func (e *Engine) Rebuild(ctx context.Context, o RebuildOptions) ([]Rebuilt, error) {
	ctx, end, err := e.errands.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("rebuild: %w", err)
	}
	defer end()
	done, err := engine.Rebuild(ctx, e.log, e.store, engine.RebuildOptions(o))
	if err != nil {
		return nil, fmt.Errorf("rebuild: %w", ended(ctx, err))
	}
	rebuilt := make([]Rebuilt, len(done))
	for k, r := range done {
		rebuilt[k] = Rebuilt(r)
	}
	return rebuilt, nil
}

// RebuildFromSnapshots is Rebuild that begins with the newest valid snapshots in o.Snapshots, or in
// the bucket of Config.Snapshots. ErrNoSnapshots: there is no bucket.
func (e *Engine) RebuildFromSnapshots(ctx context.Context, o RebuildOptions) ([]Rebuilt, error) {
	if o.Snapshots == nil {
		o.Snapshots = e.snapshots.Bucket
	}
	if o.Snapshots == nil {
		return nil, ErrNoSnapshots
	}
	return e.Rebuild(ctx, o)
}

// Snapshot describes a copy of a partition in the bucket.
type Snapshot struct {
	Partition int32
	AsOf      uint64 // number of the last event that counts
	Taken     time.Time
	Rows      int64
	Bytes     int64 // of the object
	SHA256    string
	Object    string // its name in the bucket
}

// ErrNoSnapshots: the engine has no bucket; see Config.Snapshots.
var ErrNoSnapshots = errors.New("workflow: no bucket for snapshots; Config.Snapshots names one")

// TakeSnapshots copies the partitions that this engine owns, or all if it does not run, into the
// bucket now, removes the oldest copies, and trims the log as Config.Snapshots says. It returns the
// newest snapshot of each of these partitions; that may be an earlier one, where nothing has
// changed since. RebuildFromSnapshots restores them. progress is called with the number of
// partitions that are done; it may be nil. ErrNoSnapshots: there is no bucket.
func (e *Engine) TakeSnapshots(ctx context.Context, progress func(done, total int)) ([]Snapshot, error) {
	if e.snapshots.Bucket == nil {
		return nil, ErrNoSnapshots
	}
	ctx, done, err := e.errands.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("take snapshots: %w", err)
	}
	defer done()
	partitions := e.owned()
	if partitions == nil {
		for p := range e.log.Partitions() {
			partitions = append(partitions, p)
		}
	}
	var l []Snapshot
	for k, p := range partitions {
		m, err := engine.TakeSnapshot(ctx, e.log, e.store, p, e.snapshots)
		if err != nil {
			return l, fmt.Errorf("take a snapshot of partition %d: %w", p, ended(ctx, err))
		}
		if m.N > 0 {
			l = append(l, snapshotOf(m))
		}
		if progress != nil {
			progress(k+1, len(partitions))
		}
	}
	return l, nil
}

// Snapshots lists the snapshots of this log in the bucket, by partition, the newest first.
// ErrNoSnapshots: there is no bucket.
func (e *Engine) Snapshots(ctx context.Context) ([]Snapshot, error) {
	if e.snapshots.Bucket == nil {
		return nil, ErrNoSnapshots
	}
	found, _, err := engine.ListSnapshots(ctx, e.log, e.snapshots.Bucket)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", e.told("", err))
	}
	var l []Snapshot
	for _, m := range found {
		l = append(l, snapshotOf(m))
	}
	return l, nil
}

func snapshotOf(m snapshot.Manifest) Snapshot {
	return Snapshot{m.Partition, m.N, m.Taken, m.Rows, m.Bytes, m.SHA256, m.Object}
}

// ErrNoCheckpoints: the store can't copy itself into a directory. Use snapshots instead.
var ErrNoCheckpoints = engine.ErrNoCheckpoints

// Checkpoint copies the partitions of the engine's store into a directory of this machine while the
// engine works, each as of one event, whose number it returns. The directory must not exist, or
// be empty; afterwards it is a store of its own, pebble:DIR. After an error it is as it was.
// ErrNoCheckpoints: only stores in a directory can do this.
func (e *Engine) Checkpoint(ctx context.Context, dir string) (asOf map[int32]uint64, err error) {
	if asOf, err = engine.Checkpoint(ctx, e.store, dir); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", e.told("", err))
	}
	return asOf, nil
}
