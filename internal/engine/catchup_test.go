package engine

import (
	"context"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// takenStore is a store that cannot build aside, and of which an owner takes a partition right
// before it is dropped.
type takenStore struct {
	projection.Store
	epoch uint64
}

func (s *takenStore) Drop(ctx context.Context, partition int32, epoch uint64) error {
	if s.epoch > 0 {
		if _, err := s.Acquire(ctx, partition, s.epoch); err != nil {
			return err
		}
		s.epoch = 0
	}
	return s.Store.Drop(ctx, partition, epoch)
}

// TestRebuildOfWhatIsTaken: an owner that takes the partition in the moment before it is emptied
// is no error.
func TestRebuildOfWhatIsTaken(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	const p = 1
	w, err := watermark(t.Context(), store, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Rebuild(t.Context(), log, &takenStore{store, w.Epoch + 1}, RebuildOptions{Partitions: []int32{p}}); err != nil {
		t.Fatal(err)
	}
	wantVerified(t, log, store)
}

// seenStore notes where the partition in use and the one that replaces it stand.
type seenStore struct {
	*memstore.Store
	built, inUse uint64
}

func (s *seenStore) Stage(ctx context.Context, partition int32) (projection.Staged, error) {
	g, err := s.Store.Stage(ctx, partition)
	return &seenStaged{g, s, partition}, err
}

type seenStaged struct {
	projection.Staged
	s         *seenStore
	partition int32
}

func (g *seenStaged) Replace(ctx context.Context) error {
	w, err := g.Watermark(ctx)
	if err != nil {
		return err
	}
	g.s.built = w.N
	if w, err = watermark(ctx, g.s, g.partition); err != nil {
		return err
	}
	g.s.inUse = w.N
	return g.Staged.Replace(ctx)
}

// TestRebuildCatchesUp has an engine do much while a partition is built: what replaces the one
// in use is not far behind it.
func TestRebuildCatchesUp(t *testing.T) {
	log, store := memLog(t), &seenStore{Store: memStore(t)}
	ordersDone(t, log, store)
	const p = 1
	began, err := watermark(t.Context(), store, p)
	if err != nil {
		t.Fatal(err)
	}
	var meanwhile sync.Once
	done, err := Rebuild(t.Context(), log, store, RebuildOptions{Partitions: []int32{p}, Progress: func(int32, int64, int64) {
		meanwhile.Do(func() {
			e, stop := runEngine(t, log, store, runOrders(t))
			moreOrders(t, log, e, 0, 600)
			stop()
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	if store.inUse < began.N+catchUpFrom {
		t.Fatalf("the partition in use was at event %d and came to %d only", began.N, store.inUse)
	}
	if store.built+catchUpFrom < store.inUse || done[0].AsOf != store.built || uint64(done[0].Events) != store.built {
		t.Errorf("%+v: it was replaced at event %d by what was at event %d", done, store.inUse, store.built)
	}
	wantVerified(t, log, store)
}
