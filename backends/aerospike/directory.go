package aerospike

import (
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"github.com/godagger/dagger/projection"
)

// directory says in which page a key is. It never changes; who changes pages makes a new one.
type directory struct {
	next  int64 // the id of the next new page: none is used twice in an incarnation
	kinds map[projection.Kind][]page
}

// page holds the entries from low up to the next page's low. The first page of a kind begins at
// "".
type page struct {
	low string
	id  int64
}

var emptyDirectory = &directory{next: 1}

// find is the index of the page of a key in pages, which are not none.
func find(pages []page, key string) int {
	return sort.Search(len(pages), func(i int) bool { return pages[i].low > key }) - 1
}

// covering are the pages with keys of a span.
func (d *directory) covering(kind projection.Kind, s span) []page {
	pages := d.kinds[kind]
	if len(pages) == 0 || s.to != nil && *s.to <= s.from {
		return nil
	}
	from, to := find(pages, s.from), len(pages)
	if s.to != nil {
		to = sort.Search(len(pages), func(i int) bool { return pages[i].low >= *s.to })
	}
	return pages[from:to]
}

// sorted are the kinds that have pages, in order.
func (d *directory) sorted() []projection.Kind {
	var kinds []projection.Kind
	for kind, pages := range d.kinds {
		if len(pages) > 0 {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

const directoryFormat = 1

func (d *directory) encode() []byte {
	raw := binary.AppendUvarint([]byte{directoryFormat}, uint64(d.next))
	for _, kind := range d.sorted() {
		raw = append(raw, byte(kind))
		raw = binary.AppendUvarint(raw, uint64(len(d.kinds[kind])))
		for _, p := range d.kinds[kind] {
			raw = appendText(raw, p.low)
			raw = binary.AppendUvarint(raw, uint64(p.id))
		}
	}
	return raw
}

var errFormat = errors.New("a blob can't be read")

func decodeDirectory(raw []byte) (*directory, error) {
	r := reader{rest: raw}
	if r.byte() != directoryFormat {
		return nil, errFormat
	}
	d := &directory{next: int64(r.number()), kinds: map[projection.Kind][]page{}}
	for len(r.rest) > 0 && !r.failed {
		kind := projection.Kind(r.byte())
		n := r.number()
		for ; n > 0 && !r.failed; n-- {
			d.kinds[kind] = append(d.kinds[kind], page{low: r.text(), id: int64(r.number())})
		}
	}
	if r.failed {
		return nil, errFormat
	}
	return d, nil
}

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader reads what append functions wrote.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) raw() []byte {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) text() string { return string(r.raw()) }
