package aerospike

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/godagger/dagger/projection"
)

// Dump implements projection.View. It reads the partition into memory before it calls f.
func (h *handle) Dump(ctx context.Context, f func(projection.Row) error) error {
	_, err := h.DumpAt(ctx, f)
	return err
}

// DumpAt implements projection.Dumper. Its owner goes on meanwhile. ErrMoves: batches come much
// faster than it reads.
func (h *handle) DumpAt(ctx context.Context, f func(projection.Row) error) (at projection.Watermark, err error) {
	err = h.begin(ctx)
	var rows *content
	if err == nil {
		rows, err = h.p.dump(ctx)
	}
	if err != nil {
		return at, h.fail("dump", err)
	}
	at = watermarkOf(rows.st)
	for _, kind := range slices.Sorted(maps.Keys(rows.kinds)) {
		for _, key := range slices.Sorted(maps.Keys(rows.kinds[kind])) {
			if err := ctx.Err(); err != nil {
				return at, h.fail("dump", err)
			}
			if err := f(projection.Row{Kind: kind, Key: []byte(key), Value: rows.kinds[kind][key].value}); err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// content is all rows of a partition, as far as they are read, at a state. It is read page after
// page while batches come, so that at first it is of no moment; then the redos of the batches that
// came are laid over it, in order.
type content struct {
	p       *part
	st      *state
	kinds   map[projection.Kind]map[string]cell
	missing map[int64]bool // pages that were not there
}

// cell is a row: what is stored of it, nil where it isn't read; and its value, nil until then.
type cell struct{ stored, value []byte }

// errBroken: the redos between two states are not there any more.
var errBroken = errors.New("redos are gone")

// dump reads a partition whole.
func (p *part) dump(ctx context.Context) (*content, error) {
	for patience := p.s.patience(); ; {
		c, err := p.dumpOnce(ctx, patience)
		if !errors.Is(err, errBroken) && !errors.Is(err, errMoved) {
			return c, err
		}
		if patience.over() {
			return nil, projection.ErrMoves
		}
	}
}

func (p *part) dumpOnce(ctx context.Context, patience patience) (*content, error) {
	st, err := p.load(ctx)
	if err != nil {
		return nil, err
	}
	c := &content{p: p, st: st, kinds: map[projection.Kind]map[string]cell{}, missing: map[int64]bool{}}
	if st.mark == nil {
		return c, nil
	}
	if st.mark.lost != "" {
		return nil, p.check(ctx, st) // errMoved is no way to a dump, and is tried again
	}
	if err := c.pages(ctx); err != nil {
		return nil, err
	}
	for settled := false; ; {
		read, err := c.rows(ctx)
		if err == nil && settled && read == 0 {
			if err = c.resolve(ctx); err == nil {
				cluster, err := p.s.clusterName(ctx)
				if err != nil {
					return nil, err
				}
				return c, c.st.mark.whole(cluster)
			}
		}
		if err != nil && !errors.Is(err, errMissing) {
			return nil, err
		}
		switch e := p.check(ctx, c.st); {
		case e == nil && err != nil:
			return nil, p.lose(ctx, c.st.mark, err.Error())
		case e == nil:
			settled = true
		case !errors.Is(e, errMoved):
			return nil, e
		case patience.over():
			return nil, projection.ErrMoves
		default:
			if err := c.follow(ctx); err != nil {
				return nil, err
			}
			settled = true
		}
	}
}

func (c *content) set(kind projection.Kind, key string, x cell) {
	if c.kinds[kind] == nil {
		c.kinds[kind] = map[string]cell{}
	}
	c.kinds[kind][key] = x
}

// pages reads the entries of all pages.
func (c *content) pages(ctx context.Context) error {
	for kind, pages := range c.st.directory.kinds {
		for part := range slices.Chunk(pages, pagesPerCall) {
			lists, err := c.p.entries(ctx, c.st, part, span{}, c.missing)
			if err != nil {
				return err
			}
			for _, list := range lists {
				for _, e := range list {
					x := cell{stored: e.value}
					if isRecord(kind) {
						x.stored = nil
					}
					c.set(kind, e.key, x)
				}
			}
		}
	}
	return nil
}

// rows reads record rows that are not read yet, and says how many. errMissing: one is not there,
// or a page.
func (c *content) rows(ctx context.Context) (read int, err error) {
	for _, pages := range c.st.directory.kinds {
		for _, x := range pages {
			if c.missing[x.id] {
				return 0, fmt.Errorf("%w: page %d", errMissing, x.id)
			}
		}
	}
	for kind, cells := range c.kinds {
		var unread []string
		for key, x := range cells {
			if x.stored == nil {
				unread = append(unread, key)
			}
		}
		for part := range slices.Chunk(unread, maxCall) {
			stored, err := c.p.rows(ctx, c.st, part)
			if err != nil {
				return read, err
			}
			for i, key := range part {
				if stored[i] == nil {
					return read, fmt.Errorf("%w: row %#x %.40q", errMissing, byte(kind), key)
				}
				cells[key] = cell{stored: stored[i]}
				read++
			}
		}
	}
	return read, nil
}

// resolve makes values of what is stored. A blob never changes: what is read of it is right,
// whenever it is. errMissing: one is gone.
func (c *content) resolve(ctx context.Context) error {
	for _, cells := range c.kinds {
		var keys []string
		for key, x := range cells {
			if x.value == nil {
				keys = append(keys, key)
			}
		}
		for part := range slices.Chunk(keys, maxCall) {
			stored := make([][]byte, len(part))
			for i, key := range part {
				stored[i] = cells[key].stored
			}
			values, err := c.p.values(ctx, c.st, stored)
			if err != nil {
				return err
			}
			for i, key := range part {
				cells[key] = cell{stored[i], values[i]}
			}
		}
	}
	return nil
}

// follow brings the content to the state that the partition is in now. errBroken: there is no
// way from one to the other.
func (c *content) follow(ctx context.Context) error {
	now, err := c.p.load(ctx)
	if err != nil {
		return err
	}
	if now.mark == nil || now.mark.inc != c.st.mark.inc {
		return errBroken
	}
	after := now.kept
	if now.mark.redo.id != 0 {
		after = append(slices.Clone(after), now.mark.redo)
	}
	i := slices.Index(after, c.st.mark.redo)
	if i < 0 { // too long ago, or before the first one
		return errBroken
	}
	after = after[i+1:]
	raws, err := c.p.s.readBlobs(ctx, c.p.space(now), after)
	if errors.Is(err, errMissing) {
		return errBroken
	}
	if err != nil {
		return err
	}
	for _, raw := range raws {
		r, err := decodeRedo(raw)
		if err != nil {
			return err
		}
		c.over(r)
	}
	c.st = now
	return nil
}

// over lays a redo over the content. What a page is cut off went to new pages, which are in the
// redo, but for what the same batch removes.
func (c *content) over(r *redo) {
	for i := range r.pages {
		x := &r.pages[i]
		for _, key := range x.del {
			delete(c.kinds[x.kind], key)
		}
		for _, e := range x.add {
			switch {
			case !isRecord(x.kind):
				c.set(x.kind, e.key, cell{stored: e.value})
			case c.kinds[x.kind] == nil || c.kinds[x.kind][e.key].stored == nil:
				c.set(x.kind, e.key, cell{})
			}
		}
	}
	for i := range r.rows {
		x := &r.rows[i]
		if _, has := c.kinds[projection.KindInstance][x.key]; has {
			c.kinds[projection.KindInstance][x.key] = cell{stored: x.value}
		}
	}
}
