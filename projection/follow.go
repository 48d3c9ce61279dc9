package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// ErrHistory: the events that a store has folded are not those of the log, or the log no longer has
// the events that come next.
var ErrHistory = errors.New("projection: the store's events are not in the log")

// Fold is a projection that you write: it changes the rows of tx as the event demands. It is called
// with the events of a partition in their order, each once. That is true for tx, also after a crash;
// whatever else it does may be repeated. It must depend on nothing but the event and the rows of tx.
// An error ends Follow, and nothing of the batch is applied.
type Fold func(ctx context.Context, tx *Tx, e *eventlog.Event) error

// FollowOptions say how Follow works. The zero value is a good choice.
type FollowOptions struct {
	Partitions []int32      // each once; nil: all
	Batch      int          // events that are applied at once, at most; 0 = 1,000
	UntilEnd   bool         // return when everything is folded that is in the log at the call
	Logger     *slog.Logger // for errors after which Follow tries again; nil: slog.Default()
	// Cursor is called now and then with the number of the first event of a partition that is still
	// needed, so that snapshots do not let the log drop it; see snapshot.CursorIn. May be nil.
	Cursor func(ctx context.Context, partition int32, needs uint64, logID string) error
}

const (
	followBatch    = 1000
	cursorInterval = 10 * time.Second
	backoffMin     = 50 * time.Millisecond
	backoffMax     = 5 * time.Second
)

