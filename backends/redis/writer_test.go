package redis

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// batch is event n of the tests' log: what is in the store at event n is known from n alone.
func batch(n, epoch uint64) projection.Batch {
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

// check compares a partition with what its events up to its watermark give.
func check(t *testing.T, v projection.View) uint64 {
	t.Helper()
	w, err := v.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type name struct {
		kind projection.Kind
		key  string
	}
	want := map[name]string{}
	for n := uint64(1); n <= w.N; n++ {
		b := batch(n, 0)
		for _, r := range b.Put {
			want[name{r.Kind, string(r.Key)}] = string(r.Value)
		}
		for _, r := range b.Del {
			delete(want, name{r.Kind, string(r.Key)})
		}
	}
	if w.N > 0 {
		want[name{projection.KindCount, "batches"}] = strconv.FormatUint(w.N, 10)
	}
	err = v.Dump(t.Context(), func(r projection.Row) error {
		value, found := want[name{r.Kind, string(r.Key)}]
		if !found || value != string(r.Value) {
			return fmt.Errorf("at event %d row %#x %s is %.20q, want %.20q (%v)", w.N, r.Kind, r.Key, r.Value, value, found)
		}
		delete(want, name{r.Kind, string(r.Key)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Fatalf("at event %d %d rows are missing", w.N, len(want))
	}
	return w.N
}

// writer does to partition 0 what an owner does: it applies event after event, goes back where
// the store has gone back, and rebuilds what was lost.
type writer struct {
	t     *testing.T
	s     projection.Store
	p     projection.Partition
	epoch uint64
	n     atomic.Uint64 // the last event acknowledged
	// What happened.
	failed, rewound, lost atomic.Int64

	wg   sync.WaitGroup
	stop atomic.Bool
}

func newWriter(t *testing.T, s projection.Store) *writer { return &writer{t: t, s: s} }

// acquire takes the partition with a new epoch.
func (w *writer) acquire() error {
	w.epoch++
	p, err := w.s.Acquire(w.t.Context(), 0, w.epoch)
	if errors.Is(err, projection.ErrStateLost) {
		w.lost.Add(1)
		if err := w.s.Drop(w.t.Context(), 0, w.epoch); err != nil {
			return err
		}
		p, err = w.s.Acquire(w.t.Context(), 0, w.epoch)
	}
	if err != nil {
		return err
	}
	at, err := p.Watermark(w.t.Context())
	if err != nil {
		return err
	}
	if at.N < w.n.Load() {
		w.rewound.Add(1)
	}
	w.p = p
	w.n.Store(at.N)
	return nil
}

// step applies the next event, or finds out where to go on. It returns what went wrong.
func (w *writer) step() error {
	if w.p == nil {
		if err := w.acquire(); err != nil {
			w.failed.Add(1)
			return err
		}
	}
	n := w.n.Load() + 1
	err := w.p.Apply(w.t.Context(), batch(n, w.epoch))
	if err == nil {
		w.n.Store(n)
		return nil
	}
	w.failed.Add(1)
	w.p = nil // whatever it was: what is known of the store is worth nothing
	return err
}

// run steps until halt. Errors are an owner's daily life.
func (w *writer) run() {
	w.stop.Store(false)
	w.wg.Go(func() {
		for !w.stop.Load() && w.t.Context().Err() == nil {
			if w.step() != nil {
				w.p = nil
			}
		}
	})
}

func (w *writer) halt() {
	w.stop.Store(true)
	w.wg.Wait()
}

// check compares the store with the log, without the writer's handle.
func (w *writer) check() uint64 {
	w.t.Helper()
	v, err := w.s.View(w.t.Context(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return check(w.t, v)
}

func (w *writer) said() string {
	return fmt.Sprintf("%d events, %d calls failed, %d times gone back, %d times lost", w.n.Load(), w.failed.Load(), w.rewound.Load(), w.lost.Load())
}

var identity = storetest.Identity
