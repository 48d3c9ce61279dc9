package stores

import (
	"errors"
	"fmt"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/storetest"
)

// TestIndexOfIds folds a log of several blocks of events into every backend: the rows of its index
// are the same, and what it says of ids is what the log says.
func TestIndexOfIds(t *testing.T) {
	ctx := t.Context()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "shop", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	owner, err := log.Own(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	const events = 3*4096 + 100
	var batch [][]byte
	var types []eventlog.Type
	for n := uint64(1); n <= events; n++ {
		e := eventlog.Event{V: 1, N: n, At: 1_700_000_000_000 + int64(n), Type: eventlog.InstanceStarted, ID: fmt.Sprint("o-", n/2), Seq: 1, Run: n, Definition: "Order", Plan: "p"}
		if n%2 == 1 { // each is deleted by the next event but one
			e = eventlog.Event{V: 1, N: n, At: e.At, Type: eventlog.InstanceDeleted, ID: e.ID, Seq: 2, Run: n - 1, Prev: n - 1}
		}
		if n == 1 {
			e = eventlog.Event{V: 1, N: n, At: e.At, Type: eventlog.PartitionOwned, Worker: "w"}
		}
		if batch, types = append(batch, eventlog.AppendEvent(nil, &e)), append(types, e.Type); len(batch) == 1000 || n == events {
			if _, err := owner.Append(ctx, batch, types, nil); err != nil {
				t.Fatal(err)
			}
			if err := owner.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			batch, types = nil, nil
		}
	}
	id := projection.Identity{App: "shop", Partitions: 1}
	reference := memstore.New(id)
	if _, err := engine.Rebuild(ctx, log, reference, engine.RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	want := storetest.Sum(t, reference, 1)
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			store, err := b.place(t).Open(id)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if _, err := engine.Rebuild(ctx, log, store, engine.RebuildOptions{BatchRows: 500}); err != nil {
				t.Fatal(err)
			}
			if got := storetest.Sum(t, store, 1); got != want {
				t.Errorf("dump sha256=%s, want %s", got, want)
			}
			if v, err := engine.Verify(ctx, log, store, nil); err != nil || v.Differences != 0 || v.Unindexed != 0 {
				t.Errorf("verify: %+v, %v", v, err)
			}
			for _, n := range []uint64{2, 4096, 5000, 8192, 2*4096 + 2, events - 150} {
				id := fmt.Sprint("o-", n/2)
				i, _, err := engine.ReadInstanceAt(ctx, log, store, id, engine.AtEvent(n))
				if err != nil || i.Run != n {
					t.Errorf("%s as of event %d: %+v, %v", id, n, i, err)
				}
				for _, at := range []uint64{n - 1, n + 1, events} {
					if _, _, err := engine.ReadInstanceAt(ctx, log, store, id, engine.AtEvent(at)); !errors.Is(err, engine.ErrNotFound) {
						t.Errorf("%s as of event %d: %v", id, at, err)
					}
				}
			}
		})
	}
}
