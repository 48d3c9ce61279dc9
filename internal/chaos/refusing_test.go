package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// refusing is the machine's file system, of which some directories take no writes. A test can't
// make a file system read-only that has files open, nor can it hand one to a store through its URL; so
// TestMain puts this one in the place of Pebble's own.
var refusing = &refusingFS{FS: vfs.Default, why: map[string]error{}}

type refusingFS struct {
	vfs.FS
	mu  sync.RWMutex
	why map[string]error // by directory
}

// refuse says with what a directory refuses writes from now on; nil = it takes them.
func (f *refusingFS) refuse(dir string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why[dir] = why
}

func (f *refusingFS) refused(op, name string) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for dir, why := range f.why {
		if why != nil && strings.HasPrefix(name, dir+string(filepath.Separator)) {
			return &os.PathError{Op: op, Path: name, Err: why}
		}
	}
	return nil
}

func (f *refusingFS) opened(op, name string, open func() (vfs.File, error)) (vfs.File, error) {
	if err := f.refused(op, name); err != nil {
		return nil, err
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	return refusingFile{file, name}, nil
}

func (f *refusingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.opened("create", name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *refusingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.opened("open", name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *refusingFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.opened("open", name, func() (vfs.File, error) { return f.FS.ReuseForWrite(old, name, c) })
}

func (f *refusingFS) Rename(old, name string) error {
	if err := f.refused("rename", name); err != nil {
		return err
	}
	return f.FS.Rename(old, name)
}

func (f *refusingFS) Link(old, name string) error {
	if err := f.refused("link", name); err != nil {
		return err
	}
	return f.FS.Link(old, name)
}

func (f *refusingFS) MkdirAll(name string, perm os.FileMode) error {
	if err := f.refused("mkdir", name); err != nil {
		return err
	}
	return f.FS.MkdirAll(name, perm)
}

func (f *refusingFS) Remove(name string) error {
	if err := f.refused("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *refusingFS) Unwrap() vfs.FS { return f.FS }

type refusingFile struct {
	vfs.File
	name string
}

// Write writes half of what a full disk refuses, and nothing of what a read-only one does.
func (f refusingFile) Write(p []byte) (int, error) {
	err := refusing.refused("write", f.name)
	switch {
	case err == nil:
		return f.File.Write(p)
	case strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return 0, err
}

func (f refusingFile) WriteAt(p []byte, at int64) (int, error) {
	if err := refusing.refused("write", f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

// TestDiskRefusesUnderStoreEmbedded: the disk of the store becomes read-only, or full, under a
// working engine, and later takes writes again. The engine says what is wrong, and goes on by itself.
func TestDiskRefusesUnderStoreEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	for name, why := range map[string]error{"read-only": syscall.EROFS, "full": syscall.ENOSPC} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "store")
			defer refusing.refuse(dir, nil)
			w := newStoreWorld(t, "pebble:"+dir)
			for range pick(5, 1) {
				w.feed(100, 100)
				w.awaitAcked(30)
				refusing.refuse(dir, why)
				w.feed(2000, 500) // a database waits for its log when half a megabyte of it is not written
				w.awaitNotReady(why.Error())
				pause(t.Context(), pick(30*time.Second, 2*time.Second)) // it is not ready all the while
				if err := w.notReady(); err == nil || !strings.Contains(err.Error(), why.Error()) {
					t.Errorf("some time later it says %v", err)
				}
				refusing.refuse(dir, nil)
				w.awaitReady()
			}
			w.finish()
			if said := w.said.String(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, why.Error()) {
				t.Errorf("the log does not tell of it:\n%s", w.tail())
			}
		})
	}
}
