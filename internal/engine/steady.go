package engine

import (
	"context"
	"errors"
	"time"

	"github.com/godagger/dagger/projection"
)

// storePatience is how long a call of the store is repeated. An owner that gives up begins at
// the proof again, with a dozen calls of the store: without patience one that fails now and
// then would hardly ever be taken.
const storePatience = time.Second

// steady repeats a call of the store that failed for a reason that may pass. All calls may be
// repeated: reads change nothing, and the store tells a batch that it has applied already.
func steady(ctx context.Context, call func() error) error {
	began := time.Now()
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		err := call()
		if err == nil || lasts(err) || ctx.Err() != nil || time.Since(began)+wait > storePatience {
			return err
		}
		sleep(ctx, wait)
	}
}

// lasts says whether an error of a store is an answer that it will give again.
func lasts(err error) bool {
	for _, answer := range []error{
		projection.ErrFenced, projection.ErrWatermark, projection.ErrStateLost, projection.ErrForeign,
		projection.ErrInUse, projection.ErrTooLarge, projection.ErrClosed,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// acquireSteady acquires a partition whose calls are steady.
func acquireSteady(ctx context.Context, s projection.Store, partition int32, epoch uint64) (projection.Partition, error) {
	var p projection.Partition
	err := steady(ctx, func() (err error) {
		p, err = s.Acquire(ctx, partition, epoch)
		return err
	})
	if err != nil {
		return nil, err
	}
	return steadyPartition{p}, nil
}

type steadyPartition struct{ projection.Partition }

func (p steadyPartition) Watermark(ctx context.Context) (w projection.Watermark, err error) {
	err = steady(ctx, func() error {
		w, err = p.Partition.Watermark(ctx)
		return err
	})
	return w, err
}

func (p steadyPartition) Get(ctx context.Context, kind projection.Kind, keys [][]byte) (values [][]byte, at uint64, err error) {
	err = steady(ctx, func() error {
		values, at, err = p.Partition.Get(ctx, kind, keys)
		return err
	})
	return values, at, err
}

func (p steadyPartition) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) (rows []projection.Row, at uint64, err error) {
	err = steady(ctx, func() error {
		rows, at, err = p.Partition.Scan(ctx, kind, from, to, limit)
		return err
	})
	return rows, at, err
}

func (p steadyPartition) Apply(ctx context.Context, b projection.Batch) error {
	return steady(ctx, func() error { return p.Partition.Apply(ctx, b) })
}
