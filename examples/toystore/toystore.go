// Package toystore is a store in less than 300 lines, to show what one has to do. It keeps the
// rows of a partition in memory, and in a file to which each batch is appended as one line
// with its checksum; opening reads the file again. Its URL is toy:DIR.
//
// It passes the suite of package storetest. For real work its file grows too much, its rows
// take too much memory, and its scans sort too much.
package toystore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/godagger/dagger/projection"
)

func init() {
	projection.Register("toy", func(_ context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
		if dir := u.Opaque + u.Path; dir != "" && u.String() == "toy:"+dir {
			return Open(dir, id)
		}
		return nil, errors.New("toystore: the URL is toy:DIR and nothing else")
	})
}

// Store is a projection.Store in a directory. One process at a time may have it open; this
// toy trusts that, where a real one takes a lock.
type Store struct {
	dir string
	id  projection.Identity

	mu     sync.Mutex // one for all: what is read under it is one step with the watermark
	parts  map[int32]*partition
	closed bool
}

type partition struct {
	at   projection.Watermark
	rows map[string][]byte // by kind and key, in one string
	lost error             // the file can't be read
	file *os.File
}

// Open opens or creates the store in dir. ErrForeign: it is another application's.
func Open(dir string, id projection.Identity) (*Store, error) {
	_ = os.MkdirAll(dir, 0o755) // what is wrong shows below
	want, file := fmt.Sprintf("%s %d\n", id.App, id.Partitions), filepath.Join(dir, "STORE")
	have, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		have, err = []byte(want), os.WriteFile(file, []byte(want), 0o644)
	}
	if err == nil && string(have) != want {
		err = fmt.Errorf("%w: %s is of %s", projection.ErrForeign, dir, have)
	}
	return &Store{dir: dir, id: id, parts: map[int32]*partition{}}, err
}

// do calls f with a partition, in one step.
func (s *Store) do(ctx context.Context, n int32, f func(*partition) error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return projection.ErrClosed
	case n < 0 || n >= s.id.Partitions:
		return fmt.Errorf("toystore: the store has partitions 0 to %d", s.id.Partitions-1)
	case ctx.Err() != nil:
		return ctx.Err()
	case s.parts[n] == nil:
		if s.parts[n], err = read(filepath.Join(s.dir, fmt.Sprintf("p-%d", n))); err != nil {
			delete(s.parts, n)
			return err
		}
	}
	return f(s.parts[n])
}

// read reads a partition's file.
func read(name string) (*partition, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	p := &partition{rows: map[string][]byte{}, file: f}
	raw, err := io.ReadAll(f)
	whole := 0
	for text := range bytes.Lines(raw) {
		if text[len(text)-1] != '\n' {
			break // cut off by a crash: an earlier watermark, which is fine
		}
		var b projection.Batch
		sum, body, _ := bytes.Cut(text[:len(text)-1], []byte(" "))
		if fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)) != string(sum) || json.Unmarshal(body, &b) != nil {
			p.lost = fmt.Errorf("%w: %s is damaged at byte %d", projection.ErrStateLost, name, whole)
			break // and never guess what it was
		}
		p.take(b)
		whole += len(text)
	}
	if err == nil && p.lost == nil {
		err = f.Truncate(int64(whole))
	}
	return p, err
}

// write appends a batch to the file and takes it in memory: whole or not at all.
func (p *partition) write(b projection.Batch) error {
	body, err := json.Marshal(b)
	if err == nil {
		_, err = fmt.Fprintf(p.file, "%08x %s\n", crc32.ChecksumIEEE(body), body)
	}
	if err != nil {
		p.lost = fmt.Errorf("%w: %v", projection.ErrStateLost, err) // half of it may be there
		return p.lost
	}
	p.take(b)
	return nil
}

func (p *partition) take(b projection.Batch) {
	for _, r := range b.Put {
		p.rows[name(r.Kind, r.Key)] = append([]byte{}, r.Value...) // the caller's slice is not kept
	}
	for _, r := range b.Del {
		delete(p.rows, name(r.Kind, r.Key))
	}
	for _, d := range b.Add {
		counter := name(projection.KindCount, d.Key)
		n, _ := strconv.ParseInt(string(p.rows[counter]), 10, 64) // absent is 0
		if p.rows[counter] = strconv.AppendInt(nil, n+d.N, 10); n+d.N == 0 {
			delete(p.rows, counter)
		}
	}
	p.at = b.New
}

func name(kind projection.Kind, key []byte) string { return string([]byte{byte(kind)}) + string(key) }

