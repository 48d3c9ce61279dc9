package aerospike

import (
	"context"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// entries reads the entries of pages with keys of a span, as they are in a state. A page that
// isn't there is noted in missing, or errMissing when that is nil.
func (p *part) entries(ctx context.Context, st *state, pages []page, within span, missing map[int64]bool) ([][]entry, error) {
	at := p.space(st)
	lists := make([][]entry, len(pages))
	var reads []read
	var which []int
	for i, x := range pages {
		if c := st.change(x.id); c != nil && c.new {
			lists[i] = c.over(nil)
			continue
		}
		r := read{key: at.page(x.id), span: &within}
		reads, which = append(reads, r), append(which, i)
	}
	records, err := p.s.readAll(ctx, reads, pagesPerCall)
	if err != nil {
		return nil, err
	}
	for j, r := range records {
		i := which[j]
		if r == nil {
			if missing == nil {
				return nil, fmt.Errorf("%w: page %d", errMissing, pages[i].id)
			}
			missing[pages[i].id] = true
			continue
		}
		if lists[i] = r.entries; st.change(pages[i].id) != nil {
			lists[i] = st.change(pages[i].id).over(r.entries)
		}
	}
	for i := range lists { // what was laid over may lie outside
		if c := st.change(pages[i].id); c != nil {
			kept := lists[i][:0]
			for _, e := range lists[i] {
				if within.has(e.key) {
					kept = append(kept, e)
				}
			}
			lists[i] = kept
		}
	}
	return lists, nil
}

// pagesPerCall is how many pages are read in one call.
const pagesPerCall = 256

// change is what is pending of a page.
func (st *state) change(page int64) *pageChange {
	if st.pending == nil {
		return nil
	}
	return st.pending.byPage[page]
}

// find reads entries by key: the stored value, nil where there is none.
func (p *part) find(ctx context.Context, st *state, kind projection.Kind, keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	pages := st.directory.kinds[kind]
	if len(pages) == 0 {
		return values, nil
	}
	at := p.space(st)
	byPage := map[int64][]int{}
	var order []int64
	for i, key := range keys {
		id := pages[find(pages, key)].id
		if byPage[id] == nil {
			order = append(order, id)
		}
		byPage[id] = append(byPage[id], i)
	}
	var reads []read
	for _, id := range order {
		r := read{key: at.page(id)}
		for _, i := range byPage[id] {
			r.keys = append(r.keys, keys[i])
		}
		if c := st.change(id); c == nil || !c.new {
			reads = append(reads, r)
		}
	}
	records, err := p.s.readAll(ctx, reads, pagesPerCall)
	if err != nil {
		return nil, err
	}
	for _, id := range order {
		var entries []entry
		c := st.change(id)
		if c == nil || !c.new {
			if records[0] == nil {
				return nil, fmt.Errorf("%w: page %d", errMissing, id)
			}
			entries, records = records[0].entries, records[1:]
		}
		if c != nil {
			entries = c.over(entries)
		}
		found := make(map[string][]byte, len(entries))
		for _, e := range entries {
			found[e.key] = e.value
		}
		for _, i := range byPage[id] {
			values[i] = found[keys[i]]
		}
	}
	return values, nil
}

// rows reads record rows: the stored value, nil where there is none or a marker.
func (p *part) rows(ctx context.Context, st *state, keys []string) ([][]byte, error) {
	at := p.space(st)
	values := make([][]byte, len(keys))
	var reads []read
	var which []int
	for i, key := range keys {
		if st.pending != nil && st.pending.byRow[key] != nil {
			values[i] = st.pending.byRow[key].value
			continue
		}
		reads, which = append(reads, read{key: at.row(key), bins: []string{binValue}}), append(which, i)
	}
	records, err := p.s.readAll(ctx, reads, maxCall)
	if err != nil {
		return nil, err
	}
	for j, r := range records {
		if r != nil {
			values[which[j]] = r.bytes(binValue)
		}
	}
	for i, v := range values {
		if len(v) == 1 && v[0] == gone {
			values[i] = nil
		}
	}
	return values, nil
}

// values turns stored values into those of rows; nil stays nil.
func (p *part) values(ctx context.Context, st *state, stored [][]byte) ([][]byte, error) {
	out := make([][]byte, len(stored))
	var blobs []blob
	var which []int
	for i, v := range stored {
		if v == nil {
			continue
		}
		if b, ok := blobOf(v); ok {
			blobs, which = append(blobs, b), append(which, i)
			continue
		}
		value, err := decode(v)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMissing, err)
		}
		out[i] = value
	}
	if len(blobs) == 0 {
		return out, nil
	}
	contents, err := p.s.readBlobs(ctx, p.space(st), blobs)
	if err != nil {
		return nil, err
	}
	for j, i := range which {
		if out[i], err = decode(contents[j]); err != nil {
			return nil, fmt.Errorf("%w: %w", errMissing, err)
		}
	}
	return out, nil
}
