// Package memstore is the store in memory: the reference that every backend is compared
// with, and the store of tests. Its URL is "mem:". Nothing survives Close.
package memstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"github.com/godagger/dagger/projection"
)

func init() {
	projection.Register("mem", func(_ context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
		if u.Opaque != "" || u.Host != "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, errors.New(`memstore: the URL is "mem:" and nothing else`)
		}
		return New(id), nil
	})
}

// ErrReplyLost is what Apply returns after LoseReply: the batch was applied.
var ErrReplyLost = errors.New("memstore: reply lost")

// Options are for tests of what happens when a store loses something.
type Options struct {
	History int // how many applies Rewind can undo, per partition; 0 = none
}

// Store is a projection.Store in memory, with means to make it fail.
type Store struct {
	id      projection.Identity
	history int

	mu        sync.RWMutex
	parts     map[int32]*partition
	sides     map[int32]*Store // what Stage builds
	staging   map[int32]bool
	closed    bool
	failNext  error
	loseReply bool
}

// partition is the content of a partition. The store's mu guards it.
type partition struct {
	watermark projection.Watermark
	kinds     map[projection.Kind]*ordered
	undo      []undo // oldest first
}

// undo is what takes one apply back.
type undo struct {
	watermark projection.Watermark
	rows      []undoRow
}

type undoRow struct {
	kind  projection.Kind
	key   string
	value []byte
	had   bool
}

// New returns an empty store. Only the first Options count.
func New(id projection.Identity, options ...Options) *Store {
	s := &Store{id: id, parts: map[int32]*partition{}, sides: map[int32]*Store{}, staging: map[int32]bool{}}
	if len(options) > 0 {
		s.history = options[0].History
	}
	return s
}

// URL returns "mem:".
func (s *Store) URL() string { return "mem:" }

// Acquire implements projection.Store.
func (s *Store) Acquire(ctx context.Context, p int32, epoch uint64) (projection.Partition, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx, p); err != nil {
		return nil, fmt.Errorf("acquire partition %d: %w", p, err)
	}
	part := s.parts[p]
	if part == nil {
		part = &partition{kinds: map[projection.Kind]*ordered{}}
		s.parts[p] = part
	}
	if epoch < part.watermark.Epoch {
		return nil, fmt.Errorf("acquire partition %d: %w: epoch %d, the partition has %d", p, projection.ErrFenced, epoch, part.watermark.Epoch)
	}
	part.watermark.Epoch = epoch
	return &handle{s: s, p: p}, nil
}

// View implements projection.Store.
func (s *Store) View(ctx context.Context, p int32) (projection.View, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx, p); err != nil {
		return nil, fmt.Errorf("view partition %d: %w", p, err)
	}
	return &handle{s: s, p: p}, nil
}

// Drop implements projection.Store.
func (s *Store) Drop(ctx context.Context, p int32, epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx, p); err != nil {
		return fmt.Errorf("drop partition %d: %w", p, err)
	}
	part := s.parts[p]
	if part == nil {
		return nil
	}
	if epoch < part.watermark.Epoch {
		return fmt.Errorf("drop partition %d: %w: epoch %d, the partition has %d", p, projection.ErrFenced, epoch, part.watermark.Epoch)
	}
	part.empty()
	return nil
}

// Partitions implements projection.Store.
func (s *Store) Partitions(ctx context.Context) ([]int32, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx, 0); err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	var list []int32
	for p, part := range s.parts {
		if part.watermark.N > 0 {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Close implements projection.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.parts = nil
	return nil
}

func (s *Store) check(ctx context.Context, p int32) error {
	if s.closed {
		return projection.ErrClosed
	}
	if p < 0 || p >= s.id.Partitions {
		return fmt.Errorf("the store has partitions 0 to %d", s.id.Partitions-1)
	}
	return ctx.Err()
}

// empty forgets everything but the epoch.
func (p *partition) empty() {
	*p = partition{watermark: projection.Watermark{Epoch: p.watermark.Epoch}, kinds: map[projection.Kind]*ordered{}}
}

func (p *partition) kind(k projection.Kind) *ordered {
	o := p.kinds[k]
	if o == nil {
		o = &ordered{}
		p.kinds[k] = o
	}
	return o
}

// apply writes a batch that fits, and returns what undoes it.
func (p *partition) apply(b projection.Batch) (undo, error) {
	back := undo{watermark: p.watermark}
	// The reference is strict about what the others take on trust.
	named := make(map[string]bool, len(b.Put)+len(b.Del)+len(b.Add))
	for _, rows := range [][]projection.Row{b.Put, b.Del} {
		for _, r := range rows {
			name := string([]byte{byte(r.Kind)}) + string(r.Key)
			if named[name] {
				return back, fmt.Errorf("memstore: batch names row %#x %q twice", r.Kind, r.Key)
			}
			named[name] = true
		}
	}
	for _, r := range b.Put {
		old, had := p.kind(r.Kind).put(string(r.Key), append([]byte{}, r.Value...))
		back.rows = append(back.rows, undoRow{r.Kind, string(r.Key), old, had})
	}
	for _, r := range b.Del {
		old, had := p.kind(r.Kind).del(string(r.Key))
		back.rows = append(back.rows, undoRow{r.Kind, string(r.Key), old, had})
	}
	counters := p.kind(projection.KindCount)
	for _, d := range b.Add {
		key := string(d.Key)
		old, had := counters.get(key)
		n, _ := strconv.ParseInt(string(old), 10, 64) // written below and nowhere else; absent is 0
		if n += d.N; n == 0 {
			counters.del(key)
		} else {
			counters.put(key, strconv.AppendInt(nil, n, 10))
		}
		back.rows = append(back.rows, undoRow{projection.KindCount, key, old, had})
	}
	p.watermark = b.New
	return back, nil
}

func (p *partition) takeBack(u undo) {
	for _, r := range slices.Backward(u.rows) {
		if r.had {
			p.kind(r.kind).put(r.key, r.value)
		} else {
			p.kind(r.kind).del(r.key)
		}
	}
	epoch := p.watermark.Epoch
	p.watermark = u.watermark
	p.watermark.Epoch = epoch
}

// clone keeps an empty value apart from no value.
func clone(value []byte) []byte { return append(make([]byte, 0, len(value)), value...) }

func inRange(key string, to []byte) bool { return to == nil || key < string(to) }
