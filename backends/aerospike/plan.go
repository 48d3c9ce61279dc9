package aerospike

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/projection"
)

const (
	// pageSize is how large a page may become, as far as its writer knows, before it is read and
	// divided. The server writes a page anew with each change, so small ones are better; the
	// directory, which is written with each division, wants large ones.
	pageSize = 16 << 10
	// entryCost is about what an entry takes beside its key and value.
	entryCost = 8
	// manyEmpty is how many empty pages are worth a directory without them.
	manyEmpty = 16
	// keptRedos and keptBytes are how many redos, and how much of them, stay for those who read the
	// partition whole meanwhile; see part.dump.
	keptRedos = 64
	keptBytes = 32 << 20
	// knownRows is how many record rows the writer remembers to be in the index.
	knownRows = 16_000
)

// writer is what the process that changes a partition knows of it, as long as nobody else
// changes it.
type writer struct {
	token    int64              // of the state for which this holds
	pages    map[int64]pageInfo // of those it has read or written
	known    map[string]bool    // record rows that are in the index: their values are in blobs
	counters map[string]int64   // those it has read or written
	garbage  []change           // removals of what nobody reads any more
}

// pageInfo is what the writer knows of a page.
type pageInfo struct {
	kind  projection.Kind
	most  int  // bytes, at most
	blobs bool // values may be in blobs
	empty bool
}

// trust forgets everything unless nobody has changed the partition since.
func (w *writer) trust(token int64) {
	if w.token != token {
		*w = writer{token: token, pages: map[int64]pageInfo{}, known: map[string]bool{}, counters: map[string]int64{}}
	}
}

// plan is how a batch is written.
type plan struct {
	redo      *redo
	directory *directory // a new one; nil when it is as it was
	blobs     []change   // long values
	dropped   []int64    // pages that are no longer in the directory

	pages    map[int64]pageInfo
	known    map[string]rowState
	counters map[string]int64
}

// rowState is what becomes of a record row.
type rowState int

const (
	rowShort rowState = iota
	rowLong           // its value is in a blob
	rowGone
)

// planner makes a plan.
type planner struct {
	p    *part
	st   *state
	plan plan
	// entries are the changes of entries, by kind: nil deletes.
	entries map[projection.Kind]map[string][]byte
}

// newPlan makes the plan of a batch for a state that has nothing pending.
func (p *part) newPlan(ctx context.Context, st *state, b *projection.Batch) (*plan, error) {
	l := planner{p: p, st: st, entries: map[projection.Kind]map[string][]byte{}}
	l.plan = plan{redo: &redo{n: int64(b.New.N)}, pages: map[int64]pageInfo{}, known: map[string]rowState{}}
	if err := l.rows(b); err != nil {
		return nil, err
	}
	if err := l.count(ctx, b.Add); err != nil {
		return nil, err
	}
	if err := l.arrange(ctx); err != nil {
		return nil, err
	}
	l.plan.redo.index()
	return &l.plan, nil
}

func (l *planner) entry(kind projection.Kind, key string, stored []byte) {
	if l.entries[kind] == nil {
		l.entries[kind] = map[string][]byte{}
	}
	l.entries[kind][key] = stored
}

// rows takes rows of a batch apart: records, entries, and blobs for what is long.
func (l *planner) rows(b *projection.Batch) error {
	for i := range b.Put {
		r := &b.Put[i]
		if err := l.p.s.fits(r); err != nil {
			return err
		}
		key, stored, most := string(r.Key), encode(r.Kind, r.Value), maxEntry
		if isRecord(r.Kind) {
			most = l.p.s.pieceSize / 2
		}
		row := rowShort
		if len(stored) > most {
			content, changes := l.p.s.newBlob(l.p.space(l.st), stored)
			l.plan.blobs = append(l.plan.blobs, changes...)
			stored, row = reference(content), rowLong
		}
		if !isRecord(r.Kind) {
			l.entry(r.Kind, key, stored)
			continue
		}
		l.plan.redo.rows = append(l.plan.redo.rows, rowChange{key, stored})
		if _, known := l.p.writer.known[key]; !known {
			l.entry(r.Kind, key, []byte{})
		}
		l.plan.known[key] = row
	}
	for i := range b.Del {
		key := string(b.Del[i].Key)
		l.entry(b.Del[i].Kind, key, nil)
		if isRecord(b.Del[i].Kind) {
			l.plan.redo.rows = append(l.plan.redo.rows, rowChange{key, []byte{gone}})
			l.plan.known[key] = rowGone
		}
	}
	return nil
}

// fits refuses a row that is too large, before anything is written.
func (s *Store) fits(r *projection.Row) error {
	switch {
	case len(r.Value) > maxValue:
		return fmt.Errorf("%w: the value of row %#x %.40q has %d bytes, %d are allowed", projection.ErrTooLarge, byte(r.Kind), r.Key, len(r.Value), maxValue)
	case len(r.Key) > s.maxKey():
		return fmt.Errorf("%w: the key of row %#x %.40q has %d bytes, %d are allowed with a max-record-size of %d",
			projection.ErrTooLarge, byte(r.Kind), r.Key, len(r.Key), s.maxKey(), s.recordSize)
	}
	return nil
}

// count turns changes of counters into entries.
func (l *planner) count(ctx context.Context, deltas []projection.Delta) error {
	sums := map[string]int64{}
	for _, d := range deltas {
		sums[string(d.Key)] += d.N
	}
	maps.DeleteFunc(sums, func(_ string, n int64) bool { return n == 0 })
	l.plan.counters = sums
	var unknown []string
	for key := range sums {
		if _, known := l.p.writer.counters[key]; !known {
			unknown = append(unknown, key)
		}
	}
	stored, err := l.p.find(ctx, l.st, projection.KindCount, unknown)
	if err != nil {
		return err
	}
	for i, key := range unknown {
		n := int64(0)
		if stored[i] != nil {
			value, err := decode(stored[i])
			if err == nil {
				n, err = strconv.ParseInt(string(value), 10, 64)
			}
			if err != nil {
				return fmt.Errorf("%w: counter %q: %w", errMissing, key, err)
			}
		}
		l.p.writer.counters[key] = n
	}
	for key, n := range sums {
		if len(key) > l.p.s.maxKey() {
			return fmt.Errorf("%w: the name of a counter has %d bytes", projection.ErrTooLarge, len(key))
		}
		n += l.p.writer.counters[key]
		if sums[key] = n; n == 0 {
			l.entry(projection.KindCount, key, nil)
		} else {
			l.entry(projection.KindCount, key, encode(projection.KindCount, strconv.AppendInt(nil, n, 10)))
		}
	}
	return nil
}

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
			c := pageChange{id: t.page.id}
			if len(parts) > 1 {
				cut := separator(part[len(part)-1].key, parts[1][0].key)
				c.cut = &cut
			}
			for _, key := range t.del {
				if c.cut == nil || key < *c.cut {
					c.del = append(c.del, key)
				}
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
