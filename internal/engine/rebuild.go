package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// Rebuilt is what Rebuild did.
type Rebuilt struct {
	Events int64  // folded
	AsOf   uint64 // number of the last one
}

// Rebuild empties one partition of the store and folds it again from the beginning of the
// log. progress (or nil) is told how many offsets of how many are read. An owner that works
// on the partition meanwhile makes it fail, and takes the partition again itself. Cancelled,
// it leaves a store that stands at an earlier event; an owner goes on from there.
func Rebuild(ctx context.Context, log eventlog.Log, store projection.Store, partition int32, progress func(done, total int64)) (Rebuilt, error) {
	f, err := newFolder(ctx, log, store, partition)
	if err != nil {
		return Rebuilt{}, err
	}
	defer f.close()
	f.progress = progress
	epoch, err := f.epoch()
	if err != nil {
		return Rebuilt{}, err
	}
	if err := store.Drop(ctx, partition, epoch); err != nil {
		return Rebuilt{}, fmt.Errorf("empty partition %d of the store: %w", partition, err)
	}
	f.r.o.epoch = epoch
	if err := f.run(func(next op) result { return f.r.do(ctx, next) }); err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	if err := f.finish(ctx); err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	return Rebuilt{Events: f.events, AsOf: f.r.o.st.N}, nil
}

// folder folds a partition as its owner does at a take-over: with the owner's own steps,
// from the one that takes the store up to the one that would read the due index.
type folder struct {
	r        *runner
	start    int64
	target   uint64 // last event to fold; 0 = to the end
	events   int64
	progress func(done, total int64)
}

// foldCache is how many bytes of instances a folder keeps in memory.
const foldCache = 64 << 20

func newFolder(ctx context.Context, log eventlog.Log, store projection.Store, partition int32) (*folder, error) {
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return nil, fmt.Errorf("describe the events topic: %w", err)
	}
	if partition < 0 || int(partition) >= len(topic.Partitions) {
		return nil, fmt.Errorf("partition %d: the log has %d", partition, len(topic.Partitions))
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil)) // what goes wrong is returned
	r := &runner{e: &Engine{log: log, store: store, logger: quiet, eventsID: topic.ID}, partition: partition, logger: quiet, life: ctx}
	r.o = newOwner(ownerConfig{app: log.App(), partition: partition, partitions: log.Partitions(), cacheSize: foldCache})
	have := topic.Partitions[partition]
	r.o.phase, r.o.barrier = acquiring, have.End-1
	return &folder{r: r, start: have.Start}, nil
}

// epoch is that with which the store may be changed: the one that acquired it last, which
// is an event number of this log.
func (f *folder) epoch() (uint64, error) {
	v, err := f.r.e.store.View(f.r.life, f.r.partition)
	if errors.Is(err, projection.ErrStateLost) {
		return f.lastOwner()
	}
	if err != nil {
		return 0, fmt.Errorf("read partition %d of the store: %w", f.r.partition, err)
	}
	defer v.Close()
	w, err := v.Watermark(f.r.life)
	if errors.Is(err, projection.ErrStateLost) {
		return f.lastOwner()
	}
	if err != nil {
		return 0, fmt.Errorf("read partition %d of the store: %w", f.r.partition, err)
	}
	last := f.r.lastBefore(f.r.o.barrier + 1)
	switch {
	case last.err != nil:
		return 0, last.err
	case w.Epoch > last.n:
		return 0, fmt.Errorf("%w: partition %d was acquired by event %d, but the log ends at event %d; use an empty store", ErrForeignStore, f.r.partition, w.Epoch, last.n)
	}
	return w.Epoch, nil
}

// lastOwner finds the epoch of a store that can't say it: no later one acquired it.
func (f *folder) lastOwner() (epoch uint64, err error) {
	sc := scan{log: f.r.e.log, partition: f.r.partition, topicID: f.r.e.eventsID}
	err = sc.run(f.r.life, func(ev *eventlog.Event, _ int64) bool {
		if ev.Type == eventlog.PartitionOwned {
			epoch = ev.N
		}
		return true
	})
	return epoch, err
}

// run steps the owner until everything wanted is folded; do answers what it asks for.
func (f *folder) run(do func(op) result) error {
	o := f.r.o
	next := op(opAcquire{epoch: o.epoch})
	for {
		switch x := next.(type) {
		case opFail:
			return x.err
		case opIndex:
			if f.progress != nil {
				f.progress(o.barrier+1-f.start, o.barrier+1-f.start)
			}
			return nil
		}
		res := do(next)
		if _, is := next.(opTail); is && res.err == nil {
			f.cut(&res)
			f.events += int64(len(res.tail))
			if f.progress != nil {
				f.progress(min(f.r.tailOff, o.barrier+1)-f.start, o.barrier+1-f.start)
			}
		}
		next = o.step(0, res)
		if o.st != nil {
			o.forwarded(o.st.Forwarded) // nobody sends it
		}
	}
}

// cut ends the tail at the target.
func (f *folder) cut(res *result) {
	if f.target == 0 {
		return
	}
	for k := range res.tail {
		if res.tail[k].event.N > f.target {
			res.tail, res.done = res.tail[:k], true
			break
		}
	}
	if n := len(res.tail); n > 0 && res.tail[n-1].event.N == f.target {
		res.done = true
	}
}

// finish writes what the last batch did not have.
func (f *folder) finish(ctx context.Context) error {
	o := f.r.o
	for id, reason := range o.st.Frozen {
		return fmt.Errorf("instance %q can't be folded; an owner will put it into quarantine: %s", id, reason)
	}
	if o.st.N == o.mark.N {
		return nil
	}
	if err := f.r.store.Apply(ctx, *o.batch()); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	o.applied(nil)
	if err := f.r.store.Flush(ctx); err != nil {
		return fmt.Errorf("flush store: %w", err)
	}
	return nil
}

func (f *folder) close() {
	f.r.closeTail()
	f.r.closeStore()
}
