package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
)

// testChurn lets goroutines acquire, view, apply, read, drop and release two partitions
// in any order: nothing hangs, no call fails with anything but what the contract names, and
// the rows are always those of the watermark.
func testChurn(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	rnd := seeded(t)
	const workers, steps = 4, 150
	var wg sync.WaitGroup
	fails := make(chan error, workers)
	for range workers {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		wg.Go(func() {
			for range steps {
				if err := oneLife(t, s, rnd); err != nil {
					fails <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-fails:
		broken(t, ruleAtomic, "while partitions come and go: %v", err)
	default:
	}
}

// oneLife opens a partition, uses it a little and releases it.
func oneLife(t *testing.T, s projection.Store, rnd *rand.Rand) (err error) {
	ctx, n := t.Context(), int32(rnd.IntN(2))
	expected := func(err error) error {
		for _, target := range []error{projection.ErrFenced, projection.ErrWatermark, projection.ErrClosed} {
			if errors.Is(err, target) {
				return nil
			}
		}
		return err
	}
	var v projection.View
	switch rnd.IntN(8) {
	case 0:
		return expected(s.Drop(ctx, n, 1))
	case 1, 2, 3:
		if v, err = s.View(ctx, n); err != nil {
			return err
		}
	default:
		p, err := s.Acquire(ctx, n, 1)
		if err != nil {
			return err
		}
		v = p
		for range rnd.IntN(4) {
			w, err := p.Watermark(ctx)
			if err != nil {
				return errors.Join(err, p.Close())
			}
			// Event n is one row, so that n rows are right at event n.
			key := fmt.Sprintf("%08d", w.N)
			if err := expected(p.Apply(ctx, put(w.N, 1, projection.KindDue, key))); err != nil {
				return errors.Join(err, p.Close())
			}
		}
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	for range rnd.IntN(3) {
		rows, at, err := v.Scan(ctx, projection.KindDue, nil, nil, 100_000)
		if err == nil && uint64(len(rows)) != at {
			err = fmt.Errorf("Scan reads %d rows at event %d", len(rows), at)
		}
		if err != nil {
			return err
		}
		count := 0
		err = v.Dump(ctx, func(r projection.Row) error {
			if want := fmt.Sprintf("%08d", count); string(r.Key) != want {
				return fmt.Errorf("Dump reads row %s, want %s", r.Key, want)
			}
			count++
			return nil
		})
		if err := expected(err); err != nil {
			return err
		}
	}
	return nil
}
