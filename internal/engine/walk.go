package engine

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// walk finds events of a partition by their numbers. It remembers where it has been.
type walk struct {
	s     *finder
	hint  found   // an event and, about, its offset
	known []found // in order
	page  []eventlog.Record
	first uint64 // number of the page's first event
	gap   uint64 // from the last that was wanted back to this one; none where it goes on
	last  uint64
	size  uint64 // events of a page
	read  uint64 // events that were read for those that were wanted
}

// fewEvents are some tens of pages.
const fewEvents = 100_000

// backwards gives the events that changed an instance, oldest first, from the last on back to
// the one by which its partition first knew of it. ok is false where an event does not say which
// one came before it, and where looking for them would take longer than reading the events since
// number since, one after the other.
func (w *walk) backwards(ctx context.Context, id string, last, since uint64) (l []*eventlog.Event, ok bool, err error) {
	for n := last; n > 0; {
		if w.read > last-min(since, last)+fewEvents {
			return nil, false, nil
		}
		ev, _, err := w.event(ctx, n)
		if err != nil {
			return nil, false, err
		}
		if ev == nil {
			return nil, false, nil
		}
		prev, begins, changes := before(ev, id)
		if !changes || prev >= n || prev == 0 && !begins {
			return nil, false, nil
		}
		l = append(l, ev)
		n = prev
	}
	slices.Reverse(l)
	return l, true, nil
}

// before is the event before ev that changed an instance. changes: this one does; begins: it may
// be the first by which its partition knows of it.
func before(ev *eventlog.Event, id string) (prev uint64, begins, changes bool) {
	if ev.ID == id && (ev.Seq > 0 || ev.Prev > 0) {
		return ev.Prev, ev.Type == eventlog.InstanceStarted && ev.Seq == 1, true
	}
	if ev.Pos != nil {
		for _, r := range ev.Pos.Refused {
			if r.ID == id {
				return r.Prev, true, true
			}
		}
	}
	return 0, false, false
}

// event reads the event with a number, and says at which offset it stands; nil when it is not
// there.
func (w *walk) event(ctx context.Context, n uint64) (ev *eventlog.Event, offset int64, err error) {
	w.gap = math.MaxUint64
	if n < w.last {
		w.gap = w.last - n
	}
	w.last = n
	low, high := found{offset: w.s.start - 1}, found{offset: w.s.end}
	at, _ := slices.BinarySearchFunc(w.known, n, func(x found, n uint64) int { return cmp.Compare(x.n, n) })
	if at > 0 {
		low = w.known[at-1]
	}
	if at < len(w.known) {
		high = w.known[at]
		high.offset++ // it may be the one
	}
	from, until := low.offset+1, high.offset
	for tries := 0; ; tries++ {
		if k := n - w.first; n >= w.first && k < uint64(len(w.page)) {
			offset = w.page[k].Offset
			ev, err = decodeEvent(&w.page[k], w.s.partition)
			if err == nil && ev.N != n {
				err = fmt.Errorf("offset %d of partition %d has event %d, not %d", offset, w.s.partition, ev.N, n)
			}
			return ev, offset, err
		}
		if from >= until {
			return nil, 0, nil
		}
		guess := from + (until-from)/2
		if tries < 8 { // holes may lie so unevenly that halves are better
			guess = min(max(w.guess(n, low, high), from), until-1)
		}
		if err := w.load(ctx, guess); err != nil {
			return nil, 0, err
		}
		switch {
		case len(w.page) == 0:
			until = guess
		case w.first > n:
			until, high = guess, found{n: w.first, offset: w.page[0].Offset}
		default:
			last := len(w.page) - 1
			low = found{n: w.first + uint64(last), offset: w.page[last].Offset}
			from = low.offset + 1
		}
	}
}

// guess is an offset a little before that of event n: what is wanted next is older, and may be
// near. Transactions leave holes between offsets; they are taken to lie evenly.
func (w *walk) guess(n uint64, low, high found) int64 {
	if high.n == 0 && w.hint.n >= n && w.hint.offset > low.offset {
		high = w.hint
	}
	if high.n <= low.n {
		return low.offset + (high.offset-low.offset)/2
	}
	at := low.offset + int64(float64(high.offset-low.offset)*(float64(n-low.n)/float64(high.n-low.n)))
	at = min(at, high.offset-int64(high.n-n)) // each event takes an offset
	if w.gap < w.size/2 {                     // a page that ends with it is likely to have what is wanted next
		return at - int64(w.size*3/4)
	}
	return at - 32
}

// load reads the page that begins at or behind an offset.
func (w *walk) load(ctx context.Context, from int64) error {
	w.page, w.first = nil, 0
	s := w.s
	reader, err := s.peek()(ctx, s.name, s.partition, from, s.topicID, eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	for at := from; at < s.end && len(w.page) == 0; {
		records, next, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		w.page = slices.DeleteFunc(records, func(r eventlog.Record) bool {
			return r.Offset >= s.end || eventlog.IsBarrier(r.Value)
		})
		at = next
	}
	if len(w.page) == 0 {
		return nil
	}
	first, err := decodeEvent(&w.page[0], s.partition)
	if err != nil {
		return err
	}
	w.first = first.N
	w.size = uint64(len(w.page))
	w.read += w.size
	w.note(found{n: first.N, offset: w.page[0].Offset})
	last := len(w.page) - 1
	w.note(found{n: first.N + uint64(last), offset: w.page[last].Offset})
	return nil
}

func (w *walk) note(x found) {
	if at, have := slices.BinarySearchFunc(w.known, x.n, func(y found, n uint64) int { return cmp.Compare(y.n, n) }); !have {
		w.known = slices.Insert(w.known, at, x)
	}
}
