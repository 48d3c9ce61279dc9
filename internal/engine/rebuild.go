package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

// Rebuilt is what Rebuild did with a partition.
type Rebuilt struct {
	Partition int32
	Events    int64  // folded
	AsOf      uint64 // number of the last one
	From      uint64 // the event up to which a snapshot, or an earlier attempt, already was; 0 = neither
	ByOwner   bool   // an owner took the partition meanwhile and folded it itself
}

// RebuildOptions say what is rebuilt and how. The zero value rebuilds everything.
type RebuildOptions struct {
	Partitions []int32         // nil: all
	Parallel   int             // partitions at once; 0 = as many as there are processors
	Resume     bool            // where a store can't build aside: go on from where it stands instead of emptying it
	Snapshots  snapshot.Bucket // begin with the newest valid snapshot; nil: with the log
	BatchRows  int             // changed rows after which they are written; 0 = 4,000, or what a projection.Gatherer says
	// Progress is told how many offsets of how many of a partition are read. It is called by
	// several goroutines.
	Progress func(partition int32, done, total int64)
}

// Rebuild folds partitions of the store again, from the log. A store that is a
// projection.Stager builds each beside the one in use and replaces it in one step when it
// is complete: an engine that works on it in this process reads and writes the old one until
// then, and goes on with the new one. What was built when Rebuild is cut off stays, and the
// next one goes on with it. Any other store is emptied first, partition by partition, unless
// Resume is set; an owner that works on it meanwhile takes the partition again and folds it
// itself, and Rebuild waits for it. The first error ends it.
func Rebuild(ctx context.Context, log eventlog.Log, store projection.Store, o RebuildOptions) ([]Rebuilt, error) {
	partitions := o.Partitions
	if partitions == nil {
		for p := range log.Partitions() {
			partitions = append(partitions, p)
		}
	}
	parallel := o.Parallel
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make([]Rebuilt, len(partitions))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(parallel, len(partitions)) {
		wg.Go(func() {
			for k := range next {
				var err error
				if done[k], err = rebuildOne(ctx, log, store, partitions[k], o); err != nil {
					cancel(err)
				}
			}
		})
	}
	for k := range partitions {
		select {
		case next <- k:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return done, nil
}

func rebuildOne(ctx context.Context, log eventlog.Log, store projection.Store, partition int32, o RebuildOptions) (Rebuilt, error) {
	f, err := newFolder(ctx, log, store, partition)
	if err != nil {
		return Rebuilt{}, err
	}
	defer f.close()
	f.r.e.cfg.Snapshots.Bucket = o.Snapshots
	if o.BatchRows > 0 {
		f.r.o.gatherRows = o.BatchRows
	}
	stager, ok := store.(projection.Stager)
	if ok {
		// To open a partition takes as long as to fold thousands of events, and it is looked at
		// more than once. One that can't be opened says so where it is needed.
		if using, err := store.View(ctx, partition); err == nil {
			f.using = using
		}
	}
	if o.Progress != nil {
		f.progress = func(done, total int64) { o.Progress(partition, done, total) }
	}
	epoch, err := f.epoch()
	if err != nil {
		return Rebuilt{}, err
	}
	var done Rebuilt
	if ok {
		done, err = f.aside(stager, o.BatchRows)
	} else {
		done, err = f.inPlace(epoch, o.Resume)
	}
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	return done, nil
}

// aside builds the partition beside the one in use and replaces it.
func (f *folder) aside(stager projection.Stager, rows int) (done Rebuilt, err error) {
	ctx := f.r.life
	built, err := stager.Stage(ctx, f.r.partition)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	if g, ok := built.(projection.Gatherer); ok && rows == 0 {
		f.r.o.gatherRows = g.Gather()
	}
	w, err := built.Watermark(ctx)
	if err != nil {
		return done, err
	}
	last := f.r.lastBefore(f.r.o.barrier + 1)
	if last.err != nil {
		return done, last.err
	}
	if w.N > 0 && (w.LogID != f.r.e.eventsID || w.N > last.n) { // of another log
		if err := built.Reset(ctx); err != nil {
			return done, err
		}
	}
	use := f.r.e.store
	f.r.e.store = aside{Store: use, built: built}
	if err := f.fold(); err != nil {
		return done, err
	}
	done = f.rebuilt()
	for range catchUps {
		next, err := f.catchUp(use, done.AsOf)
		if err != nil {
			return done, err
		}
		if next == nil {
			break
		}
		done.Events, done.AsOf = done.Events+next.Events, next.AsOf
	}
	f.leave()
	if done.AsOf > 0 {
		if err := built.Replace(ctx); err != nil {
			return done, err
		}
	}
	return done, nil
}

const (
	// catchUps is how often a rebuild folds what came while it folded the rest.
	catchUps = 4
	// catchUpFrom is how many events its owner may have to fold once more.
	catchUpFrom = 500
)

// catchUp folds what an engine has added meanwhile to the partition in use; nil when that is
// little. Else that partition would go back by all of it when it is replaced.
func (f *folder) catchUp(use projection.Store, upto uint64) (*Rebuilt, error) {
	ctx := f.r.life
	at, err := watermark(ctx, use, f.r.partition)
	if err != nil || at.LogID != f.r.e.eventsID || at.N < upto+catchUpFrom {
		return nil, nil // a partition that is lost or of another log is not waited for
	}
	next, err := newFolder(ctx, f.r.e.log, f.r.e.store, f.r.partition)
	if err != nil {
		return nil, err
	}
	defer next.close()
	next.r.o.gatherRows = f.r.o.gatherRows
	if err := next.fold(); err != nil {
		return nil, err
	}
	done := next.rebuilt()
	return &done, nil
}

// inPlace empties the partition and folds it, or goes on with it.
func (f *folder) inPlace(epoch uint64, resume bool) (Rebuilt, error) {
	ctx := f.r.life
	for tries := 0; !resume; tries++ {
		err := f.r.e.store.Drop(ctx, f.r.partition, epoch)
		if err == nil {
			break
		}
		// An owner may have taken the partition since the epoch was read.
		if !errors.Is(err, projection.ErrFenced) || tries == 10 {
			return Rebuilt{}, fmt.Errorf("empty the store's partition: %w", err)
		}
		if epoch, err = f.epoch(); err != nil {
			return Rebuilt{}, err
		}
	}
	f.r.o.epoch = epoch
	err := f.fold()
	if errors.Is(err, projection.ErrFenced) || errors.Is(err, projection.ErrWatermark) || errors.Is(err, errStoreMoved) {
		return f.byOwner()
	}
	if err != nil {
		return Rebuilt{}, err
	}
	return f.rebuilt(), nil
}

// fold folds everything and writes it.
func (f *folder) fold() error {
	if err := f.run(func(next op) result { return f.r.do(f.r.life, next) }); err != nil {
		return err
	}
	return f.finish(f.r.life)
}

func (f *folder) rebuilt() Rebuilt {
	return Rebuilt{Partition: f.r.partition, Events: f.events, AsOf: f.r.o.st.N, From: f.from}
}

// byOwner waits until an owner that took the partition has folded as much.
func (f *folder) byOwner() (Rebuilt, error) {
	ctx := f.r.life
	last := f.r.lastBefore(f.r.o.barrier + 1)
	if last.err != nil {
		return Rebuilt{}, last.err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		w, err := watermark(ctx, f.r.e.store, f.r.partition)
		switch {
		case err != nil:
			return Rebuilt{}, err
		case w.N >= last.n:
			return Rebuilt{Partition: f.r.partition, AsOf: w.N, ByOwner: true}, nil
		}
		if f.progress != nil {
			f.progress(max(0, w.Offset-f.start), f.r.o.barrier+1-f.start)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Rebuilt{}, context.Cause(ctx)
		}
	}
}

// aside is a store whose partition is the one that is built beside the one in use.
type aside struct {
	projection.Store
	built projection.Staged
}

// Acquire gives what is built. What the folder closes is not closed for good.
func (a aside) Acquire(context.Context, int32, uint64) (projection.Partition, error) {
	return stays{a.built}, nil
}

// Drop begins again.
func (a aside) Drop(ctx context.Context, _ int32, _ uint64) error { return a.built.Reset(ctx) }

// stays is a partition that somebody else closes.
type stays struct{ projection.Partition }

func (stays) Close() error { return nil }
