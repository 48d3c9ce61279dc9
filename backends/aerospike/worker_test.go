package aerospike

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/godagger/dagger/projection"
)

// worker does to partition 0 what an owner does: it applies event after event, goes back where
// the store has gone back, and rebuilds what was lost.
type worker struct {
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

func newWorker(t *testing.T, s projection.Store) *worker { return &worker{t: t, s: s} }

// acquire takes the partition with a new epoch, and drops it when it is lost.
func (w *worker) acquire() error {
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
func (w *worker) step() error {
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

// steps makes n steps that all succeed.
func (w *worker) steps(n int) {
	w.t.Helper()
	for range n {
		if err := w.step(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// run steps until halt. Errors are an owner's daily life.
func (w *worker) run() {
	w.stop.Store(false)
	w.wg.Go(func() {
		for !w.stop.Load() && w.t.Context().Err() == nil {
			w.step()
		}
	})
}

func (w *worker) halt() {
	w.stop.Store(true)
	w.wg.Wait()
}

// check compares the store with the log, without the writer's handle.
func (w *worker) check() uint64 {
	w.t.Helper()
	v, err := w.s.View(w.t.Context(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return check(w.t, v)
}

func (w *worker) said() string {
	return fmt.Sprintf("%d events, %d calls failed, %d times gone back, %d times lost", w.n.Load(), w.failed.Load(), w.rewound.Load(), w.lost.Load())
}
