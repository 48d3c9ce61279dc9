package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

func rowsOf(t *testing.T, v projection.View) (rows []string) {
	t.Helper()
	if err := v.Dump(t.Context(), func(r projection.Row) error {
		rows = append(rows, fmt.Sprintf("%#x %q %q", r.Kind, r.Key, r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestCheckpointWhileItWorks copies a partition under an owner's batches: the copy is a store
// with exactly the rows of its watermark.
func TestCheckpointWhileItWorks(t *testing.T) {
	for _, noWAL := range []bool{false, true} {
		t.Run(fmt.Sprint("noWAL=", noWAL), func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(t.Context(), filepath.Join(dir, "store"), storetest.Identity, Options{NoWAL: noWAL, Memtables: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			p, err := s.Acquire(t.Context(), 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Apply(t.Context(), childBatch(1, 1)); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for n := uint64(2); ; n++ {
					select {
					case <-ended:
						return
					default:
					}
					if err := p.Apply(t.Context(), childBatch(n, 1)); err != nil {
						t.Error(err)
						return
					}
				}
			})
			var stands []uint64
			for k := range 4 {
				target := filepath.Join(dir, fmt.Sprint("copy", k))
				w, err := s.Checkpoint(t.Context(), 0, target)
				if err != nil {
					t.Error(err)
					break
				}
				stands = append(stands, w.N)
				if _, err := s.Checkpoint(t.Context(), 0, target); err == nil || !strings.Contains(err.Error(), "there already") {
					t.Errorf("a second checkpoint in the same directory: %v", err)
				}
			}
			close(ended)
			wg.Wait()
			for k, n := range stands {
				if got := checkChild(t, filepath.Join(dir, fmt.Sprint("copy", k)), 1<<40, noWAL); got != n {
					t.Errorf("copy %d stands at event %d, Checkpoint said %d", k, got, n)
				}
			}
			if !slices.IsSorted(stands) || stands[len(stands)-1] == 0 {
				t.Errorf("the copies stand at events %d", stands)
			}
		})
	}
}

func TestCheckpointIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), filepath.Join(dir, "store"), storetest.Identity, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "letters"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Checkpoint(t.Context(), 0, full); err == nil {
		t.Error("a checkpoint into a directory with other things")
	}
	other, err := Open(t.Context(), filepath.Join(dir, "other"), projection.Identity{App: "other", Partitions: 3}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Checkpoint(t.Context(), 0, filepath.Join(dir, "other")); !errors.Is(err, projection.ErrForeign) {
		t.Errorf("a checkpoint into another application's store: %v", err)
	}
	if _, err := s.Checkpoint(t.Context(), 300, filepath.Join(dir, "x")); err == nil {
		t.Error("a checkpoint of a partition that is not there")
	}
}

// TestReplaceOfADamagedPartition builds beside what can't be read any more.
func TestReplaceOfADamagedPartition(t *testing.T) {
	place := onDisk(Options{}).New(t)
	s, err := place.Open(storetest.Identity)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Acquire(t.Context(), 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n < 20; n++ {
		if err := p.Apply(t.Context(), childBatch(n, 3)); err != nil {
			t.Fatal(err)
		}
	}
	want := rowsOf(t, p)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	place.Damage(0)
	if s, err = place.Open(storetest.Identity); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	store := s.(*Store)
	if p, err = s.Acquire(t.Context(), 0, 3); err == nil {
		err = p.Dump(t.Context(), func(projection.Row) error { return nil })
	}
	if !errors.Is(err, projection.ErrStateLost) {
		t.Fatalf("use of a damaged partition: %v", err)
	}
	g, err := store.Stage(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n < 20; n++ {
		if err := g.Apply(t.Context(), childBatch(n, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err = s.Acquire(t.Context(), 0, 3); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(want, rowsOf(t, p)) {
		t.Error("the rows are not those that were built")
	}
	if _, err := os.Stat(filepath.Join(store.dir, "p-0.damaged")); err != nil {
		t.Errorf("the damaged database was not set aside: %v", err)
	}
}

// TestMemoryBudget writes far more than fits into 16 partitions at once: memtables and blocks
// of all together stay within what the store was given.
func TestMemoryBudget(t *testing.T) {
	const cache, memtables = 4 << 20, 48 << 20
	id := projection.Identity{App: "budget", Partitions: 16}
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), id, Options{Cache: cache, Memtables: memtables})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := bytes.Repeat([]byte("0123456789abcdef"), 64)
	parts := make([]projection.Partition, id.Partitions)
	for n := range parts {
		if parts[n], err = s.Acquire(t.Context(), int32(n), 1); err != nil {
			t.Fatal(err)
		}
	}
	used := func() (tables uint64, blocks int64) {
		for n := range parts {
			m := s.parts[int32(n)].db.Metrics()
			tables += m.MemTable.Size + m.MemTable.ZombieSize
			blocks = m.BlockCache.Size // shared: every database tells the same
		}
		return tables, blocks
	}
	var most uint64
	var mostBlocks int64
	written := 0
	for n := uint64(1); n <= 40; n++ {
		var wg sync.WaitGroup
		for k, p := range parts {
			wg.Go(func() {
				b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1}}
				for i := range 150 {
					b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: fmt.Appendf(nil, "%d %d %d", n, k, i), Value: value})
				}
				if err := p.Apply(t.Context(), b); err != nil {
					t.Error(err)
				}
				if _, _, err := p.Get(t.Context(), projection.KindInstance, [][]byte{fmt.Appendf(nil, "%d %d %d", 1+n/2, k, 7)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		written += len(parts) * 150 * (len(value) + 20)
		tables, blocks := used()
		most, mostBlocks = max(most, tables), max(mostBlocks, blocks)
	}
	t.Logf("%d MiB written into 16 partitions; at most %.1f MiB of %d in memtables, %.1f MiB of blocks in a cache of %d",
		written>>20, float64(most)/(1<<20), memtables>>20, float64(mostBlocks)/(1<<20), (cache+memtables*2/3)>>20)
	if most > memtables {
		t.Errorf("the memtables of all partitions have %d bytes, the budget is %d", most, memtables)
	}
	if mostBlocks > cache+memtables*2/3 {
		t.Errorf("the block cache has %d bytes, the budget with two thirds of the memtables is %d", mostBlocks, cache+memtables*2/3)
	}
}
