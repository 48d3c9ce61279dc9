package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/godagger/dagger/projection"
)

// handle is a View and a Partition. It looks its partition up at every call.
type handle struct {
	s      *Store
	p      int32
	closed atomic.Bool
}

// defaultLimit is what a Scan without limit returns at most.
const defaultLimit = 1000

// read returns the partition for reading (nil: nothing is there), or why it can't be read.
// The caller holds the store's mu.
func (h *handle) read(ctx context.Context) (*partition, error) {
	if h.closed.Load() {
		return nil, projection.ErrClosed
	}
	if err := h.s.check(ctx, h.p); err != nil {
		return nil, err
	}
	return h.s.parts[h.p], nil
}

// Watermark implements projection.View.
func (h *handle) Watermark(ctx context.Context) (projection.Watermark, error) {
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	part, err := h.read(ctx)
	if err != nil {
		return projection.Watermark{}, fmt.Errorf("read watermark of partition %d: %w", h.p, err)
	}
	if part == nil {
		return projection.Watermark{}, nil
	}
	return part.watermark, nil
}

// Get implements projection.View.
func (h *handle) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	if err := h.s.takeFailure(); err != nil {
		return nil, 0, fmt.Errorf("get rows of partition %d: %w", h.p, err)
	}
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	part, err := h.read(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("get rows of partition %d: %w", h.p, err)
	}
	values := make([][]byte, len(keys))
	if part == nil {
		return values, 0, nil
	}
	if rows := part.kinds[kind]; rows != nil {
		for i, key := range keys {
			if v, found := rows.get(string(key)); found {
				values[i] = clone(v)
			}
		}
	}
	return values, part.watermark.N, nil
}

// Scan implements projection.View.
func (h *handle) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	if err := h.s.takeFailure(); err != nil {
		return nil, 0, fmt.Errorf("scan rows of partition %d: %w", h.p, err)
	}
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	part, err := h.read(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("scan rows of partition %d: %w", h.p, err)
	}
	if part == nil {
		return nil, 0, nil
	}
	if limit <= 0 {
		limit = defaultLimit
	}
	var rows []projection.Row
	if o := part.kinds[kind]; o != nil {
		o.each(string(from), func(e entry) bool {
			if len(rows) == limit || !inRange(e.key, to) {
				return false
			}
			rows = append(rows, projection.Row{Kind: kind, Key: []byte(e.key), Value: clone(e.value)})
			return true
		})
	}
	return rows, part.watermark.N, nil
}

// Dump implements projection.View. It copies first, so that f may take its time and use the
// store.
func (h *handle) Dump(ctx context.Context, f func(projection.Row) error) error {
	_, err := h.DumpAt(ctx, f)
	return err
}

// DumpAt implements projection.Dumper.
func (h *handle) DumpAt(ctx context.Context, f func(projection.Row) error) (projection.Watermark, error) {
	rows, at, err := h.copyRows(ctx)
	if err != nil {
		return at, fmt.Errorf("dump partition %d: %w", h.p, err)
	}
	for _, r := range rows {
		if err := ctx.Err(); err != nil {
			return at, fmt.Errorf("dump partition %d: %w", h.p, err)
		}
		if err := f(r); err != nil {
			return at, err
		}
	}
	return at, nil
}

func (h *handle) copyRows(ctx context.Context) (rows []projection.Row, at projection.Watermark, err error) {
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	part, err := h.read(ctx)
	if err != nil || part == nil {
		return nil, at, err
	}
	for _, kind := range slices.Sorted(maps.Keys(part.kinds)) {
		part.kinds[kind].each("", func(e entry) bool {
			rows = append(rows, projection.Row{Kind: kind, Key: []byte(e.key), Value: clone(e.value)})
			return true
		})
	}
	return rows, part.watermark, nil
}

// Apply implements projection.Partition.
func (h *handle) Apply(ctx context.Context, b projection.Batch) error {
	if err := h.s.takeFailure(); err != nil {
		return fmt.Errorf("apply to partition %d: %w", h.p, err)
	}
	if err := h.apply(ctx, b); err != nil {
		return fmt.Errorf("apply to partition %d: %w", h.p, err)
	}
	return nil
}

func (h *handle) apply(ctx context.Context, b projection.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	part, err := h.read(ctx)
	if err != nil {
		return err
	}
	fits, err := b.Settles(part.watermark)
	if err != nil || !fits {
		return err
	}
	back, err := part.apply(b)
	if err != nil {
		return err
	}
	if h.s.history > 0 {
		if part.undo = append(part.undo, back); len(part.undo) > h.s.history {
			part.undo = slices.Delete(part.undo, 0, len(part.undo)-h.s.history)
		}
	}
	if h.s.loseReply {
		h.s.loseReply = false
		return ErrReplyLost
	}
	return nil
}

// Flush implements projection.Partition; there is nothing to do.
func (h *handle) Flush(ctx context.Context) error {
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	if _, err := h.read(ctx); err != nil {
		return fmt.Errorf("flush partition %d: %w", h.p, err)
	}
	return nil
}

// Close implements projection.View. Twice is fine.
func (h *handle) Close() error {
	h.closed.Store(true)
	return nil
}
