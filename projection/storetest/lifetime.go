package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/godagger/dagger/projection"
)

// testRestart closes and opens the store in the middle of a history.
func testRestart(t *testing.T, h Harness) {
	place := h.New(t)
	if place.Volatile {
		t.Skip("nothing survives Close")
	}
	rnd := seeded(t)
	events := history(rnd, 120)
	m := newModel(0)
	for round := uint64(1); len(events) > 0; round++ {
		s, err := place.Open(Identity)
		must(t, "open again", err)
		v := view(t, s, 2)
		wantRows(t, ruleCrash, v, m)
		p := acquire(t, s, 2, round)
		m.watermark.Epoch = round
		wantRows(t, ruleCrash, p, m)
		for range 3 {
			n := min(len(events), 1+rnd.IntN(20))
			b := batchOf(events[:n], m.watermark.N, round)
			events = events[n:]
			if n > 0 {
				apply(t, p, b)
				m.apply(b)
			}
		}
		if round%2 == 0 {
			must(t, "close view", v.Close())
			must(t, "release partition", p.Close())
			p = acquire(t, s, 2, round)
			wantRows(t, ruleCrash, p, m)
		}
		must(t, "close store", s.Close())
		must(t, "close store twice", s.Close())
	}
	s := open(t, place)
	_, err := s.Acquire(t.Context(), 2, 1)
	wantIs(t, ruleFenced, "acquire with an old epoch after a restart", err, projection.ErrFenced)
}

// testCrash ends the store without Close, again and again, and replays from where it stands.
func testCrash(t *testing.T, h Harness) {
	place := h.New(t)
	if place.Crash == nil {
		t.Skip("no way to crash")
	}
	rnd := seeded(t)
	events := history(rnd, 600)
	epoch, acknowledged := uint64(0), map[uint64]*model{0: newModel(0)}
	for round := range 12 {
		s, err := place.Open(Identity)
		must(t, "open after a crash", err)
		epoch++
		p := acquire(t, s, 0, epoch)
		have := watermark(t, p)
		m := acknowledged[have.N]
		if m == nil {
			broken(t, ruleCrash, "after crash %d the store stands at event %d, which is no acknowledged one", round, have.N)
		}
		m = m.clone()
		m.watermark.Epoch = epoch
		wantRows(t, ruleCrash, p, m)
		acknowledged = map[uint64]*model{0: newModel(0), have.N: m.clone()}
		for range rnd.IntN(10) {
			n := min(len(events)-int(m.watermark.N), 1+rnd.IntN(15))
			if n == 0 {
				break
			}
			b := batchOf(events[m.watermark.N:][:n], m.watermark.N, epoch)
			apply(t, p, b)
			m.apply(b)
			acknowledged[m.watermark.N] = m.clone()
			if rnd.IntN(6) == 0 {
				must(t, "flush", p.Flush(t.Context()))
			}
		}
		place.Crash(s)
	}
}

func testForeign(t *testing.T, h Harness) {
	place := h.New(t)
	if place.Volatile {
		t.Skip("nothing survives Close")
	}
	s, err := place.Open(Identity)
	must(t, "open", err)
	apply(t, acquire(t, s, 0, 1), put(0, 1, projection.KindDue, "a"))
	must(t, "close", s.Close())
	for what, id := range map[string]projection.Identity{
		"another application":             {App: "other", Partitions: Identity.Partitions},
		"another number of partitions":    {App: Identity.App, Partitions: 7},
		"an application of a longer name": {App: Identity.App + "2", Partitions: Identity.Partitions},
	} {
		s, err := place.Open(id)
		if err == nil {
			must(t, "close", s.Close())
		}
		wantIs(t, ruleForeign, "open for "+what, err, projection.ErrForeign)
	}
	v := view(t, open(t, place), 0)
	if w := watermark(t, v); w != mark(1, 1) {
		broken(t, ruleForeign, "after refused opens the watermark is %+v", w)
	}
}

func testAlone(t *testing.T, h Harness) {
	place := h.New(t)
	if !place.Alone {
		t.Skip("many may open it")
	}
	s := open(t, place)
	second, err := place.Open(Identity)
	if err == nil {
		must(t, "close", second.Close())
	}
	wantIs(t, ruleInUse, "open a second time", err, projection.ErrInUse)
	apply(t, acquire(t, s, 0, 1), put(0, 1, projection.KindDue, "a"))
}

