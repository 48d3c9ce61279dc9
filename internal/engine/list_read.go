package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// A list is one over all partitions, each of which may have none of a page or all of it. Each
// is asked for its fair share and some more first, and those that gave all of it to the page,
// or to what lies before, are asked again.

// readEntries finds the first entries of some partitions behind the cursor, one more than fits
// a page, and reads their instances.
func readEntries(ctx context.Context, store viewer, partitions []int32, f Filter) (x entries, err error) {
	after, err := f.after()
	if err != nil {
		return entries{}, err
	}
	wanted := f.most() + 1
	parts := make([]*listing, len(partitions))
	defer func() {
		for _, s := range parts {
			if s != nil {
				s.view.Close()
			}
		}
	}()
	err = eachOf(partitions, func(k int, p int32) error {
		v, err := store.View(ctx, p)
		if err != nil {
			return err
		}
		parts[k] = &listing{partition: p, view: v, f: &f, after: after, wanted: wanted}
		return parts[k].begin(ctx, float64(wanted)/float64(len(partitions)))
	})
	for err == nil && x.merge(parts, wanted, f.IDPrefix) {
		err = eachOf(partitions, func(k int, _ int32) error { return parts[k].read(ctx) })
	}
	if err == nil {
		x.Found = x.Found[:min(len(x.Found), wanted)]
		err = x.fill(func(from, to int) error {
			return eachOf(partitions, func(k int, p int32) error { return x.read(ctx, parts[k].view, p, &f, from, to) })
		})
	}
	if err != nil {
		return entries{}, fmt.Errorf("list %w", err)
	}
	return x, nil
}

// merge collects what was found, and says whether more has to be read.
func (x *entries) merge(parts []*listing, wanted int, idPrefix string) (more bool) {
	x.AsOf, x.Found = map[int32]uint64{}, x.Found[:0]
	for _, s := range parts {
		x.AsOf[s.partition] = s.at
		for _, l := range s.lanes {
			for _, e := range l.found {
				e.partition = s.partition
				x.Found = append(x.Found, e)
			}
		}
	}
	x.sort()
	for _, s := range parts {
		for _, l := range s.lanes {
			more = l.lacks(x.Found, wanted, idPrefix) || more
		}
	}
	return more
}

const (
	// pageBytes is what the instances of a page may have in the store: with large parameters a
	// page has fewer of them. One is always on it.
	pageBytes = 8 << 20
	// firstRead is how many instances are read before their size is known.
	firstRead = 32
)

// fill reads the instances of what was found, a piece after the other, up to pageBytes.
func (x *entries) fill(read func(from, to int) error) error {
	size := 0
	for from, n := 0, firstRead; from < len(x.Found); {
		to := min(from+n, len(x.Found))
		if err := read(from, to); err != nil {
			return err
		}
		for ; from < to; from++ {
			if size += x.Found[from].size; size > pageBytes && from > 0 {
				x.Found, x.Cut = x.Found[:from], true
				return nil
			}
		}
		n = max(1, (pageBytes-size)/max(1, size/from))
	}
	return nil
}

// read reads the instances of a partition that stand between two places of the page: most of
// what its partitions have found is not on it.
func (x *entries) read(ctx context.Context, v projection.View, p int32, f *Filter, from, to int) error {
	var keys [][]byte
	var at []int
	for k := from; k < to; k++ {
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
		x.Found[at[k]].size = len(value)
		if f.matches(i) {
			x.Found[at[k]].Instance = i
		}
	}
	return nil
}

// listing is what a list reads of one partition.
type listing struct {
	partition int32
	view      projection.View
	f         *Filter
	after     position
	wanted    int
	lanes     []*lane
	at        uint64 // the event at which reading began
	begun     bool
}

// begin reads the first rows of each lane; expected is how many of the wanted entries a
// partition has on average.
func (s *listing) begin(ctx context.Context, expected float64) error {
	first := func() error {
		if err := s.open(ctx, expected); err != nil {
			return err
		}
		return s.read(ctx)
	}
	if err := first(); err != nil || s.at >= s.f.AtLeast[s.partition] {
		return err
	}
	if err := waitFor(ctx, s.view, s.f.AtLeast[s.partition]); err != nil {
		return err
	}
	return first()
}

// open finds the lanes that together have what the filter chooses.
func (s *listing) open(ctx context.Context, expected float64) error {
	s.lanes, s.at, s.begun = nil, 0, false
	add := func(l *lane, expected float64) {
		l.next = fairShare(expected, s.wanted)
		s.lanes = append(s.lanes, l)
	}
	switch f := s.f; {
	case f.Definition == "" && f.Status == "":
		add(newLane(projection.KindListAll, nil, s.after), expected)
		return nil
	case f.Definition != "" && f.Status != "":
		add(counter{definition: f.Definition, status: f.Status}.lane(s.after), expected)
		return nil
	}
	// Which definitions or statuses there are is known by the counters.
	counters, at, err := s.f.counters(ctx, s.view)
	if err != nil {
		return err
	}
	s.at, s.begun = at, true
	all := int64(0)
	for _, c := range counters {
		all += c.n
	}
	for _, c := range counters {
		add(c.lane(s.after), expected*float64(c.n)/float64(max(all, 1)))
	}
	return nil
}

// tornTries is how often a partition is read again that moves while it is read.
const tornTries = 3

// read reads the next rows of the lanes. An instance that changed its status between the turns
// of two lanes may be in neither, though it was there all the time: then all are read again, as
// far as may be wanted.
func (s *listing) read(ctx context.Context) error {
	torn, err := s.extend(ctx)
	for n := 0; err == nil && torn && n < tornTries; n++ {
		if err = s.open(ctx, 0); err != nil {
			break
		}
		for _, l := range s.lanes {
			l.next = s.wanted
		}
		torn, err = s.extend(ctx)
	}
	return err
}

// extend reads the next rows of the lanes once. torn: not at one event, where that matters; with
// an id prefix reading may take too long for it.
func (s *listing) extend(ctx context.Context) (torn bool, err error) {
	for _, l := range s.lanes {
		if l.next == 0 {
			continue
		}
		at, err := l.extend(ctx, s.view, s.f.IDPrefix, l.next)
		if err != nil {
			return false, err
		}
		if !s.begun {
			s.at, s.begun = at, true
		}
		torn = torn || at != s.at
	}
	return torn && s.f.Definition != "" && s.f.Status == "" && s.f.IDPrefix == "", nil
}

// readers is how many partitions are read at once: each is some calls to a server.
const readers = 16

// eachOf calls do for each partition and returns the first error, in their order.
func eachOf(partitions []int32, do func(k int, p int32) error) error {
	errs := make([]error, len(partitions))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(readers, len(partitions)) {
		wg.Go(func() {
			for k := int(next.Add(1) - 1); k < len(partitions); k = int(next.Add(1) - 1) {
				errs[k] = do(k, partitions[k])
			}
		})
	}
	wg.Wait()
	for k, err := range errs {
		if err != nil {
			return fmt.Errorf("partition %d: %w", partitions[k], err)
		}
	}
	return nil
}

// waitFor returns when the view has folded an event number.
func waitFor(ctx context.Context, v projection.View, n uint64) error {
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
