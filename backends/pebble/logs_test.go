package pebble

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
)

// TestLogsAreRemoved: write-ahead logs whose rows are in tables are gone. Kept to be written
// over, they would be most of what a store of small partitions takes.
func TestLogsAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Open(t.Context(), dir, projection.Identity{App: "app", Partitions: 1}, Options{Memtables: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const batches = 200 // of 64 kB, in memtables of 1 MB
	for n := uint64(1); n <= batches; n++ {
		b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1, LogID: "log"}}
		for i := range 64 {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: fmt.Appendf(nil, "i-%d-%d", n, i), Value: make([]byte, 1000)})
		}
		if err := p.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := flushTables(t.Context(), p.(*handle).p.db); err != nil {
		t.Fatal(err)
	}
	// The database removes files in the background.
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Millisecond) {
		logs, err := filepath.Glob(filepath.Join(dir, partitionDir(0), "*.log"))
		if err != nil {
			t.Fatal(err)
		}
		if len(logs) == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("logs after everything was written to tables: %v, want the one in use", logs)
		}
	}
}
