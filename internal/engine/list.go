package engine

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// ErrCursor: the cursor is not one of this filter.
var ErrCursor = errors.New("engine: the cursor is not one of this list")

// List returns a page of instances, oldest first, as the store has them. Page.AsOf says up
// to which event of each partition that is; between pages the store goes on. What is in the
// stores of other workers they are asked for; an *ElsewhereError when one does not answer.
func (e *Engine) List(ctx context.Context, f Filter) (page Page, err error) {
	if _, err := f.after(); err != nil {
		return Page{}, err
	}
	var all entries
	err = gather(ctx, e, asked[entries]{
		read: func(ctx context.Context, partitions []int32) (entries, error) {
			return readEntries(ctx, e.store, partitions, f)
		},
		path: listPath, query: f.query(), add: all.add,
	})
	if err != nil {
		return Page{}, err
	}
	return all.page(f), nil
}

func (e *Engine) partitions() []int32 {
	l := make([]int32, e.log.Partitions())
	for p := range l {
		l[p] = int32(p)
	}
	return l
}

// ReadList is Engine.List without an engine, over the partitions that the store has.
func ReadList(ctx context.Context, store projection.Store, f Filter) (Page, error) {
	partitions, err := store.Partitions(ctx)
	if err != nil {
		return Page{}, fmt.Errorf("list partitions of the store: %w", err)
	}
	return readList(ctx, store, partitions, f)
}

func readList(ctx context.Context, store viewer, partitions []int32, f Filter) (Page, error) {
	x, err := readEntries(ctx, store, partitions, f)
	if err != nil {
		return Page{}, err
	}
	var all entries
	all.add(x)
	return all.page(f), nil
}

// most is how many instances a page has.
func (f *Filter) most() int {
	switch {
	case f.Limit <= 0:
		return 100
	case f.Limit > 1000:
		return 1000
	}
	return f.Limit
}

func (f *Filter) matches(i *machine.Instance) bool {
	return (f.Definition == "" || f.Definition == i.Definition) && (f.Status == "" || f.Status == i.StatusName())
}

// position in a list: instances are ordered by the time they were created, then by id.
type position struct {
	Created int64  `json:"c"`
	ID      string `json:"i"`
	Filter  uint64 `json:"f,omitempty"` // hash of the filter that it belongs to
}

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.Created, o.Created), strings.Compare(p.ID, o.ID))
}

func (f *Filter) hash() uint64 {
	h := fnv.New64a()
	for _, s := range []string{f.Definition, f.Status, f.IDPrefix} {
		h.Write(projection.AppendString(nil, s))
	}
	return h.Sum64()
}

func (f *Filter) after() (p position, err error) {
	if f.Cursor == "" {
		return p, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(f.Cursor)
	if err != nil || json.Unmarshal(data, &p) != nil {
		return p, fmt.Errorf("%w: it can't be read; give it as the page before had it, or leave it out for the first page", ErrCursor)
	}
	if p.Filter != f.hash() {
		return p, fmt.Errorf("%w: it goes on with a list of other definitions, statuses or ids; ask with the filter of the page before, or leave it out for the first page", ErrCursor)
	}
	return p, nil
}

func (p position) cursor() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic("engine: encode cursor: " + err.Error()) // two numbers and a string
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// listed is an entry of a list.
type listed struct {
	position
	Instance *machine.Instance `json:"instance"` // nil: it has changed since it was found

	partition int32 // of this process's store
	size      int   // of its row
}

// entries are those of some partitions that may be on a page.
type entries struct {
	LogID string           `json:"log"` // events topic, so that a peer of another log is noticed
	AsOf  map[int32]uint64 `json:"asOf"`
	Found []listed         `json:"found"`
	Cut   bool             `json:"cut,omitempty"` // Found has pageBytes; there may be more behind its last

	upto *position // of what was added: behind it something may be missing
}

func (x entries) log() string { return x.LogID }

func (x *entries) add(y entries) {
	if x.AsOf == nil {
		x.AsOf = map[int32]uint64{}
	}
	maps.Copy(x.AsOf, y.AsOf)
	x.Found = append(x.Found, y.Found...)
	if n := len(y.Found); y.Cut && n > 0 {
		if last := y.Found[n-1].position; x.upto == nil || last.compare(*x.upto) < 0 {
			x.upto = &last
		}
	}
}

// sort brings the entries into the order of a list, each once: one that changed while it was
// looked for can be found in two places.
func (x *entries) sort() {
	slices.SortFunc(x.Found, func(a, b listed) int { return a.compare(b.position) })
	x.Found = slices.CompactFunc(x.Found, func(a, b listed) bool { return a.compare(b.position) == 0 })
}

// page is what there is of all partitions.
func (x entries) page(f Filter) (page Page) {
	limit := f.most()
	page.AsOf = x.AsOf
	x.sort()
	more := x.upto != nil
	if more {
		x.Found = slices.DeleteFunc(x.Found, func(l listed) bool { return l.compare(*x.upto) > 0 })
	}
	if len(x.Found) > limit {
		x.Found, more = x.Found[:limit], true
	}
	if more {
		last := x.Found[len(x.Found)-1].position
		last.Filter = f.hash()
		page.Cursor = last.cursor()
	}
	for _, l := range x.Found {
		if l.Instance != nil {
			page.Instances = append(page.Instances, l.Instance)
		}
	}
	return page
}
