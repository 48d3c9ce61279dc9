package engine

import (
	"bytes"
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

const (
	// searchers is how many parts of the log are read at once: one answer is on its way while
	// another is decoded.
	searchers = 4
	// mostAhead is how many parts may be read before somebody wants their events.
	mostAhead = 32
)

// shortBlocks is how long a part may be that is read by small pieces, and ahead.
var shortBlocks uint64 = 64 // tests make it smaller, before anything else

// search is about, of the parts of the log that the store's index leaves; store may be nil. also
// may have PartitionOwned.
func (s *finder) search(ctx context.Context, store projection.Store, id string, p Point, also []eventlog.Type, do func(*eventlog.Event, int64) error) error {
	l, hint, err := s.named(ctx, store, id, also)
	if err != nil {
		return err
	}
	l = join(l)
	if len(l) == 1 && l[0].from == 1 {
		return s.about(ctx, s.log.Read, id, s.start, 0, p, also, do)
	}
	first := found{n: 1}
	if s.start > 0 {
		if first, err = s.probe(ctx, s.start); err != nil || first.n == 0 {
			return err
		}
	}
	end := uint64(math.MaxUint64)
	if p.by == pointEvent {
		end = p.n
	}
	var parts []stretch
	for _, x := range l {
		if x.from, x.until = max(x.from, first.n), min(x.until, end); x.from <= x.until {
			parts = append(parts, x)
		}
	}
	h := hunt{s: s, id: id, p: p, also: also, first: first.n, hint: hint}
	return h.run(ctx, parts, do)
}

// hunt reads parts of a partition, short ones several at a time and ahead of who wants their
// events.
type hunt struct {
	s     *finder
	id    string
	p     Point
	also  []eventlog.Type
	first uint64 // of the log's events
	hint  found
}

// part is what was found in a stretch.
type part struct {
	events []placed
	over   bool // the log or the point ends before it
	err    error
}

type placed struct {
	ev     *eventlog.Event
	offset int64
}

func (h *hunt) run(ctx context.Context, l []stretch, do func(*eventlog.Event, int64) error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	parts := make([]chan part, len(l))
	for k := range parts {
		parts[k] = make(chan part, 1)
	}
	var taken atomic.Int64
	ahead := make(chan struct{}, mostAhead)
	for range min(searchers, len(l)) {
		wg.Go(func() {
			w := walk{s: h.s, hint: h.hint}
			for {
				select {
				case ahead <- struct{}{}:
				case <-ctx.Done():
					return
				}
				k := int(taken.Add(1)) - 1
				if k >= len(l) {
					return
				}
				var x part
				if l[k].short() {
					x.over, x.err = h.read(ctx, &w, l[k], func(ev *eventlog.Event, offset int64) error {
						x.events = append(x.events, placed{ev, offset})
						return nil
					})
				}
				parts[k] <- x
			}
		})
	}
	w := walk{s: h.s, hint: h.hint}
	for k := range l {
		var x part
		select {
		case x = <-parts[k]:
			<-ahead
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !l[k].short() {
			x.over, x.err = h.read(ctx, &w, l[k], do)
		}
		for _, e := range x.events {
			if err := do(e.ev, e.offset); err != nil {
				return err
			}
		}
		if x.err != nil || x.over {
			return x.err
		}
	}
	return nil
}

// short: it is worth reading by small pieces, and what it has fits into memory.
func (x stretch) short() bool { return x.until-x.from < shortBlocks*blockEvents }

// read gives do what one part has. over: the log or the point ends before it.
func (h *hunt) read(ctx context.Context, w *walk, x stretch, do func(*eventlog.Event, int64) error) (over bool, err error) {
	s := h.s
	offset := s.start
	var begun []eventlog.Record // a page has its first events
	if x.from > h.first {
		var ev *eventlog.Event
		if ev, offset, err = w.event(ctx, x.from); err != nil {
			return false, err
		}
		if ev == nil || !h.p.covers(ev.N, ev.At, offset) {
			return true, nil
		}
		begun = w.page[ev.N-w.first:]
	}
	open := s.peek()
	if !x.short() && s.end-offset > int64(shortBlocks*blockEvents) {
		open = s.log.Read
	}
	if x.until == math.MaxUint64 {
		x.until = 0
	}
	take := s.wanted(h.id, x.until, h.p, h.also, do)
	for k := range begun {
		if on, err := take(&begun[k]); err != nil || !on {
			return false, err
		}
		offset = begun[k].Offset + 1
	}
	return false, s.through(ctx, open, offset, take)
}

// about gives the events that can be about an instance, and those with a type of its own
// kind (also), to do: from an offset on, up to the point and the event until (0 = no limit).
// Those that record a plan are always given.
func (s *finder) about(ctx context.Context, open opener, id string, from int64, until uint64, p Point, also []eventlog.Type, do func(*eventlog.Event, int64) error) error {
	return s.through(ctx, open, from, s.wanted(id, until, p, also, do))
}

// wanted takes the records for about; it is false where none that follows is wanted.
func (s *finder) wanted(id string, until uint64, p Point, also []eventlog.Type, do func(*eventlog.Event, int64) error) func(*eventlog.Record) (bool, error) {
	needles := [][]byte{[]byte(eventlog.PlanUsed)}
	for _, t := range also {
		needles = append(needles, []byte(t))
	}
	filter := plain(id)
	needles = append(needles, []byte(id))
	skipped := 0
	return func(r *eventlog.Record) (bool, error) {
		wanted := !filter
		for k := len(needles) - 1; k >= 0 && !wanted; k-- {
			wanted = bytes.Contains(r.Value, needles[k])
		}
		if p.by == pointOffset && r.Offset > p.offset {
			return false, nil
		}
		// A look at others now and then tells whether the point is behind.
		const look = 256
		if !wanted {
			if skipped++; skipped%look != 0 || until == 0 && (p.by == pointOffset || p.by == pointNow) {
				return true, nil
			}
		}
		ev, err := decodeEvent(r, s.partition)
		if err != nil {
			return false, err
		}
		if !p.covers(ev.N, ev.At, r.Offset) || until > 0 && ev.N > until {
			return false, nil
		}
		if !wanted {
			return true, nil
		}
		return true, do(ev, r.Offset)
	}
}