// URL implements projection.Store.
func (s *Store) URL() string { return "toy:" + s.dir }

// Acquire implements projection.Store.
func (s *Store) Acquire(ctx context.Context, n int32, epoch uint64) (projection.Partition, error) {
	return &handle{s: s, n: n}, s.do(ctx, n, func(p *partition) error {
		switch {
		case epoch < p.at.Epoch:
			return projection.ErrFenced
		case p.lost != nil:
			p.at.Epoch = epoch // who is told of the loss will drop it, and nobody before him
			return p.lost
		case epoch == p.at.Epoch:
			return nil
		}
		b := projection.Batch{New: p.at}
		b.New.Epoch = epoch
		return errors.Join(p.write(b), p.file.Sync())
	})
}

// View implements projection.Store.
func (s *Store) View(ctx context.Context, n int32) (projection.View, error) {
	return &handle{s: s, n: n}, s.do(ctx, n, func(*partition) error { return nil })
}

// Drop implements projection.Store. The epoch stays: it begins the new file.
func (s *Store) Drop(ctx context.Context, n int32, epoch uint64) error {
	return s.do(ctx, n, func(p *partition) error {
		if epoch < p.at.Epoch {
			return projection.ErrFenced
		}
		if err := p.file.Truncate(0); err != nil {
			return err
		}
		*p = partition{rows: map[string][]byte{}, file: p.file}
		return p.write(projection.Batch{New: projection.Watermark{Epoch: epoch}})
	})
}

// Partitions implements projection.Store.
func (s *Store) Partitions(ctx context.Context) (list []int32, err error) {
	for n := range s.id.Partitions {
		err = errors.Join(err, s.do(ctx, n, func(p *partition) error {
			if p.at.N > 0 || p.lost != nil {
				list = append(list, n)
			}
			return nil
		}))
	}
	return list, err
}

// Close implements projection.Store. Twice is fine.
func (s *Store) Close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		err = errors.Join(err, p.file.Close())
	}
	s.parts, s.closed = nil, true
	return err
}

// handle is a View and a Partition; what its methods do is said there.
type handle struct {
	s      *Store
	n      int32
	closed bool
}

// do calls f with the partition, unless it can't be used.
func (h *handle) do(ctx context.Context, f func(*partition) error) error {
	return h.s.do(ctx, h.n, func(p *partition) error {
		if h.closed {
			return projection.ErrClosed
		} else if p.lost != nil {
			return p.lost
		}
		return f(p)
	})
}

func (h *handle) Watermark(ctx context.Context) (w projection.Watermark, err error) {
	err = h.do(ctx, func(p *partition) error { w = p.at; return nil })
	return w, err
}

func (h *handle) Get(ctx context.Context, kind projection.Kind, keys [][]byte) (values [][]byte, at uint64, err error) {
	err = h.do(ctx, func(p *partition) error {
		values, at = make([][]byte, len(keys)), p.at.N
		for i, key := range keys {
			if v, ok := p.rows[name(kind, key)]; ok {
				values[i] = append([]byte{}, v...) // the caller's, and not nil when it is empty
			}
		}
		return nil
	})
	return values, at, err
}

func (h *handle) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) (rows []projection.Row, at uint64, err error) {
	if limit <= 0 {
		limit = 1000
	}
	err = h.do(ctx, func(p *partition) error {
		at = p.at.N
		for _, x := range slices.Sorted(maps.Keys(p.rows)) {
			if key := x[1:]; x[0] == byte(kind) && key >= string(from) && (to == nil || key < string(to)) && len(rows) < limit {
				rows = append(rows, projection.Row{Kind: kind, Key: []byte(key), Value: append([]byte{}, p.rows[x]...)})
			}
		}
		return nil
	})
	return rows, at, err
}

func (h *handle) Dump(ctx context.Context, f func(projection.Row) error) error {
	return h.do(ctx, func(p *partition) error {
		for _, x := range slices.Sorted(maps.Keys(p.rows)) {
			if err := f(projection.Row{Kind: projection.Kind(x[0]), Key: []byte(x[1:]), Value: p.rows[x]}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *handle) Apply(ctx context.Context, b projection.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	return h.do(ctx, func(p *partition) error {
		fits, err := b.Settles(p.at)
		if err == nil && fits {
			err = p.write(b)
		}
		return err
	})
}

func (h *handle) Flush(ctx context.Context) error {
	return h.do(ctx, func(p *partition) error { return p.file.Sync() })
}

func (h *handle) Close() error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.closed = true
	return nil
}
