package aerospike

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/godagger/dagger/projection"
)

// redo is what a batch changes, page by page and row by row. It is written before the mark
// names it, and made after that, by its writer or by whoever comes to the partition next; until
// then readers lay it over what they read. Making it twice is making it once: each page and row
// has the number of the event with which it was written last, and refuses an older one.
type redo struct {
	n     int64
	kept  []blob // the redos before it that are kept for a while, the newest last
	pages []pageChange
	rows  []rowChange

	byPage map[int64]*pageChange
	byRow  map[string]*rowChange
}

// pageChange is a change of one page, in the order of its fields.
type pageChange struct {
	id   int64
	kind projection.Kind
	new  bool
	del  []string
	cut  *string
	add  []entry
}

// rowChange is the new value of a record row as it is stored; that it was deleted is a value
// too.
type rowChange struct {
	key   string
	value []byte
}

// index makes byPage and byRow.
func (r *redo) index() *redo {
	r.byPage, r.byRow = make(map[int64]*pageChange, len(r.pages)), make(map[string]*rowChange, len(r.rows))
	for i := range r.pages {
		r.byPage[r.pages[i].id] = &r.pages[i]
	}
	for i := range r.rows {
		r.byRow[r.rows[i].key] = &r.rows[i]
	}
	return r
}

const (
	redoFormat = 1

	pageIsNew = 1
	pageIsCut = 2
)

func (r *redo) encode() []byte {
	raw := binary.AppendUvarint([]byte{redoFormat}, uint64(r.n))
	raw = binary.AppendUvarint(raw, uint64(len(r.kept)))
	for _, b := range r.kept {
		raw = binary.AppendUvarint(raw, uint64(b.id))
		raw = binary.AppendUvarint(raw, uint64(b.size))
	}
	raw = binary.AppendUvarint(raw, uint64(len(r.pages)))
	for i := range r.pages {
		p := &r.pages[i]
		raw = binary.AppendUvarint(raw, uint64(p.id))
		flags := byte(0)
		if p.new {
			flags |= pageIsNew
		}
		if p.cut != nil {
			flags |= pageIsCut
		}
		if raw = append(raw, byte(p.kind), flags); p.cut != nil {
			raw = appendText(raw, *p.cut)
		}
		raw = binary.AppendUvarint(raw, uint64(len(p.del)))
		for _, key := range p.del {
			raw = appendText(raw, key)
		}
		raw = binary.AppendUvarint(raw, uint64(len(p.add)))
		for _, e := range p.add {
			raw = appendText(appendText(raw, e.key), e.value)
		}
	}
	raw = binary.AppendUvarint(raw, uint64(len(r.rows)))
	for i := range r.rows {
		raw = appendText(appendText(raw, r.rows[i].key), r.rows[i].value)
	}
	return raw
}

func decodeRedo(raw []byte) (*redo, error) {
	b := reader{rest: raw}
	if b.byte() != redoFormat {
		return nil, errFormat
	}
	r := &redo{n: int64(b.number())}
	for n := b.number(); n > 0 && !b.failed; n-- {
		r.kept = append(r.kept, blob{int64(b.number()), int(b.number())})
	}
	for n := b.number(); n > 0 && !b.failed; n-- {
		p := pageChange{id: int64(b.number()), kind: projection.Kind(b.byte())}
		flags := b.byte()
		p.new = flags&pageIsNew != 0
		if flags&pageIsCut != 0 {
			cut := b.text()
			p.cut = &cut
		}
		for k := b.number(); k > 0 && !b.failed; k-- {
			p.del = append(p.del, b.text())
		}
		for k := b.number(); k > 0 && !b.failed; k-- {
			p.add = append(p.add, entry{b.text(), b.raw()})
		}
		r.pages = append(r.pages, p)
	}
	for n := b.number(); n > 0 && !b.failed; n-- {
		r.rows = append(r.rows, rowChange{b.text(), b.raw()})
	}
	if b.failed || len(b.rest) > 0 {
		return nil, errFormat
	}
	return r.index(), nil
}

// over lays a change of a page over its entries, which may or may not have it already.
func (p *pageChange) over(entries []entry) []entry {
	if p.new {
		entries = nil
	}
	drop := make(map[string]bool, len(p.del)+len(p.add))
	for _, key := range p.del {
		drop[key] = true
	}
	for _, e := range p.add {
		drop[e.key] = true
	}
	out := make([]entry, 0, len(entries)+len(p.add))
	for _, e := range entries {
		if !drop[e.key] && (p.cut == nil || e.key < *p.cut) {
			out = append(out, e)
		}
	}
	out = append(out, p.add...)
	slices.SortFunc(out, byKey)
	return out
}

func byKey(a, b entry) int { return strings.Compare(a.key, b.key) }

// changes are those of the pages and rows, in this order.
func (r *redo) changes(at space, old func(page int64) bool, blob func(row string) bool) []change {
	list := make([]change, 0, len(r.pages)+len(r.rows))
	bins := at.bins(bin{binN, r.n})
	for i := range r.pages {
		p := &r.pages[i]
		c := change{key: at.page(p.id), mode: update, older: r.n, put: bins, cut: p.cut, del: p.del, add: p.add}
		if p.new {
			c.mode = create
		} else {
			c.wantOld = old(p.id)
		}
		list = append(list, c)
	}
	for i := range r.rows {
		x := &r.rows[i]
		c := change{key: at.row(x.key), older: r.n, wantBlob: blob(x.key), put: append(slices.Clone(bins), bin{binValue, x.value})}
		if _, long := blobOf(x.value); long {
			c.put = append(c.put, bin{binBlob, x.value}) // it stays when the value is short again: to remove a blob twice is no harm
		}
		if len(x.value) == 1 && x.value[0] == gone {
			c.mode = update // one that never was needs no marker
		}
		list = append(list, c)
	}
	return list
}