// Follow folds the events of the log into a store, and goes on as new ones come, until ctx ends; then
// it returns nil. The store must be one of its own, opened for an application name of its own. Rows
// and watermark change together, so after a crash Follow goes on where the store is. Only one
// process can follow into a store: a second one takes over, and the first ends with ErrFenced.
//
// Errors of the log and the store are tried again, except for those that stay: errors of fold,
// ErrFenced, ErrForeign, ErrHistory, ErrTooLarge, and an event that can't be read. If the store has
// lost rows, they are folded again from the beginning.
func Follow(ctx context.Context, log eventlog.Log, store Store, fold Fold, o FollowOptions) error {
	if o.Batch <= 0 {
		o.Batch = followBatch
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	partitions := o.Partitions
	if partitions == nil {
		for p := range log.Partitions() {
			partitions = append(partitions, p)
		}
	}
	for k, p := range partitions {
		if p < 0 || p >= log.Partitions() || slices.Contains(partitions[:k], p) {
			return fmt.Errorf("follow partition %d: the log has 0 to %d, each to be named once", p, log.Partitions()-1)
		}
	}
	following, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wg sync.WaitGroup
	for _, p := range partitions {
		wg.Go(func() {
			f := &follower{log: log, store: store, fold: fold, o: o, partition: p}
			if err := f.run(following); err != nil {
				end(fmt.Errorf("follow partition %d: %w", p, err))
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(following)
}

// follower folds one partition.
type follower struct {
	log       eventlog.Log
	store     Store
	fold      Fold
	o         FollowOptions
	partition int32

	end    int64 // of the partition when following began
	part   Partition
	at     Watermark
	cursor time.Time // when Cursor was told last
}

// permanent are errors that trying again does not mend.
var permanent = []error{
	ErrFenced, ErrForeign, ErrHistory, ErrTooLarge, ErrClosed, errFold,
	eventlog.ErrClosed, eventlog.ErrNoTopic, eventlog.ErrTopicChanged, eventlog.ErrOffsetGone,
}

// errFold marks errors of the user's function, and events that can't be read.
var errFold = errors.New("projection: fold")

// foldError keeps the user's error in front.
type foldError struct{ err error }

func (e *foldError) Error() string        { return e.err.Error() }
func (e *foldError) Unwrap() error        { return e.err }
func (e *foldError) Is(target error) bool { return target == errFold }

// run follows until ctx ends or an error stays.
func (f *follower) run(ctx context.Context) error {
	backoff := backoffMin
	for {
		began := time.Now()
		err := f.once(ctx)
		if f.part != nil {
			_ = f.part.Close() // what was applied is settled when it is acquired again
			f.part = nil
		}
		if err == nil || ctx.Err() != nil {
			return nil
		}
		for _, p := range permanent {
			if errors.Is(err, p) {
				return err
			}
		}
		if time.Since(began) > backoffMax {
			backoff = backoffMin
		}
		f.o.Logger.WarnContext(ctx, "follow again", "partition", f.partition, "err", err, "in", backoff)
		t := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// once acquires the partition and follows until something fails.
func (f *follower) once(ctx context.Context) error {
	topic, err := f.log.Topic(ctx, eventlog.EventsTopic(f.log.App()))
	if err != nil {
		return fmt.Errorf("describe the events topic: %w", err)
	}
	if f.end == 0 {
		f.end = topic.Partitions[f.partition].End
	}
	if err := f.acquire(ctx); err != nil {
		return err
	}
	if f.at.N > 0 && f.at.LogID != topic.ID {
		return fmt.Errorf("%w: the store has folded the events topic %s, this log's is %s", ErrHistory, f.at.LogID, topic.ID)
	}
	from := topic.Partitions[f.partition].Start
	if f.at.N > 0 {
		from = f.at.Offset
	}
	r, err := f.log.Read(ctx, topic.Name, f.partition, from, topic.ID, eventlog.ReadCommitted)
	if errors.Is(err, eventlog.ErrOffsetGone) {
		return fmt.Errorf("%w: event %d was trimmed; follow into an empty store: %v", ErrHistory, f.at.N, err)
	}
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer r.Close()
	known := f.at.N // event with which reading begins; its checksum is compared
	for !f.o.UntilEnd || from < f.end {
		f.tell(ctx, topic.ID)
		var records []eventlog.Record
		records, from, err = r.Next(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		for len(records) > 0 {
			n := min(len(records), f.o.Batch)
			if err := f.batch(ctx, topic.ID, records[:n], &known); err != nil {
				return err
			}
			records = records[n:]
		}
	}
	return f.part.Flush(ctx)
}

// acquire takes the partition from whoever had it.
func (f *follower) acquire(ctx context.Context) error {
	v, err := f.store.View(ctx, f.partition)
	var w Watermark
	if err == nil {
		w, err = v.Watermark(ctx)
		err = errors.Join(err, v.Close())
	}
	if err != nil && !errors.Is(err, ErrStateLost) {
		return err
	}
	epoch := w.Epoch + 1
	if f.part, err = f.store.Acquire(ctx, f.partition, epoch); errors.Is(err, ErrStateLost) {
		if err := f.store.Drop(ctx, f.partition, epoch); err != nil {
			return err
		}
		f.part, err = f.store.Acquire(ctx, f.partition, epoch)
	}
	if err != nil {
		f.part = nil
		return err
	}
	f.at, err = f.part.Watermark(ctx)
	return err
}

// batch folds records and applies what they come to, with the watermark.
func (f *follower) batch(ctx context.Context, logID string, records []eventlog.Record, known *uint64) error {
	tx := &Tx{part: f.part, partition: f.partition, rows: map[txKey]txRow{}, counts: map[string]int64{}}
	next := f.at
	for k := range records {
		rec := &records[k]
		if eventlog.IsBarrier(rec.Value) {
			continue
		}
		e := &eventlog.Event{}
		if err := eventlog.DecodeEvent(rec.Value, e); err != nil {
			return &foldError{fmt.Errorf("decode event at offset %d: %w", rec.Offset, err)}
		}
		sum := eventlog.Checksum(rec.Value)
		if *known > 0 {
			if e.N != *known || sum != f.at.Sum {
				return fmt.Errorf("%w: event %d at offset %d is another one", ErrHistory, *known, rec.Offset)
			}
			*known = 0
			continue
		}
		if e.N != next.N+1 {
			return fmt.Errorf("%w: event %d follows event %d", ErrHistory, e.N, next.N)
		}
		err := f.fold(ctx, tx, e)
		if tx.err != nil { // whatever the fold makes of it
			return tx.err
		}
		if err != nil {
			return &foldError{fmt.Errorf("fold event %d: %w", e.N, err)}
		}
		next.N, next.Offset, next.LogID, next.Sum = e.N, rec.Offset, logID, sum
	}
	if next.N == f.at.N {
		return nil
	}
	b := tx.batch()
	b.Expected, b.New = f.at.N, next
	if err := f.part.Apply(ctx, b); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	f.at = next
	return nil
}

// tell says which events are still needed; that it could not be said keeps more than is needed.
func (f *follower) tell(ctx context.Context, logID string) {
	if f.o.Cursor == nil || time.Since(f.cursor) < cursorInterval {
		return
	}
	f.cursor = time.Now()
	if err := f.o.Cursor(ctx, f.partition, max(1, f.at.N), logID); err != nil && ctx.Err() == nil {
		f.o.Logger.WarnContext(ctx, "store cursor", "partition", f.partition, "err", err)
	}
}
