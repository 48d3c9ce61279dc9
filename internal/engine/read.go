package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// ErrCursor: the cursor is not one of this filter.
var ErrCursor = errors.New("engine: the cursor belongs to another filter")

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

// Count counts the instances that a filter chooses, by "definition/status", as of event
// numbers by partition. Limit and Cursor of the filter do not matter. Workers and errors are
// as in List.
func (e *Engine) Count(ctx context.Context, f Filter) (map[string]int64, map[int32]uint64, error) {
	var all counted
	err := gather(ctx, e, asked[counted]{
		read: func(ctx context.Context, partitions []int32) (c counted, err error) {
			c.Counts, c.AsOf, err = readCount(ctx, e.store, partitions, f)
			return c, err
		},
		path: countPath, query: f.query(), add: all.add,
	})
	return all.Counts, all.AsOf, err
}

func (e *Engine) partitions() []int32 {
	l := make([]int32, e.log.Partitions())
	for p := range l {
		l[p] = int32(p)
	}
	return l
}

// position in a list: instances are ordered by the time they were created, then by id.
type position struct {
	Created int64  `json:"c"`
	ID      string `json:"i"`
	Filter  uint64 `json:"f,omitempty"` // hash of the filter that it belongs to
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
	if err != nil || json.Unmarshal(data, &p) != nil || p.Filter != f.hash() {
		return p, ErrCursor
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

// ReadList is Engine.List without an engine, over the partitions that the store has.
func ReadList(ctx context.Context, store projection.Store, f Filter) (Page, error) {
	partitions, err := store.Partitions(ctx)
	if err != nil {
		return Page{}, fmt.Errorf("list partitions of the store: %w", err)
	}
	return readList(ctx, store, partitions, f)
}

func readList(ctx context.Context, store viewer, partitions []int32, f Filter) (Page, error) {
	all, err := readEntries(ctx, store, partitions, f)
	if err != nil {
		return Page{}, err
	}
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

// entries are those of some partitions that may be on a page.
type entries struct {
	LogID string           `json:"log"` // events topic, so that a peer of another log is noticed
	AsOf  map[int32]uint64 `json:"asOf"`
	Found []listed         `json:"found"`
}

// readEntries finds the first instances of each partition behind the cursor, one more than
// fits a page.
func readEntries(ctx context.Context, store viewer, partitions []int32, f Filter) (x entries, err error) {
	after, err := f.after()
	if err != nil {
		return entries{}, err
	}
	x.AsOf = map[int32]uint64{}
	views := make([]projection.View, len(partitions))
	defer func() {
		for _, v := range views {
			if v != nil {
				v.Close()
			}
		}
	}()
	found := make([][]listed, len(partitions))
	at := make([]uint64, len(partitions))
	if err := eachOf(partitions, func(k int, p int32) (err error) {
		if views[k], err = store.View(ctx, p); err == nil {
			found[k], at[k], err = listPartition(ctx, views[k], p, &f, after, f.most()+1)
		}
		return err
	}); err != nil {
		return entries{}, err
	}
	for k, p := range partitions {
		x.AsOf[p] = at[k]
		x.Found = append(x.Found, found[k]...)
	}
	x.cut(f.most() + 1)
	if err := eachOf(partitions, func(k int, p int32) error { return x.read(ctx, views[k], p, &f) }); err != nil {
		return entries{}, err
	}
	return x, nil
}

// listers is how many partitions are read at once: each is some calls to a server.
const listers = 8

// eachOf calls do for each partition and returns the first error, in their order.
func eachOf(partitions []int32, do func(k int, p int32) error) error {
	errs := make([]error, len(partitions))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(listers, len(partitions)) {
		wg.Go(func() {
			for k := int(next.Add(1) - 1); k < len(partitions); k = int(next.Add(1) - 1) {
				errs[k] = do(k, partitions[k])
			}
		})
	}
	wg.Wait()
	for k, err := range errs {
		if err != nil {
			return fmt.Errorf("list partition %d: %w", partitions[k], err)
		}
	}
	return nil
}

// read reads the instances of a partition that are on the page: most of what its partitions
// have found is not.
func (x *entries) read(ctx context.Context, v projection.View, p int32, f *Filter) error {
	var keys [][]byte
	var at []int
	for k := range x.Found {
		if x.Found[k].partition == p {
			keys, at = append(keys, []byte(x.Found[k].ID)), append(at, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	values, _, err := v.Get(ctx, projection.KindInstance, keys)
	if err != nil {
		return err
	}
	for k, value := range values {
		if value == nil {
			continue
		}
		i := &machine.Instance{}
		if err := decodeRow(value, i); err != nil {
			return err
		}
		if f.matches(i) {
			x.Found[at[k]].Instance = i
		}
	}
	return nil
}

// cut keeps the first entries, in order.
func (x *entries) cut(most int) {
	slices.SortFunc(x.Found, func(a, b listed) int { return a.compare(b.position) })
	x.Found = x.Found[:min(len(x.Found), most)]
}

func (x entries) log() string { return x.LogID }

func (x *entries) add(y entries) {
	if x.AsOf == nil {
		x.AsOf = map[int32]uint64{}
	}
	maps.Copy(x.AsOf, y.AsOf)
	x.Found = append(x.Found, y.Found...)
}

// page is what there is of all partitions.
func (x *entries) page(f Filter) (page Page) {
	limit := f.most()
	page.AsOf = x.AsOf
	x.cut(limit + 1)
	if len(x.Found) > limit {
		x.Found = x.Found[:limit]
		last := x.Found[limit-1].position
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

// listed is an entry of a list.
type listed struct {
	position
	Instance *machine.Instance `json:"instance"` // nil: it has changed since it was found

	partition int32 // of this process's store
}

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.Created, o.Created), strings.Compare(p.ID, o.ID))
}

// counted are the counts of some partitions.
type counted struct {
	LogID  string           `json:"log"`
	AsOf   map[int32]uint64 `json:"asOf"`
	Counts map[string]int64 `json:"counts"`
}

func (x counted) log() string { return x.LogID }

func (x *counted) add(y counted) {
	if x.AsOf == nil {
		x.AsOf, x.Counts = map[int32]uint64{}, map[string]int64{}
	}
	maps.Copy(x.AsOf, y.AsOf)
	for name, n := range y.Counts {
		x.Counts[name] += n
	}
}

// listPartition finds the first instances of a partition behind a position.
func listPartition(ctx context.Context, v projection.View, p int32, f *Filter, after position, limit int) (l []listed, at uint64, err error) {
	if err := waitFor(ctx, v, f.AtLeast[p]); err != nil {
		return nil, 0, err
	}
	w, err := v.Watermark(ctx)
	if err != nil {
		return nil, 0, err
	}
	ranges, err := f.ranges(ctx, v)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range ranges {
		part, err := r.first(ctx, v, f, after, limit)
		if err != nil {
			return nil, 0, err
		}
		l = append(l, part...)
	}
	for k := range l {
		l[k].partition = p
	}
	return l, w.N, nil
}

func (f *Filter) matches(i *machine.Instance) bool {
	return (f.Definition == "" || f.Definition == i.Definition) && (f.Status == "" || f.Status == i.StatusName())
}

// listRange is a part of an index in which entries are ordered by (created, id).
type listRange struct {
	kind   projection.Kind
	prefix []byte
}

// ranges are those that together have what the filter chooses. Which definitions and
// statuses there are is known by the counters.
func (f *Filter) ranges(ctx context.Context, v projection.View) ([]listRange, error) {
	if f.Definition == "" && f.Status == "" {
		return []listRange{{kind: projection.KindListAll}}, nil
	}
	var l []listRange
	err := f.counters(ctx, v, func(definition, status string, _ int64) {
		l = append(l, listRange{projection.KindList, projection.AppendString(projection.AppendString(nil, status), definition)})
	})
	return l, err
}

// counters calls do with the counters of the definitions and statuses that the filter chooses.
func (f *Filter) counters(ctx context.Context, v projection.View, do func(definition, status string, n int64)) error {
	rows, _, err := scanAll(ctx, v, projection.KindCount, nil, nil)
	if err != nil {
		return err
	}
	for _, r := range rows {
		k := keyReader{rest: r.Key}
		definition, status := k.string(), k.string()
		if err := k.lost("count"); err != nil {
			return err
		}
		if f.Definition != "" && f.Definition != definition || f.Status != "" && f.Status != status {
			continue
		}
		n, err := strconv.ParseInt(string(r.Value), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: counter: %w", projection.ErrStateLost, err)
		}
		do(definition, status, n)
	}
	return nil
}

// first finds the first entries of a range behind a position.
func (r listRange) first(ctx context.Context, v projection.View, f *Filter, after position, limit int) (l []listed, err error) {
	from := r.prefix
	if after.ID != "" {
		from = append(append(slices.Clone(r.prefix), listAllKey(after.Created, after.ID)...), 0)
	}
	to := projection.PrefixEnd(r.prefix)
	for {
		const page = 1000
		n := page
		if f.IDPrefix == "" {
			n = min(n, limit-len(l))
		}
		rows, _, err := v.Scan(ctx, r.kind, from, to, n)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			k := keyReader{rest: row.Key[len(r.prefix):]}
			created := k.int64()
			if err := k.lost("list"); err != nil {
				return nil, err
			}
			if !bytes.HasPrefix(k.rest, []byte(f.IDPrefix)) {
				continue
			}
			l = append(l, listed{position: position{Created: created, ID: string(k.rest)}})
			if len(l) == limit {
				return l, nil
			}
		}
		if len(rows) < n {
			return l, nil
		}
		from = append(slices.Clone(rows[len(rows)-1].Key), 0)
	}
}

// waitFor returns when the view has folded an event number.
func waitFor(ctx context.Context, v projection.View, n uint64) error {
	if n == 0 {
		return nil
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		w, err := v.Watermark(ctx)
		if err != nil || w.N >= n {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for event %d, the store stands at %d: %w", n, w.N, context.Cause(ctx))
		}
	}
}

// ReadCount is Engine.Count without an engine, over the partitions that the store has.
func ReadCount(ctx context.Context, store projection.Store, f Filter) (counts map[string]int64, asOf map[int32]uint64, err error) {
	partitions, err := store.Partitions(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list partitions of the store: %w", err)
	}
	return readCount(ctx, store, partitions, f)
}

func readCount(ctx context.Context, store viewer, partitions []int32, f Filter) (counts map[string]int64, asOf map[int32]uint64, err error) {
	counts, asOf = map[string]int64{}, map[int32]uint64{}
	for _, p := range partitions {
		if asOf[p], err = countPartition(ctx, store, p, &f, counts); err != nil {
			return nil, nil, fmt.Errorf("count partition %d: %w", p, err)
		}
	}
	return counts, asOf, nil
}

func countPartition(ctx context.Context, store viewer, p int32, f *Filter, counts map[string]int64) (at uint64, err error) {
	v, err := store.View(ctx, p)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	if err := waitFor(ctx, v, f.AtLeast[p]); err != nil {
		return 0, err
	}
	w, err := v.Watermark(ctx)
	if err != nil {
		return 0, err
	}
	type pair struct{ definition, status string }
	var pairs []pair
	if err := f.counters(ctx, v, func(definition, status string, n int64) {
		pairs = append(pairs, pair{definition, status})
		if f.IDPrefix == "" {
			counts[definition+"/"+status] += n
		}
	}); err != nil || f.IDPrefix == "" {
		return w.N, err
	}
	for _, x := range pairs {
		r := listRange{projection.KindList, projection.AppendString(projection.AppendString(nil, x.status), x.definition)}
		var after position
		for {
			const page = 10_000
			l, err := r.first(ctx, v, f, after, page)
			if err != nil {
				return 0, err
			}
			if len(l) > 0 {
				counts[x.definition+"/"+x.status] += int64(len(l))
				after = l[len(l)-1].position
			}
			if len(l) < page {
				break
			}
		}
	}
	return w.N, nil
}

// ReadInstance folds one instance, from the store's row where it can be read and the events
// after it; store may be nil. The plan is nil when the instance's events do not have it.
// ErrTrimmed: the store can't be read, and the log has dropped the events that would tell.
func ReadInstance(ctx context.Context, log eventlog.Log, store projection.Store, id string) (*machine.Instance, *machine.Plan, error) {
	f := newFold(log.Partitions(), id)
	if err := f.read(ctx, log, store, 0); err != nil {
		return nil, nil, err
	}
	i, err := f.instance()
	if err != nil {
		return nil, nil, err
	}
	return i, f.plan(), nil
}
