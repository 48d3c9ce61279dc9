package embedlog

import (
	"bytes"
	"slices"
	"sync"
)

// kv is what the log needs of its storage: ordered keys, and batches that are applied as a
// whole or not at all. Its methods may be called concurrently.
type kv interface {
	// apply writes a batch as one; with sync it is durable when apply returns. After an
	// error the store takes no more writes.
	apply(ops []op, sync bool) error
	// get returns the value, or nil where there is none. The caller does not change it.
	get(key []byte) ([]byte, error)
	// scan calls f in key order for lower <= key < upper until it returns false. The
	// slices are valid during the call only.
	scan(lower, upper []byte, f func(key, value []byte) bool) error
	// last is the greatest pair with lower <= key < upper, or nil.
	last(lower, upper []byte) (key, value []byte, err error)
	close() error
}

type opKind byte

const (
	opSet opKind = iota
	opDelete
	opDeleteRange // key <= k < value
)

type op struct {
	kind       opKind
	key, value []byte
}

// memKV is kv in memory. Keys of one group (a kind of row, or the chunks of one partition)
// lie in one sorted slice, so that appending to a log appends to a slice. It has no
// goroutines and no clock, which Pebble has even on a file system in memory: that is why
// it exists (a bubble of testing/synctest could never rest).
type memKV struct {
	mu     sync.RWMutex
	groups map[string][]pair
}

type pair struct{ key, value []byte }

func newMemKV() *memKV { return &memKV{groups: map[string][]pair{}} }

// groupOf is the part of the key that all keys of a scan have in common.
func groupOf(key []byte) string {
	if key[0] == chunkRow {
		return string(key[:9])
	}
	return string(key[:1])
}

func (m *memKV) apply(ops []op, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range ops {
		g := groupOf(o.key)
		s := m.groups[g]
		i, found := find(s, o.key)
		switch {
		case o.kind == opDeleteRange:
			j, _ := find(s, o.value)
			m.groups[g] = slices.Delete(s, i, max(i, j))
		case o.kind == opDelete && found:
			m.groups[g] = slices.Delete(s, i, i+1)
		case o.kind == opDelete:
		case found:
			s[i].value = o.value
		case i == len(s):
			m.groups[g] = append(s, pair{o.key, o.value})
		default:
			m.groups[g] = slices.Insert(s, i, pair{o.key, o.value})
		}
	}
	return nil
}

func (m *memKV) get(key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.groups[groupOf(key)]
	if i, found := find(s, key); found {
		return s[i].value, nil
	}
	return nil, nil
}

func (m *memKV) scan(lower, upper []byte, f func(key, value []byte) bool) error {
	for {
		// One page at a time, so that f runs without the lock.
		var page [16]pair
		m.mu.RLock()
		s := m.groups[groupOf(lower)]
		i, _ := find(s, lower)
		n := copy(page[:], s[i:])
		m.mu.RUnlock()
		for _, p := range page[:n] {
			if bytes.Compare(p.key, upper) >= 0 || !f(p.key, p.value) {
				return nil
			}
		}
		if n < len(page) {
			return nil
		}
		lower = append(slices.Clone(page[n-1].key), 0)
	}
}

func (m *memKV) last(lower, upper []byte) (key, value []byte, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.groups[groupOf(lower)]
	i, _ := find(s, upper)
	if i == 0 || bytes.Compare(s[i-1].key, lower) < 0 {
		return nil, nil, nil
	}
	return s[i-1].key, s[i-1].value, nil
}

func (m *memKV) close() error { return nil }

func find(s []pair, key []byte) (int, bool) {
	if n := len(s); n > 0 && bytes.Compare(s[n-1].key, key) < 0 {
		return n, false
	}
	return slices.BinarySearchFunc(s, key, func(p pair, k []byte) int { return bytes.Compare(p.key, k) })
}
