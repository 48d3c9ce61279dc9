package pebble

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system of one partition's database. A database ends its process when its
// write-ahead log or its manifest can't be written. So what fails for want of room or of files that
// the process may open, or because the disk is read-only, is tried here until it succeeds, and the
// database does not hear of it.
// Tables are another matter: it throws away one that it can't finish, which makes room, and
// tries again by itself. What waits for the database meanwhile gives up: see outlast.
type disk struct {
	vfs.FS
	dir string

	mu  sync.Mutex
	err error // the last one of these
	at  time.Time

	using sync.RWMutex // held for reading while something is written
	left  bool         // nothing is written any more; under using
}

const (
	retryEvery = 100 * time.Millisecond
	tablePause = time.Second // before the database makes another table
	// recently is how long an error counts after it came; longer than both of these.
	recently = 3 * time.Second
	// patience is how long a call waits for a disk that does not take what it is given.
	patience = time.Second
)

// refusesWrites says whether an error passes when somebody looks after the disk, or the process
// has closed other files.
func refusesWrites(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) || lacksFiles(err)
}

// lacksFiles says whether the process, or the machine, has as many files open as it may.
func lacksFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// again calls f until the disk takes it.
func (d *disk) again(name string, f func() error) error {
	for {
		d.using.RLock()
		if d.left {
			d.using.RUnlock()
			select {} // the database is not to hear of it, now less than ever
		}
		err := f()
		d.using.RUnlock()
		if err == nil || !refusesWrites(err) || name != d.dir && d.PathDir(name) != d.dir {
			return err
		}
		d.mu.Lock()
		d.err, d.at = err, time.Now()
		d.mu.Unlock()
		if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob") {
			<-time.After(tablePause)
			return err
		}
		<-time.After(retryEvery)
	}
}

// trouble is what the disk has refused a moment ago, or nil.
func (d *disk) trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil || time.Since(d.at) > recently {
		return nil
	}
	if lacksFiles(d.err) {
		return fmt.Errorf("no more files can be opened; raise the limit (ulimit -n, LimitNOFILE): %w", d.err)
	}
	return fmt.Errorf("the disk takes no writes: %w", d.err)
}

// leave lets nothing be written any more. What is still to be written waits for the end of the
// process, with the goroutines of the database.
func (d *disk) leave() {
	d.using.Lock()
	defer d.using.Unlock()
	d.left = true
}

func (d *disk) file(name string, open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := d.again(name, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d, name}, nil
}

// Create implements vfs.FS.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(name, func() (vfs.File, error) { return d.FS.Create(name, category) })
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return d.file(name, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, category, options...) })
}

// ReuseForWrite implements vfs.FS.
func (d *disk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(name, func() (vfs.File, error) { return d.FS.ReuseForWrite(old, name, category) })
}

// Link implements vfs.FS.
func (d *disk) Link(old, name string) error {
	return d.again(name, func() error { return d.FS.Link(old, name) })
}

// Rename implements vfs.FS.
func (d *disk) Rename(old, name string) error {
	return d.again(name, func() error { return d.FS.Rename(old, name) })
}

// MkdirAll implements vfs.FS.
func (d *disk) MkdirAll(name string, perm os.FileMode) error {
	return d.again(name, func() error { return d.FS.MkdirAll(name, perm) })
}

// Remove implements vfs.FS. What can't be removed is when the database is opened again.
func (d *disk) Remove(name string) error {
	d.using.RLock()
	defer d.using.RUnlock()
	if d.left {
		return nil
	}
	return d.FS.Remove(name)
}

// Lock implements vfs.FS. The store's lock is that of all its databases; one of a database
// that was left would outlive the store.
func (d *disk) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// Unwrap implements vfs.FS.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// diskFile is a file of the database. A sync that fails is not repeated: the second one would
// succeed and have synced nothing.
type diskFile struct {
	vfs.File
	d    *disk
	name string
}

// Write implements vfs.File.
func (f *diskFile) Write(p []byte) (n int, err error) {
	err = f.d.again(f.name, func() error {
		k, err := f.File.Write(p[n:])
		n += k
		return err
	})
	return n, err
}

// WriteAt implements vfs.File.
func (f *diskFile) WriteAt(p []byte, at int64) (n int, err error) {
	err = f.d.again(f.name, func() error {
		k, err := f.File.WriteAt(p[n:], at+int64(n))
		n += k
		return err
	})
	return n, err
}

// stuck says why nothing new is begun: a call that was given up has not ended.
func (p *partition) stuck() error {
	if p.givenUp.Load() == 0 {
		return nil
	}
	if err := p.disk.trouble(); err != nil {
		return err
	}
	return errors.New("the disk took no writes, and what had been written then is not through")
}

// outlast calls f, which writes, and waits for it. When the disk keeps it from ending, that is
// returned and f goes on by itself; what it then returns without an error is given to undo.
func outlast[T any](p *partition, f func() (T, error), undo func(T)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case r := <-done:
			return r.v, r.err
		case <-timer.C:
		}
		if err := p.disk.trouble(); err != nil {
			p.givenUp.Add(1)
			go func() {
				if r := <-done; r.err == nil && undo != nil {
					undo(r.v)
				}
				p.givenUp.Add(-1)
			}()
			return v, err
		}
		timer.Reset(patience)
	}
}

// outlive is outlast for what has no result.
func (p *partition) outlive(f func() error) error {
	_, err := outlast(p, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// take takes a lock, unless who has it waits for the disk.
func (p *partition) take(try func() bool, lock, unlock func()) error {
	if try() {
		return nil
	}
	if err := p.stuck(); err != nil {
		return err
	}
	got, enough := make(chan struct{}), make(chan struct{})
	go func() {
		lock()
		select {
		case got <- struct{}{}:
		case <-enough:
			unlock()
		}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-got:
			return nil
		case <-timer.C:
		}
		if err := p.disk.trouble(); err != nil {
			close(enough)
			return err
		}
		timer.Reset(patience)
	}
}

// share takes mu for reading.
func (p *partition) share() error { return p.take(p.mu.TryRLock, p.mu.RLock, p.mu.RUnlock) }
