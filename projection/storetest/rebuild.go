package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

func testDrop(t *testing.T, h Harness) {
	place := h.New(t)
	s := open(t, place)
	models := map[int32]*model{}
	parts := map[int32]projection.Partition{}
	rnd := seeded(t)
	for _, n := range []int32{1, 10, 100, 2, 255, 256} {
		parts[n], models[n] = acquire(t, s, n, 4), newModel(4)
		b := batchOf(history(rnd, 50), 0, 4)
		apply(t, parts[n], b)
		models[n].apply(b)
	}
	for _, n := range []int32{1, 255} {
		for range 2 {
			must(t, "drop", s.Drop(t.Context(), n, 4))
			models[n] = newModel(4)
			for n, p := range parts {
				wantRows(t, ruleDrop, p, models[n])
			}
		}
	}
	must(t, "drop what never was", s.Drop(t.Context(), 42, 9))
	_, err := s.Acquire(t.Context(), 1, 3)
	wantIs(t, ruleDrop, "acquire with an old epoch after a drop", err, projection.ErrFenced)
	b := batchOf(history(rnd, 50), 0, 4)
	apply(t, parts[1], b)
	models[1].apply(b)
	wantRows(t, ruleDrop, parts[1], models[1])
	must(t, "release", parts[10].Close())
	must(t, "drop a released partition", s.Drop(t.Context(), 10, 4))
	wantRows(t, ruleDrop, acquire(t, s, 10, 4), newModel(4))
	if place.Volatile {
		return
	}
	must(t, "close", s.Close())
	s = open(t, place)
	_, err = s.Acquire(t.Context(), 10, 3)
	wantIs(t, ruleDrop, "acquire with an old epoch after drop and restart", err, projection.ErrFenced)
	wantRows(t, ruleDrop, view(t, s, 10), newModel(4))
	wantRows(t, ruleDrop, view(t, s, 1), models[1])
}

// testDropWhileReading: readers of a partition that is dropped see all of it or nothing.
func testDropWhileReading(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	p := acquire(t, s, 0, 1)
	const rows = 500
	full := func(from uint64) projection.Batch {
		b := projection.Batch{Expected: from, New: mark(from+1, 1)}
		for i := range rows {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: projection.AppendUint64(nil, uint64(i)), Value: []byte("x")})
		}
		return b
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	fails := make(chan error, 8)
	for range 4 {
		v := view(t, s, 0)
		wg.Go(func() {
			for ctx.Err() == nil {
				got, at, err := v.Scan(ctx, projection.KindDue, nil, nil, 0)
				if err == nil && len(got) != int(at)*rows {
					err = fmt.Errorf("Scan reads %d rows at event %d", len(got), at)
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					fails <- err
					return
				}
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				n := 0
				err := v.Dump(ctx, func(projection.Row) error { n++; return nil })
				if err == nil && n != 0 && n != rows {
					err = fmt.Errorf("Dump reads %d rows", n)
				}
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, projection.ErrClosed) {
					fails <- err
					return
				}
			}
		})
	}
	for range 10 {
		apply(t, p, full(0))
		must(t, "drop", s.Drop(t.Context(), 0, 1))
	}
	cancel()
	wg.Wait()
	select {
	case err := <-fails:
		broken(t, ruleReadStep, "while the partition is dropped: %v", err)
	default:
	}
}

// testDumpsAreEqual folds one history in batches of many sizes, and into the reference.
func testDumpsAreEqual(t *testing.T, h Harness) {
	rnd := seeded(t)
	events := history(rnd, 500)
	s := open(t, h.New(t))
	reference := memstore.New(Identity)
	fold := func(s projection.Store, n int32, size func() int) []projection.Row {
		p := acquire(t, s, n, 1)
		for at := 0; at < len(events); {
			k := min(len(events)-at, size())
			apply(t, p, batchOf(events[at:at+k], uint64(at), 1))
			at += k
		}
		return dump(t, p)
	}
	want := fold(reference, 0, func() int { return 1 })
	for n, size := range []func() int{
		func() int { return 1 },
		func() int { return 7 },
		func() int { return len(events) },
		func() int { return 1 + rnd.IntN(60) },
	} {
		if diff := diffRows(want, fold(s, int32(n), size)); diff != "" {
			broken(t, ruleDump, "fold %d differs from the reference (-want +got):\n%.4000s", n, diff)
		}
	}
}

