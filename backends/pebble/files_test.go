package pebble

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/projection/storetest"
)

// TestTooManyOpenFiles: a process that may open no more files, perhaps because of its sockets,
// goes on; its partitions wait and say why.
func TestTooManyOpenFiles(t *testing.T) {
	disk := &refusingFS{FS: vfs.NewMem()}
	s, err := Open(t.Context(), "store", storetest.Identity, Options{Memtables: 1 << 20, fs: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	disk.refuse(syscall.EMFILE)
	err = p.Apply(t.Context(), childBatch(1, 1)) // makes the database
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "ulimit -n") {
		t.Fatalf("apply without files to open: %v", err)
	}
	disk.refuse(nil)
	for until := time.Now().Add(5 * time.Minute); ; <-time.After(10 * time.Millisecond) {
		if p, err = s.Acquire(t.Context(), 0, 2); err == nil || time.Now().After(until) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Watermark(t.Context())
	if err != nil || w.N > 1 {
		t.Fatalf("the watermark is %d, %v", w.N, err)
	}
	for n := range uint64(300) {
		if err := p.Apply(t.Context(), childBatch(w.N+n+1, 2)); err != nil {
			t.Fatal(err)
		}
	}
}
