package aerospike

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/projection"
)

// touched is a page and the changes of its entries.
type touched struct {
	kind projection.Kind
	page page
	add  []entry
	del  []string

	read    bool
	entries []entry // as they are afterwards, when read
	most    int
	blobs   bool
}

// arrange finds the page of each entry, reads those that may become too large, and divides them.
func (l *planner) arrange(ctx context.Context) error {
	var all []*touched
	for _, kind := range slices.Sorted(maps.Keys(l.entries)) {
		all = append(all, l.touch(kind)...)
	}
	var pages []page
	var which []*touched
	for _, t := range all {
		if t.page.id != 0 && t.read {
			pages, which = append(pages, t.page), append(which, t)
		}
	}
	contents, err := l.p.entries(ctx, l.st, pages, span{}, nil)
	if err != nil {
		return err
	}
	for i, t := range which {
		change := pageChange{del: t.del, add: t.add}
		for _, e := range contents[i] {
			_, long := blobOf(e.value)
			t.blobs = t.blobs || long
		}
		t.entries = change.over(contents[i])
		t.most = bytesOf(t.entries)
	}
	d := l.st.directory
	next := &directory{next: d.next, kinds: maps.Clone(d.kinds)}
	if next.kinds == nil {
		next.kinds = map[projection.Kind][]page{}
	}
	divided := false
	for _, t := range all {
		divided = l.write(next, t) || divided
	}
	if l.forget(next, divided) || divided {
		l.plan.directory = next
	}
	return nil
}

// touch divides the changes of a kind among its pages.
func (l *planner) touch(kind projection.Kind) []*touched {
	pages := l.st.directory.kinds[kind]
	var list []*touched
	for _, key := range slices.Sorted(maps.Keys(l.entries[kind])) {
		x := page{}
		if len(pages) > 0 {
			x = pages[find(pages, key)]
		}
		if len(list) == 0 || list[len(list)-1].page != x {
			list = append(list, &touched{kind: kind, page: x})
		}
		t := list[len(list)-1]
		value := l.entries[kind][key]
		if value == nil {
			t.del = append(t.del, key)
			continue
		}
		t.add = append(t.add, entry{key, value})
		_, long := blobOf(value)
		t.blobs = t.blobs || long
	}
	for _, t := range list {
		info, known := l.p.writer.pages[t.page.id]
		t.most = info.most + bytesOf(t.add)
		t.blobs = t.blobs || info.blobs
		if t.read = !known || t.most > pageSize; t.page.id == 0 {
			t.entries, t.read, t.most = t.add, true, bytesOf(t.add)
		}
	}
	return list
}

// write makes the change of a page, and new pages when it is too large. It says whether there
// are new ones.
func (l *planner) write(d *directory, t *touched) (divided bool) {
	if t.page.id == 0 && len(t.add) == 0 {
		return false // deletions of what was never there
	}
	whole := !t.read || t.most <= pageSize*3/4 || len(t.entries) < 2
	if t.page.id != 0 && whole {
		l.change(pageChange{id: t.page.id, del: t.del, add: t.add}, t, t.most)
		return false
	}
	parts := divide(t.entries, pageSize/2)
	var fresh []page
	for i, part := range parts {
		if i == 0 && t.page.id != 0 {
			c := pageChange{id: t.page.id, del: t.del} // also those that are cut off: see content.over
			if len(parts) > 1 {
				cut := separator(part[len(part)-1].key, parts[1][0].key)
				c.cut = &cut
			}
			for _, e := range t.add {
				if c.cut == nil || e.key < *c.cut {
					c.add = append(c.add, e)
				}
			}
			l.change(c, t, bytesOf(part))
			continue
		}
		x := page{low: t.page.low, id: d.next}
		if i > 0 {
			x.low = separator(parts[i-1][len(parts[i-1])-1].key, part[0].key)
		}
		d.next++
		fresh = append(fresh, x)
		l.change(pageChange{id: x.id, new: true, add: part}, t, bytesOf(part))
	}
	if len(fresh) == 0 {
		return false
	}
	pages := d.kinds[t.kind]
	at := 0
	if len(pages) > 0 {
		at = find(pages, fresh[0].low) + 1
	}
	d.kinds[t.kind] = slices.Insert(slices.Clone(pages), at, fresh...)
	return true
}

func (l *planner) change(c pageChange, t *touched, most int) {
	c.kind = t.kind
	l.plan.redo.pages = append(l.plan.redo.pages, c)
	l.plan.pages[c.id] = pageInfo{kind: t.kind, most: most, blobs: t.blobs}
}

// forget takes empty pages out of a directory that is written anyway, or when they are many. It
// says whether it took any.
func (l *planner) forget(d *directory, anyway bool) bool {
	empty := map[projection.Kind]map[int64]bool{}
	n := 0
	for id, info := range l.p.writer.pages {
		if _, used := l.plan.pages[id]; info.empty && !used {
			if empty[info.kind] == nil {
				empty[info.kind] = map[int64]bool{}
			}
			empty[info.kind][id] = true
			n++
		}
	}
	if n == 0 || !anyway && n < manyEmpty {
		return false
	}
	for kind, ids := range empty {
		var kept []page
		for _, x := range d.kinds[kind] {
			if ids[x.id] {
				l.plan.dropped = append(l.plan.dropped, x.id)
				continue
			}
			if len(kept) == 0 {
				x.low = ""
			}
			kept = append(kept, x)
		}
		d.kinds[kind] = kept
	}
	return true
}

func bytesOf(entries []entry) int {
	n := 0
	for _, e := range entries {
		n += len(e.key) + len(e.value) + entryCost
	}
	return n
}

// divide makes parts of at most so many bytes, or of one entry.
func divide(entries []entry, most int) (parts [][]entry) {
	from, n := 0, 0
	for i := range entries {
		size := bytesOf(entries[i : i+1])
		if i > from && n+size > most {
			parts = append(parts, entries[from:i:i])
			from, n = i, 0
		}
		n += size
	}
	return append(parts, entries[from:])
}

// separator is the shortest key that is above low and not above high.
func separator(low, high string) string {
	for i := range len(high) {
		if i >= len(low) || low[i] != high[i] {
			return strings.Clone(high[:i+1])
		}
	}
	return high
}
