package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
)

// EventBatch is event n of a log: what is in a store at event n is known from n alone.
func EventBatch(n, epoch uint64) projection.Batch {
	b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: epoch, Offset: int64(n), LogID: "log", Sum: n}}
	for i := range uint64(20) {
		r := projection.Row{Kind: projection.KindDue, Key: fmt.Appendf(nil, "%03d", (n*7+i)%200)}
		switch i % 3 {
		case 0:
			r.Kind = projection.KindInstance
		case 1:
			r.Kind = projection.KindKept
		}
		if (n+i)%5 == 0 {
			b.Del = append(b.Del, r)
			continue
		}
		if r.Kind != projection.KindDue || n%2 == 0 {
			r.Value = fmt.Appendf(nil, "%d %0*d", n, 50+700*(i%2), i)
		}
		b.Put = append(b.Put, r)
	}
	b.Add = []projection.Delta{{Key: []byte("batches"), N: 1}}
	return b
}

// errDiffers: the rows of a partition are not those of its watermark.
var errDiffers = errors.New("storetest: the rows are not those of the event")

// CompareEvents reads a partition whole, compares it with what the EventBatches up to its
// watermark give, and returns the event at which it stands.
func CompareEvents(ctx context.Context, v projection.View) (at uint64, err error) {
	have := map[rowName]string{}
	w, err := projection.DumpAt(ctx, v, func(r projection.Row) error {
		have[rowName{r.Kind, string(r.Key)}] = string(r.Value)
		return nil
	})
	if err != nil {
		return 0, err
	}
	want := map[rowName]string{}
	for n := uint64(1); n <= w.N; n++ {
		b := EventBatch(n, 0)
		for _, r := range b.Put {
			want[rowName{r.Kind, string(r.Key)}] = string(r.Value)
		}
		for _, r := range b.Del {
			delete(want, rowName{r.Kind, string(r.Key)})
		}
	}
	if w.N > 0 {
		want[rowName{projection.KindCount, "batches"}] = strconv.FormatUint(w.N, 10)
	}
	if !maps.Equal(have, want) {
		return w.N, fmt.Errorf("%w %d:\n%.2000s", errDiffers, w.N, cmp.Diff(want, have))
	}
	return w.N, nil
}

// CheckEvents is CompareEvents that must find no difference.
func CheckEvents(t *testing.T, v projection.View) uint64 {
	t.Helper()
	at, err := CompareEvents(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Owner does to partition 0 what an owner does: it applies EventBatch after EventBatch, goes
// back where the store has gone back, and rebuilds what was lost.
type Owner struct {
	T     *testing.T
	Store projection.Store
	Part  projection.Partition // nil: it is to be acquired
	Epoch uint64
	N     atomic.Uint64 // the last event acknowledged
	// What happened.
	Failed, Rewound, Lost atomic.Int64

	wg   sync.WaitGroup
	stop atomic.Bool
}

// NewOwner makes one that has not acquired the partition yet.
func NewOwner(t *testing.T, s projection.Store) *Owner { return &Owner{T: t, Store: s} }

// Acquire takes the partition with a new epoch, and drops it when it is lost.
func (o *Owner) Acquire() error {
	o.Epoch++
	p, err := o.Store.Acquire(o.T.Context(), 0, o.Epoch)
	if errors.Is(err, projection.ErrStateLost) {
		o.Lost.Add(1)
		if err := o.Store.Drop(o.T.Context(), 0, o.Epoch); err != nil {
			return err
		}
		p, err = o.Store.Acquire(o.T.Context(), 0, o.Epoch)
	}
	if err != nil {
		return err
	}
	at, err := p.Watermark(o.T.Context())
	if err != nil {
		return err
	}
	if at.N < o.N.Load() {
		o.Rewound.Add(1)
	}
	o.Part = p
	o.N.Store(at.N)
	return nil
}

// Step applies the next event, or finds out where to go on. It returns what went wrong.
func (o *Owner) Step() error {
	if o.Part == nil {
		if err := o.Acquire(); err != nil {
			o.Failed.Add(1)
			return err
		}
	}
	n := o.N.Load() + 1
	err := o.Part.Apply(o.T.Context(), EventBatch(n, o.Epoch))
	if err == nil {
		o.N.Store(n)
		return nil
	}
	o.Failed.Add(1)
	o.Part = nil // whatever it was: what is known of the store is worth nothing
	return err
}

// Steps makes n steps that all succeed.
func (o *Owner) Steps(n int) {
	o.T.Helper()
	for range n {
		if err := o.Step(); err != nil {
			o.T.Fatal(err)
		}
	}
}

// Run steps until Halt. Errors are an owner's daily life.
func (o *Owner) Run() {
	o.stop.Store(false)
	o.wg.Go(func() {
		for !o.stop.Load() && o.T.Context().Err() == nil {
			_ = o.Step() // counted in Failed
		}
	})
}

// Halt ends Run.
func (o *Owner) Halt() {
	o.stop.Store(true)
	o.wg.Wait()
}

// Check compares the store with the log, without the owner's handle.
func (o *Owner) Check() uint64 {
	o.T.Helper()
	v, err := o.Store.View(o.T.Context(), 0)
	if err != nil {
		o.T.Fatal(err)
	}
	return CheckEvents(o.T, v)
}

// Said tells what happened.
func (o *Owner) Said() string {
	return fmt.Sprintf("%d events, %d calls failed, %d times gone back, %d times lost", o.N.Load(), o.Failed.Load(), o.Rewound.Load(), o.Lost.Load())
}
