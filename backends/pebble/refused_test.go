package pebble

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// refusingFS is a disk that can be full or read-only.
type refusingFS struct {
	vfs.FS
	err atomic.Pointer[error]
}

func (f *refusingFS) refuse(err error) {
	if err == nil {
		f.err.Store(nil)
		return
	}
	f.err.Store(&err)
}

func (f *refusingFS) refused(op, name string) error {
	if err := f.err.Load(); err != nil {
		return &os.PathError{Op: op, Path: name, Err: *err}
	}
	return nil
}

func (f *refusingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.refused("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return refusingFile{file, f, name}, err
}

func (f *refusingFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.refused("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(old, name, c)
	return refusingFile{file, f, name}, err
}

func (f *refusingFS) Rename(old, name string) error {
	return errors.Join(f.refused("rename", name), f.FS.Rename(old, name))
}

type refusingFile struct {
	vfs.File
	fs   *refusingFS
	name string
}

// Write writes half of what it refuses, as a disk does that gets full.
func (f refusingFile) Write(p []byte) (int, error) {
	if err := f.fs.refused("write", f.name); err != nil {
		if !errors.Is(err, syscall.ENOSPC) {
			return 0, err
		}
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

// TestDiskRefusesWrites: while the disk is full, or read-only, a partition's calls end soon and
// with its error; when it takes writes again the partition goes on, and so does one that is
// opened anew. Nothing that was acknowledged before a clean close is missing.
func TestDiskRefusesWrites(t *testing.T) {
	for name, refusal := range map[string]error{"full": syscall.ENOSPC, "read-only": syscall.EROFS} {
		for _, noWAL := range []bool{false, true} {
			rounds := uint64(2)
			if noWAL {
				name, rounds = name+" without log", 1
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				disk := &refusingFS{FS: vfs.NewMem()}
				options := Options{Memtables: 1 << 20, NoWAL: noWAL, fs: disk}
				s, err := Open(t.Context(), "store", storetest.Identity, options)
				if err != nil {
					t.Fatal(err)
				}
				p, err := s.Acquire(t.Context(), 0, 1)
				if err != nil {
					t.Fatal(err)
				}
				n := uint64(0)
				apply := func(epoch uint64) error {
					err := p.Apply(t.Context(), childBatch(n+1, epoch))
					if err == nil {
						n++
					}
					return err
				}
				for range 300 {
					if err := apply(1); err != nil {
						t.Fatal(err)
					}
				}
				for round := range rounds {
					disk.refuse(refusal)
					for err = nil; err == nil && n < 100_000; {
						err = apply(2*round + 1)
					}
					if !errors.Is(err, refusal) {
						t.Fatalf("apply to a disk that is %s: %v", name, err)
					}
					began := time.Now()
					_, _, getErr := p.Get(t.Context(), projection.KindDue, [][]byte{[]byte("001")})
					_, acquireErr := s.Acquire(t.Context(), 0, 2*round+2)
					if !errors.Is(acquireErr, refusal) {
						t.Errorf("acquire on a disk that is %s: %v", name, acquireErr)
					}
					closeErr := p.Close()
					if took := time.Since(began); took > 4*patience {
						t.Errorf("get, acquire and close took %v: %v, %v, %v", took, getErr, acquireErr, closeErr)
					}
					disk.refuse(nil)
					for until := time.Now().Add(5 * time.Minute); ; <-time.After(10 * time.Millisecond) {
						if p, err = s.Acquire(t.Context(), 0, 2*round+3); err == nil || time.Now().After(until) {
							break
						}
					}
					if err != nil {
						t.Fatalf("acquire when it takes writes again: %v", err)
					}
					w, err := p.Watermark(t.Context())
					if err != nil || w.N != n && w.N != n+1 {
						t.Fatalf("the watermark is %d, %v; %d was acknowledged", w.N, err, n)
					}
					n = w.N
					for range 300 {
						if err := apply(2*round + 3); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if got := checkRows(t, "store", options); got != n {
					t.Errorf("opened again it stands at event %d, want %d", got, n)
				}
			})
		}
	}
}
