package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
)

const (
	ruleStage   = "Stage opens what an earlier Stage of the partition has left, or nothing; one at a time: ErrInUse"
	ruleReplace = "Replace puts what was built in the place of the partition in one step; the partition keeps its epoch"
	ruleDumpAt  = "DumpAt is Dump and the watermark of the rows that it gave"
)

func stage(tb testing.TB, s projection.Store, n int32) projection.Staged {
	tb.Helper()
	g, err := s.(projection.Stager).Stage(tb.Context(), n)
	must(tb, "stage", err)
	return g
}

// testStage builds a partition beside the one in use.
func testStage(t *testing.T, h Harness) {
	place := h.New(t)
	s := openFor(t, place)
	defer func() { must(t, "close store", s.Close()) }()
	stager, ok := s.(projection.Stager)
	if !ok {
		t.Skip("a partition can't be built beside the one in use")
	}
	rnd := seeded(t)
	live, neighbour, next := newModel(5), newModel(5), newModel(0)
	p, q := acquire(t, s, 3, 5), acquire(t, s, 4, 5)
	b := batchOf(history(rnd, 60), 0, 5)
	apply(t, p, b)
	live.apply(b)
	apply(t, q, b)
	neighbour.apply(b)

	events := history(rnd, 200)
	g := stage(t, s, 3)
	_, err := stager.Stage(t.Context(), 3)
	wantIs(t, ruleStage, "stage a second time", err, projection.ErrInUse)
	other := stage(t, s, 4)
	wantRows(t, ruleStage, g, next)
	b = batchOf(events[:90], 0, 0)
	apply(t, g, b)
	next.apply(b)
	wantRows(t, ruleStage, g, next)
	wantRows(t, ruleStage, p, live)
	wantRows(t, ruleStage, other, newModel(0))
	must(t, "close the other", other.Close())
	must(t, "close", g.Close())
	must(t, "close twice", g.Close())
	if !place.Volatile { // what was built survives a restart
		must(t, "close store", s.Close())
		s = openFor(t, place)
		p, q = acquire(t, s, 3, 5), acquire(t, s, 4, 5)
	}
	g = stage(t, s, 3)
	wantRows(t, ruleStage, g, next)
	must(t, "reset", g.Reset(t.Context()))
	next = newModel(0)
	wantRows(t, ruleStage, g, next)
	for at := 0; at < len(events); at += 50 {
		b = batchOf(events[at:at+50], uint64(at), 0)
		apply(t, g, b)
		next.apply(b)
	}
	must(t, "replace", g.Replace(t.Context()))
	next.watermark.Epoch = 5
	wantRows(t, ruleReplace, p, next)
	wantRows(t, ruleReplace, q, neighbour)
	_, err = g.Watermark(t.Context())
	wantIs(t, ruleClosed, "use of what was put in its place", err, projection.ErrClosed)
	wantIs(t, ruleClosed, "replace twice", g.Replace(t.Context()), projection.ErrClosed)
	wantIs(t, ruleCAS, "apply after what was replaced", p.Apply(t.Context(), put(60, 5, projection.KindDue, "x")), projection.ErrWatermark)
	b = put(200, 5, projection.KindDue, "x")
	apply(t, p, b)
	next.apply(b)
	wantRows(t, ruleReplace, p, next)
	wantRows(t, ruleStage, stage(t, s, 3), newModel(0))
	_, err = s.Acquire(t.Context(), 3, 4)
	wantIs(t, ruleFenced, "acquire with an old epoch", err, projection.ErrFenced)
	if place.Volatile {
		return
	}
	must(t, "close store", s.Close())
	s = openFor(t, place)
	wantRows(t, ruleReplace, view(t, s, 3), next)
	wantRows(t, ruleReplace, view(t, s, 4), neighbour)
}