// testReaders: every batch writes its number into all rows; a reader never sees two numbers,
// nor one that is not the watermark's.
func testReaders(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	p := acquire(t, s, 0, 1)
	const rows = 50
	keys := make([][]byte, rows)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%02d", i)
	}
	batch := func(n uint64) projection.Batch {
		b := projection.Batch{Expected: n - 1, New: mark(n, 1), Add: []projection.Delta{{Key: []byte("n"), N: 1}}}
		for _, k := range keys {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindList, Key: k, Value: strconv.AppendUint(nil, n, 10)})
		}
		return b
	}
	apply(t, p, batch(1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	fails := make(chan error, 8)
	read := func(what string, f func() (values [][]byte, at uint64, err error)) {
		wg.Go(func() {
			for last := uint64(0); ctx.Err() == nil; {
				values, at, err := f()
				if errors.Is(err, context.Canceled) {
					return
				}
				if err == nil && at < last {
					err = fmt.Errorf("watermark went back from %d to %d", last, at)
				}
				last = at
				for _, v := range values {
					if err == nil && string(v) != strconv.FormatUint(at, 10) {
						err = fmt.Errorf("at event %d a row is of event %q", at, v)
					}
				}
				if err != nil {
					fails <- fmt.Errorf("%s: %w", what, err)
					return
				}
			}
		})
	}
	v := view(t, s, 0)
	read("Get", func() ([][]byte, uint64, error) { return v.Get(ctx, projection.KindList, keys) })
	read("Scan", func() (values [][]byte, at uint64, err error) {
		got, at, err := v.Scan(ctx, projection.KindList, nil, nil, 0)
		for _, r := range got {
			values = append(values, r.Value)
		}
		return values, at, err
	})
	read("counter", func() ([][]byte, uint64, error) { return p.Get(ctx, projection.KindCount, [][]byte{[]byte("n")}) })
	read("Dump", func() ([][]byte, uint64, error) {
		var values [][]byte
		err := v.Dump(ctx, func(r projection.Row) error {
			values = append(values, append([]byte{}, r.Value...))
			return nil
		})
		at := uint64(0)
		if err == nil {
			at, err = strconv.ParseUint(string(values[0]), 10, 64)
		}
		return values, at, err
	})
	for n := uint64(2); n < 300 && len(fails) == 0; n++ {
		apply(t, p, batch(n))
	}
	cancel()
	wg.Wait()
	select {
	case err := <-fails:
		broken(t, ruleReadStep, "%v", err)
	default:
	}
}

// testDamage spoils a partition: it says so, its neighbour works on, and after Drop it is
// rebuilt.
func testDamage(t *testing.T, h Harness) {
	place := h.New(t)
	if place.Damage == nil {
		t.Skip("no way to damage")
	}
	rnd := seeded(t)
	s, err := place.Open(Identity)
	must(t, "open", err)
	events := history(rnd, 400)
	m := newModel(1)
	b := batchOf(events, 0, 1)
	m.apply(b)
	apply(t, acquire(t, s, 0, 1), b)
	apply(t, acquire(t, s, 1, 1), b)
	must(t, "close", s.Close())
	place.Damage(0)

	s = open(t, place)
	neighbour := acquire(t, s, 1, 1)
	p, err := s.Acquire(t.Context(), 0, 1)
	if err == nil { // it shows only when the rows are read
		err = p.Dump(t.Context(), func(projection.Row) error { return nil })
		wantIs(t, ruleStateLost, "dump of a damaged partition", err, projection.ErrStateLost)
		wantIs(t, ruleStateLost, "apply to a damaged partition", p.Apply(t.Context(), put(m.watermark.N, 1, projection.KindDue, "a")), projection.ErrStateLost)
		_, _, err = p.Get(t.Context(), projection.KindDue, [][]byte{[]byte("a")})
	}
	wantIs(t, ruleStateLost, "use of a damaged partition", err, projection.ErrStateLost)
	_, err = s.Acquire(t.Context(), 0, 2)
	wantIs(t, ruleStateLost, "acquire of a damaged partition", err, projection.ErrStateLost)
	wantRows(t, ruleStateLost, neighbour, m)
	wantIs(t, ruleFenced, "drop by the old owner", s.Drop(t.Context(), 0, 1), projection.ErrFenced)
	must(t, "drop the damaged partition", s.Drop(t.Context(), 0, 2))
	p = acquire(t, s, 0, 2)
	wantRows(t, ruleDrop, p, newModel(2))
	b = batchOf(events, 0, 2)
	apply(t, p, b)
	m.watermark.Epoch = 2
	wantRows(t, ruleFold, p, m)
	m.watermark.Epoch = 1
	wantRows(t, ruleStateLost, neighbour, m)
}