func testViews(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	v := view(t, s, 11)
	m := newModel(0)
	wantRows(t, ruleView, v, m)
	scan(t, v, m, projection.KindDue, nil, nil, 0)
	p := acquire(t, s, 11, 1)
	b := put(0, 1, projection.KindDue, "a")
	apply(t, p, b)
	m.apply(b)
	wantRows(t, ruleView, v, m)
	must(t, "release partition", p.Close())
	wantRows(t, ruleView, v, m)
	must(t, "close view", v.Close())
	must(t, "close view twice", v.Close())
	wantRows(t, ruleView, view(t, s, 11), m)
	for _, n := range []int32{-1, Identity.Partitions} {
		if _, err := s.View(t.Context(), n); err == nil {
			broken(t, ruleView, "partition %d can be viewed, the store has %d", n, Identity.Partitions)
		}
		if _, err := s.Acquire(t.Context(), n, 1); err == nil {
			broken(t, ruleView, "partition %d can be acquired, the store has %d", n, Identity.Partitions)
		}
	}
}

func testPartitions(t *testing.T, h Harness) {
	place := h.New(t)
	s := open(t, place)
	list := func() string {
		t.Helper()
		got, err := s.Partitions(t.Context())
		must(t, "list partitions", err)
		return fmt.Sprint(got)
	}
	if got := list(); got != "[]" {
		broken(t, ruleList, "an empty store lists %s", got)
	}
	for _, n := range []int32{299, 1, 10, 0} {
		apply(t, acquire(t, s, n, 1), put(0, 1, projection.KindDue, "a"))
	}
	view(t, s, 5)
	if got := list(); got != "[0 1 10 299]" {
		broken(t, ruleList, "the store lists %s, want [0 1 10 299]", got)
	}
	must(t, "drop", s.Drop(t.Context(), 10, 1))
	if got := list(); got != "[0 1 299]" {
		broken(t, ruleList, "after a drop of 10 the store lists %s, want [0 1 299]", got)
	}
}

func testCancelled(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	p := acquire(t, s, 0, 1)
	m := newModel(1)
	b := put(0, 1, projection.KindDue, "a")
	apply(t, p, b)
	m.apply(b)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, acquireErr := s.Acquire(gone, 1, 1)
	_, _, getErr := p.Get(gone, projection.KindDue, [][]byte{[]byte("a")})
	_, _, scanErr := p.Scan(gone, projection.KindDue, nil, nil, 0)
	next := put(1, 1, projection.KindDue, "b")
	for what, err := range map[string]error{
		"Acquire": acquireErr, "Get": getErr, "Scan": scanErr, "Apply": p.Apply(gone, next),
		"Dump": p.Dump(gone, func(projection.Row) error { return nil }),
	} {
		wantIs(t, ruleCancel, what, err, context.Canceled)
	}
	// Whether it was applied or not, the same batch again settles it.
	apply(t, p, next)
	m.apply(next)
	wantRows(t, ruleCancel, p, m)
	stop := errors.New("stop")
	wantIs(t, ruleDump, "Dump whose f fails", p.Dump(t.Context(), func(projection.Row) error { return stop }), stop)
}

func testClosed(t *testing.T, h Harness) {
	s, err := h.New(t).Open(Identity)
	must(t, "open", err)
	used := func(what string, p projection.Partition) {
		t.Helper()
		_, watermarkErr := p.Watermark(t.Context())
		_, _, getErr := p.Get(t.Context(), projection.KindDue, [][]byte{[]byte("a")})
		_, _, scanErr := p.Scan(t.Context(), projection.KindDue, nil, nil, 0)
		for call, err := range map[string]error{
			"Watermark": watermarkErr, "Get": getErr, "Scan": scanErr,
			"Apply": p.Apply(t.Context(), put(1, 1, projection.KindDue, "b")),
			"Dump":  p.Dump(t.Context(), func(projection.Row) error { return nil }),
			"Flush": p.Flush(t.Context()),
		} {
			wantIs(t, ruleClosed, call+" of "+what, err, projection.ErrClosed)
		}
	}
	p, released := acquire(t, s, 0, 1), acquire(t, s, 0, 1)
	apply(t, p, put(0, 1, projection.KindDue, "a"))
	must(t, "release", released.Close())
	must(t, "release twice", released.Close())
	used("a released partition", released)
	must(t, "close store", s.Close())
	used("a partition of a closed store", p)
	must(t, "release after the store", p.Close())
	_, err = s.Acquire(t.Context(), 0, 2)
	wantIs(t, ruleClosed, "Acquire", err, projection.ErrClosed)
	_, err = s.View(t.Context(), 0)
	wantIs(t, ruleClosed, "View", err, projection.ErrClosed)
	_, err = s.Partitions(t.Context())
	wantIs(t, ruleClosed, "Partitions", err, projection.ErrClosed)
	wantIs(t, ruleClosed, "Drop", s.Drop(t.Context(), 0, 2), projection.ErrClosed)
}
