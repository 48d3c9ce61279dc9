package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// folder folds a partition as its owner does at a take-over: with the owner's own steps,
// from the one that takes the store up to the one that would read the due index.
type folder struct {
	r        *runner
	start    int64
	from     uint64 // event at which it began
	target   uint64 // last event to fold; 0 = to the end
	events   int64
	progress func(done, total int64)
	using    projection.View // of the partition in use, kept open while another is built; may be nil
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
	r.e.cfg.Now = time.Now
	r.o = newOwner(ownerConfig{app: log.App(), partition: partition, partitions: log.Partitions(), cacheSize: foldCache, folding: true})
	have := topic.Partitions[partition]
	r.o.phase, r.o.barrier = acquiring, have.End-1
	return &folder{r: r, start: have.Start}, nil
}

// epoch is that with which the store may be changed: the one that acquired it last, which
// is an event number of this log.
func (f *folder) epoch() (uint64, error) {
	w, err := watermark(f.r.life, f.r.e.store, f.r.partition)
	if errors.Is(err, projection.ErrStateLost) {
		return f.lastOwner()
	}
	if err != nil {
		return 0, fmt.Errorf("read partition %d of the store: %w", f.r.partition, err)
	}
	// An owner may have taken it since the log's end was looked at.
	topic, err := f.r.e.log.Topic(f.r.life, eventlog.EventsTopic(f.r.e.log.App()))
	if err != nil {
		return 0, fmt.Errorf("describe the events topic: %w", err)
	}
	f.r.o.barrier = max(f.r.o.barrier, topic.Partitions[f.r.partition].End-1)
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
	var last uint64
	sc := scan{log: f.r.e.log, partition: f.r.partition, topicID: f.r.e.eventsID}
	err = sc.run(f.r.life, func(ev *eventlog.Event, _ int64) bool {
		if last = ev.N; ev.Type == eventlog.PartitionOwned {
			epoch = ev.N
		}
		return true
	})
	if epoch == 0 { // it was trimmed away, and is lower than what is left
		epoch = last
	}
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
		case opAcquire:
			f.events = 0
		case opIndex:
			if f.progress != nil {
				f.progress(o.barrier+1-f.start, o.barrier+1-f.start)
			}
			return nil
		}
		res := do(next)
		switch next.(type) {
		case opAcquire:
			f.from = res.watermark.N
		case opTail:
			if res.err == nil {
				f.tail(&res)
			}
		}
		next = o.step(0, res)
		if o.st != nil {
			o.forwarded(o.st.Forwarded) // nobody sends it
		}
	}
}

// tail counts a piece of the log and ends it at the target.
func (f *folder) tail(res *result) {
	f.cut(res)
	for k := range res.tail {
		if res.tail[k].event.N > f.from { // else it was folded before, and only compared
			f.events++
		}
	}
	if f.progress != nil {
		end := f.r.o.barrier + 1
		f.progress(max(0, min(f.r.tailOff, end)-f.start), end-f.start)
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

// leave closes the partition in use.
func (f *folder) leave() {
	if f.using != nil {
		if err := f.using.Close(); err != nil {
			f.r.logger.Debug("close partition", "err", err)
		}
		f.using = nil
	}
}

func (f *folder) close() {
	f.leave()
	f.r.closeTail()
	f.r.closeStore()
}
