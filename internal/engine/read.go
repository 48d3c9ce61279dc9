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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// ErrCursor: the cursor is not one of this filter.
var ErrCursor = errors.New("engine: the cursor belongs to another filter")

// List returns a page of instances, oldest first, as the store has them. Page.AsOf says up
// to which event of each partition that is; between pages the store goes on. An
// *ElsewhereError when this process's store does not have all partitions.
func (e *Engine) List(ctx context.Context, f Filter) (Page, error) {
	if err := e.here(ctx); err != nil {
		return Page{}, err
	}
	return readList(ctx, e.store, e.partitions(), f)
}

// Count counts the instances that a filter chooses, by "definition/status", as of event
// numbers by partition. Limit and Cursor of the filter do not matter.
func (e *Engine) Count(ctx context.Context, f Filter) (map[string]int64, map[int32]uint64, error) {
	if err := e.here(ctx); err != nil {
		return nil, nil, err
	}
	return readCount(ctx, e.store, e.partitions(), f)
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
	Filter  uint64 `json:"f"` // hash of the filter that it belongs to
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

func readList(ctx context.Context, store viewer, partitions []int32, f Filter) (page Page, err error) {
	limit := f.Limit
	switch {
	case limit <= 0:
		limit = 100
	case limit > 1000:
		limit = 1000
	}
	after, err := f.after()
	if err != nil {
		return Page{}, err
	}
	page.AsOf = map[int32]uint64{}
	var found []listed
	for _, p := range partitions {
		l, at, err := listPartition(ctx, store, p, &f, after, limit+1)
		if err != nil {
			return Page{}, fmt.Errorf("list partition %d: %w", p, err)
		}
		page.AsOf[p] = at
		found = append(found, l...)
	}
	slices.SortFunc(found, func(a, b listed) int { return a.compare(b.position) })
	if len(found) > limit {
		found = found[:limit]
		last := found[limit-1].position
		last.Filter = f.hash()
		page.Cursor = last.cursor()
	}
	for _, x := range found {
		if x.instance != nil { // else it has changed since it was found
			page.Instances = append(page.Instances, x.instance)
		}
	}
	return page, nil
}

// listed is an entry of a list.
type listed struct {
	position
	instance *machine.Instance
}

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.Created, o.Created), strings.Compare(p.ID, o.ID))
}

// listPartition finds the first instances of a partition behind a position.
func listPartition(ctx context.Context, store viewer, p int32, f *Filter, after position, limit int) (l []listed, at uint64, err error) {
	v, err := store.View(ctx, p)
	if err != nil {
		return nil, 0, err
	}
	defer v.Close()
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
	slices.SortFunc(l, func(a, b listed) int { return a.compare(b.position) })
	l = l[:min(len(l), limit)]
	keys := make([][]byte, len(l))
	for k := range l {
		keys[k] = []byte(l[k].ID)
	}
	if len(keys) == 0 {
		return nil, w.N, nil
	}
	values, _, err := v.Get(ctx, projection.KindInstance, keys)
	if err != nil {
		return nil, 0, err
	}
	for k, value := range values {
		if value == nil {
			continue
		}
		i := &machine.Instance{}
		if err := decodeRow(value, i); err != nil {
			return nil, 0, err
		}
		if f.matches(i) {
			l[k].instance = i
		}
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
func ReadInstance(ctx context.Context, log eventlog.Log, store projection.Store, id string) (*machine.Instance, *machine.Plan, error) {
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return nil, nil, fmt.Errorf("describe the events topic: %w", err)
	}
	f := newFold(log.Partitions(), id)
	if err := f.catchUp(ctx, log, store, topic.ID, 0); err != nil {
		return nil, nil, err
	}
	i, err := f.instance()
	if err != nil {
		return nil, nil, err
	}
	return i, f.plan(), nil
}