// testReplaceWhileReading: who reads a partition that is replaced sees the old one or the new
// one.
func testReplaceWhileReading(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	if _, ok := s.(projection.Stager); !ok {
		t.Skip("a partition can't be built beside the one in use")
	}
	const rows = 300
	full := func(n uint64) projection.Batch {
		b := projection.Batch{New: mark(n, 0)}
		for i := range rows {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: projection.AppendUint64(nil, uint64(i)), Value: fmt.Append(nil, n)})
		}
		return b
	}
	build := func(n uint64) {
		g := stage(t, s, 0)
		apply(t, g, full(n))
		must(t, "replace", g.Replace(t.Context()))
	}
	build(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	fails := make(chan error, 4)
	// read reads all rows again and again; those of a call are of one event.
	read := func(what string, f func() (values [][]byte, at uint64, err error)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				values, at, err := f()
				if errors.Is(err, context.Canceled) {
					return
				}
				if err == nil && len(values) != rows {
					err = fmt.Errorf("%d rows at event %d", len(values), at)
				}
				for _, value := range values {
					if err == nil && string(value) != fmt.Sprint(at) {
						err = fmt.Errorf("at event %d a row is of event %s", at, value)
					}
				}
				if err != nil {
					fails <- fmt.Errorf("%s: %w", what, err)
					return
				}
			}
		})
	}
	var keys [][]byte
	for i := range rows {
		keys = append(keys, projection.AppendUint64(nil, uint64(i)))
	}
	for range 2 {
		v := view(t, s, 0)
		read("Dump", func() (values [][]byte, at uint64, err error) {
			for { // a Dump may give up when its partition is replaced
				values = nil
				w, err := projection.DumpAt(ctx, v, func(r projection.Row) error {
					values = append(values, append([]byte{}, r.Value...))
					return nil
				})
				if !errors.Is(err, projection.ErrClosed) || ctx.Err() != nil {
					return values, w.N, err
				}
			}
		})
	}
	v := view(t, s, 0)
	read("Get", func() ([][]byte, uint64, error) { return v.Get(ctx, projection.KindDue, keys) })
	read("Scan", func() (values [][]byte, at uint64, err error) {
		got, at, err := v.Scan(ctx, projection.KindDue, nil, nil, 0)
		for _, r := range got {
			values = append(values, r.Value)
		}
		return values, at, err
	})
	for n := uint64(2); n < 10; n++ {
		build(n)
	}
	cancel()
	wg.Wait()
	select {
	case err := <-fails:
		broken(t, ruleReplace, "while the partition is replaced: %v", err)
	default:
	}
}

// testReplaceCrash crashes at any moment of a replacement: the partition is the old one or
// the new one.
func testReplaceCrash(t *testing.T, h Harness) {
	place := h.New(t)
	if place.Crash == nil {
		t.Skip("no way to crash")
	}
	rnd := seeded(t)
	for round := range 6 {
		s := openFor(t, place)
		if _, ok := s.(projection.Stager); !ok {
			place.Crash(s)
			t.Skip("a partition can't be built beside the one in use")
		}
		old := dump(t, view(t, s, 0))
		m := newModel(0)
		b := batchOf(history(rnd, 100+round), 0, 0)
		m.apply(b)
		g := stage(t, s, 0)
		must(t, "reset", g.Reset(t.Context()))
		apply(t, g, b)
		done := make(chan error, 1)
		go func() { done <- g.Replace(t.Context()) }()
		for i := rnd.IntN(2000); i > 0; i-- { // any moment, also after it
			select {
			case err := <-done:
				done <- err
				i = 1
			default:
			}
		}
		place.Crash(s)
		<-done
		s = openFor(t, place)
		v := view(t, s, 0)
		got := dump(t, v)
		if diff := diffRows(m.dump(), got); diff != "" && diffRows(old, got) != "" {
			broken(t, ruleReplace, "round %d: after a crash the rows are neither the old nor the new ones:\n%.2000s", round, diff)
		}
		must(t, "close", s.Close())
	}
}

// testDumpAt reads a partition whole while batches come: the rows are those of the watermark.
func testDumpAt(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	p := acquire(t, s, 0, 1)
	m := newModel(1)
	events := history(seeded(t), 300)
	models := map[uint64]*model{0: m.clone()}
	for at := 0; at < len(events); at += 10 {
		m.apply(batchOf(events[at:at+10], uint64(at), 1))
		models[m.watermark.N] = m.clone()
	}
	v := view(t, s, 0)
	done := make(chan error, 1)
	go func() {
		for at := 0; at < len(events); at += 10 {
			if err := p.Apply(context.WithoutCancel(t.Context()), batchOf(events[at:at+10], uint64(at), 1)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	check := func() {
		var rows []projection.Row
		at, err := projection.DumpAt(t.Context(), v, func(r projection.Row) error {
			rows = append(rows, projection.Row{Kind: r.Kind, Key: append([]byte{}, r.Key...), Value: append([]byte{}, r.Value...)})
			return nil
		})
		if errors.Is(err, projection.ErrMoves) {
			return
		}
		must(t, "dump", err)
		if want := models[at.N]; want == nil || at != want.watermark || diffRows(want.dump(), rows) != "" {
			broken(t, ruleDumpAt, "at event %d the rows are not those of the watermark", at.N)
		}
	}
	for {
		check()
		select {
		case err := <-done:
			must(t, "apply", err)
			check()
			return
		default:
		}
	}
}
