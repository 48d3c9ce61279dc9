package aerospike

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/projection"
)

// handle is a View and a Partition.
type handle struct {
	p      *part
	closed atomic.Bool
}

const defaultLimit = 1000

func (h *handle) begin(ctx context.Context) error {
	if h.closed.Load() {
		return projection.ErrClosed
	}
	return h.p.s.begin(ctx, h.p.n)
}

func (h *handle) fail(what string, err error) error {
	return fmt.Errorf("%s partition %d: %w", what, h.p.n, err)
}

// patience ends reading again and again what moves.
type patience struct{ end time.Time }

const maxPatience = 10 * time.Second

func (s *Store) patience() patience { return patience{time.Now().Add(maxPatience)} }
func (p patience) over() bool       { return time.Now().After(p.end) }

// watermarkOf is where a state stands.
func watermarkOf(st *state) (w projection.Watermark) {
	if st.mark != nil {
		w = st.mark.at
	}
	return w
}

// Watermark implements projection.View.
func (h *handle) Watermark(ctx context.Context) (projection.Watermark, error) {
	err := h.begin(ctx)
	var st *state
	if err == nil {
		st, err = h.p.view(ctx, func(*state) error { return nil })
	}
	if err != nil {
		return projection.Watermark{}, h.fail("read watermark of", err)
	}
	return watermarkOf(st), nil
}

// Get implements projection.View.
func (h *handle) Get(ctx context.Context, kind projection.Kind, keys [][]byte) (values [][]byte, at uint64, err error) {
	if err = h.begin(ctx); err == nil {
		names := make([]string, len(keys))
		for i, key := range keys {
			names[i] = string(key)
		}
		var st *state
		st, err = h.p.view(ctx, func(st *state) error {
			stored, err := h.p.get(ctx, st, kind, names)
			if err == nil {
				values, err = h.p.values(ctx, st, stored)
			}
			return err
		})
		if err == nil && st.mark == nil {
			values = make([][]byte, len(keys))
		}
		if err == nil {
			return values, watermarkOf(st).N, nil
		}
	}
	return nil, 0, h.fail("get rows of", err)
}

// get reads stored values by key; nil where there is no row.
func (p *part) get(ctx context.Context, st *state, kind projection.Kind, keys []string) ([][]byte, error) {
	if !isRecord(kind) {
		return p.find(ctx, st, kind, keys)
	}
	values, err := p.rows(ctx, st, keys)
	if err != nil {
		return nil, err
	}
	// That a record isn't there is believed only when the index doesn't have it either.
	var absent []string
	for i, v := range values {
		if v == nil {
			absent = append(absent, keys[i])
		}
	}
	if len(absent) == 0 {
		return values, nil
	}
	indexed, err := p.find(ctx, st, kind, absent)
	if err != nil {
		return nil, err
	}
	for i, v := range indexed {
		if v != nil {
			return nil, fmt.Errorf("%w: row %#x %.40q", errMissing, byte(kind), absent[i])
		}
	}
	return values, nil
}

// Scan implements projection.View.
func (h *handle) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) (rows []projection.Row, at uint64, err error) {
	if limit <= 0 {
		limit = defaultLimit
	}
	if err = h.begin(ctx); err == nil {
		within := span{from: string(from)}
		if to != nil {
			end := string(to)
			within.to = &end
		}
		var st *state
		st, err = h.p.view(ctx, func(st *state) (err error) {
			rows, err = h.p.scan(ctx, st, kind, within, limit)
			return err
		})
		if err == nil {
			return rows, watermarkOf(st).N, nil
		}
	}
	return nil, 0, h.fail("scan rows of", err)
}

// scan reads rows in order, from page to page, as many pages at a time as it takes.
func (p *part) scan(ctx context.Context, st *state, kind projection.Kind, within span, limit int) (rows []projection.Row, err error) {
	pages := st.directory.covering(kind, within)
	for n := 1; len(pages) > 0 && len(rows) < limit; n = min(4*n, pagesPerCall) {
		now := pages[:min(n, len(pages))]
		pages = pages[len(now):]
		lists, err := p.entries(ctx, st, now, within, nil)
		if err != nil {
			return nil, err
		}
		var entries []entry
		for _, list := range lists {
			entries = append(entries, list...)
		}
		entries = entries[:min(len(entries), limit-len(rows))]
		more, err := p.rowsOf(ctx, st, kind, entries)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// rowsOf makes rows of the entries of a kind.
func (p *part) rowsOf(ctx context.Context, st *state, kind projection.Kind, entries []entry) ([]projection.Row, error) {
	stored := make([][]byte, len(entries))
	if isRecord(kind) {
		keys := make([]string, len(entries))
		for i, e := range entries {
			keys[i] = e.key
		}
		var err error
		if stored, err = p.rows(ctx, st, keys); err != nil {
			return nil, err
		}
	} else {
		for i, e := range entries {
			stored[i] = e.value
		}
	}
	values, err := p.values(ctx, st, stored)
	if err != nil {
		return nil, err
	}
	rows := make([]projection.Row, len(entries))
	for i, e := range entries {
		if values[i] == nil {
			return nil, fmt.Errorf("%w: row %#x %.40q", errMissing, byte(kind), e.key)
		}
		rows[i] = projection.Row{Kind: kind, Key: []byte(e.key), Value: values[i]}
	}
	return rows, nil
}

// Flush implements projection.Partition: what was applied is in the server, which a crash of
// this process doesn't touch.
func (h *handle) Flush(ctx context.Context) error {
	if err := h.begin(ctx); err != nil {
		return h.fail("flush", err)
	}
	return nil
}

// Close implements projection.View. Twice is fine.
func (h *handle) Close() error {
	h.closed.Store(true)
	return nil
}
