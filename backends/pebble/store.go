// Package pebble keeps a store in a directory of this machine, with the Pebble engine. Its
// URL is pebble:///absolute/directory or pebble:relative/directory. Parameters:
//
//	wal=off           no write-ahead log: half the bytes written, more to replay after a crash
//	cache=128MiB      block cache, shared by all partitions
//	memtables=256MiB  memory of what is not yet written to tables, shared likewise
//
// The directory belongs to one process at a time and to one application. In it are STORE
// (whose store it is), LOCK and PID (who has it open), and for partition N the database
// p-N, its epoch p-N.epoch and, after damage, the database set aside as p-N.damaged; while a
// partition is rebuilt beside the one in use, p-N.staged.
package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	cdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/projection"
)

// Options tune a store. The zero value is the default.
type Options struct {
	NoWAL     bool
	Cache     int64 // bytes; 0 = 128 MiB
	Memtables int64 // bytes; 0 = 256 MiB

	fs vfs.FS // of tests; nil = the machine's
}

const (
	defaultCache     = 128 << 20
	defaultMemtables = 256 << 20
	openFiles        = 1000
)

// Store is a projection.Store in a directory.
type Store struct {
	url     string
	dir     string
	id      projection.Identity
	options Options
	fs      vfs.FS
	lock    io.Closer
	cache   *cdb.Cache
	files   *cdb.FileCache

	mu     sync.Mutex
	parts  map[int32]*partition
	staged map[int32]*partition // what Stage builds
	closed bool
}

// Open opens or creates the store in dir for the application of id. ErrInUse: another
// process (or this one) has it open. ErrForeign: it is another application's.
func Open(ctx context.Context, dir string, id projection.Identity, options Options) (*Store, error) {
	if id.App == "" || id.Partitions < 1 {
		return nil, fmt.Errorf("open store in %s: the application's name and its number of partitions are needed", dir)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if options.Cache <= 0 {
		options.Cache = defaultCache
	}
	if options.Memtables <= 0 {
		options.Memtables = defaultMemtables
	}
	fs := options.fs
	if fs == nil {
		fs = vfs.Default
	}
	dir, err := makeDir(fs, dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(fs, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		url: "pebble://" + filepath.ToSlash(dir), dir: dir, id: id, options: options, fs: fs, lock: lock,
		parts: map[int32]*partition{}, staged: map[int32]*partition{},
	}
	if err := s.checkIdentity(); err != nil {
		lock.Close()
		return nil, err
	}
	if err := errors.Join(s.finishReplaced(), s.removeDropped()); err != nil {
		lock.Close()
		return nil, err
	}
	// The databases take their memtables out of the cache's size. Most of the time a partition has
	// one that is filled, and one that is written to a table or kept for the next time. A third one
	// takes room from blocks: if the cache had room for it too, blocks would fill that and take twice
	// of what they should.
	s.cache = cdb.NewCache(options.Cache + options.Memtables/memtablesEach*2)
	s.files = cdb.NewFileCache(max(1, runtime.GOMAXPROCS(0)), openFiles)
	return s, nil
}

// URL returns the URL of the directory.
func (s *Store) URL() string { return s.url }

// partition returns partition n, which may be empty and closed.
func (s *Store) partition(n int32) (*partition, error) {
	if n < 0 || n >= s.id.Partitions {
		return nil, fmt.Errorf("the store has partitions 0 to %d", s.id.Partitions-1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, projection.ErrClosed
	}
	p := s.parts[n]
	if p == nil {
		epoch, err := readEpoch(s.fs, s.epochFile(n))
		if err != nil {
			return nil, err
		}
		p = s.newPartition(n, s.fs.PathJoin(s.dir, partitionDir(n)))
		p.watermark.Epoch = epoch
		s.parts[n] = p
	}
	return p, nil
}

// Acquire implements projection.Store.
func (s *Store) Acquire(ctx context.Context, n int32, epoch uint64) (projection.Partition, error) {
	h, err := s.open(ctx, n, func(p *partition) error { return p.claim(epoch) })
	if err != nil {
		return nil, fmt.Errorf("acquire partition %d: %w", n, err)
	}
	return h, nil
}

// View implements projection.Store. While this process has the store open, it alone can.
func (s *Store) View(ctx context.Context, n int32) (projection.View, error) {
	h, err := s.open(ctx, n, func(*partition) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("view partition %d: %w", n, err)
	}
	return h, nil
}

func (s *Store) open(ctx context.Context, n int32, claim func(*partition) error) (*handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := s.partition(n)
	if err != nil {
		return nil, err
	}
	if err := p.stuck(); err != nil {
		return nil, err
	}
	return outlast(p, func() (*handle, error) { return p.open(claim) }, func(h *handle) { h.Close() })
}

func (p *partition) open(claim func(*partition) error) (*handle, error) {
	p.life.Lock()
	defer p.life.Unlock()
	if err := p.openDB(false); err != nil {
		// The claim counts all the same: who is told that the state is lost will drop it.
		if lost := p.lost.Load(); lost != nil {
			if err := claim(p); err != nil {
				return nil, err
			}
		}
		return nil, err
	}
	if err := claim(p); err != nil {
		if p.refs == 0 {
			err = errors.Join(err, p.closeDB())
		}
		return nil, err
	}
	p.refs++
	return &handle{p: p}, nil
}

// Drop implements projection.Store. A damaged partition is kept as p-N.damaged.
func (s *Store) Drop(ctx context.Context, n int32, epoch uint64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("drop partition %d: %w", n, err)
	}
	p, err := s.partition(n)
	if err == nil {
		err = p.stuck()
	}
	if err == nil {
		err = p.outlive(func() error { return p.drop(epoch) })
	}
	if err != nil {
		return fmt.Errorf("drop partition %d: %w", n, err)
	}
	return nil
}

// Partitions implements projection.Store.
func (s *Store) Partitions(ctx context.Context) ([]int32, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("list partitions: %w", projection.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	var list []int32
	for _, name := range names {
		digits, found := strings.CutPrefix(name, "p-")
		if n, err := strconv.ParseInt(digits, 10, 32); found && err == nil && partitionDir(int32(n)) == name {
			list = append(list, int32(n))
		}
	}
	slices.Sort(list)
	return list, nil
}

// Close implements projection.Store: it closes every partition, and nothing that was applied
// is lost. Where the disk takes no writes, a partition is left as it is there, with an error:
// then it stands at an earlier watermark when it is opened again. Twice is fine.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := slices.Concat(slices.Collect(maps.Values(s.parts)), slices.Collect(maps.Values(s.staged)))
	s.mu.Unlock()

	var wg sync.WaitGroup
	errs := make(chan error, len(all)+1)
	for _, p := range all {
		wg.Go(func() {
			err := p.outlive(func() error {
				p.life.Lock()
				defer p.life.Unlock()
				p.dead.Store(true)
				return p.closeDB()
			})
			if err != nil {
				errs <- fmt.Errorf("close partition %d: %w", p.n, err)
			}
			if p.givenUp.Load() > 0 {
				p.disk.leave()
			}
		})
	}
	wg.Wait()
	s.files.Unref()
	s.cache.Unref()
	if err := s.unlock(); err != nil {
		errs <- err
	}
	close(errs)
	return <-errs
}
