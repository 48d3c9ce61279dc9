package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
)

func testApply(t *testing.T, h Harness) {
	rnd := seeded(t)
	p := acquire(t, open(t, h.New(t)), 0, 1)
	m := newModel(1)
	wantRows(t, ruleFold, p, m)
	events := history(rnd, 400)
	for len(events) > 0 {
		n := min(len(events), 1+rnd.IntN(20))
		b := batchOf(events[:n], m.watermark.N, 1)
		events = events[n:]
		apply(t, p, b)
		m.apply(b)
		kind := kinds[rnd.IntN(len(kinds))]
		keys := make([][]byte, 0, len(nasty))
		want := make([][]byte, 0, len(nasty))
		for _, k := range nasty {
			keys = append(keys, []byte(k))
			want = append(want, m.rows[rowName{kind, k}])
		}
		if rnd.IntN(2) == 0 { // few and many keys may be read differently
			i := rnd.IntN(len(keys))
			keys, want = keys[i:i+1], want[i:i+1]
		}
		got, at, err := p.Get(t.Context(), kind, keys)
		must(t, "get", err)
		if at != m.watermark.N {
			broken(t, ruleReadStep, "Get at event %d says %d", m.watermark.N, at)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			broken(t, ruleGet, "Get of kind %#x at event %d (-want +got):\n%s", kind, at, diff)
		}
		if rnd.IntN(8) == 0 {
			wantRows(t, ruleAtomic, p, m)
		}
	}
	wantRows(t, ruleAtomic, p, m)
	must(t, "flush", p.Flush(t.Context()))
	wantRows(t, ruleAtomic, p, m)
}

func testCounters(t *testing.T, h Harness) {
	p := acquire(t, open(t, h.New(t)), 1, 1)
	m := newModel(1)
	step := func(deltas ...projection.Delta) {
		t.Helper()
		b := projection.Batch{Expected: m.watermark.N, New: mark(m.watermark.N+1, 1), Add: deltas}
		apply(t, p, b)
		m.apply(b)
		wantRows(t, ruleCount, p, m)
	}
	running, all := []byte("running"), []byte("all")
	step(projection.Delta{Key: running, N: 1}, projection.Delta{Key: all, N: 1})
	step(projection.Delta{Key: running, N: 1}, projection.Delta{Key: running, N: 1}, projection.Delta{Key: running, N: -1})
	step(projection.Delta{Key: running, N: -5}) // below zero on the way of a replay
	step(projection.Delta{Key: running, N: 3})
	if got := dump(t, p); len(got) != 1 || string(got[0].Key) != "all" || string(got[0].Value) != "1" {
		broken(t, ruleCount, "rows are %+v, want all=1 alone", got)
	}
	step(projection.Delta{Key: all, N: 0}, projection.Delta{Key: []byte("none"), N: 0})
	step(projection.Delta{Key: all, N: 1 << 62})
	values, _, err := p.Get(t.Context(), projection.KindCount, [][]byte{all, running})
	must(t, "get counters", err)
	if string(values[0]) != "4611686018427387905" || values[1] != nil {
		broken(t, ruleCount, "counters are %q, want 4611686018427387905 and nothing", values)
	}
}

func testCompareAndSet(t *testing.T, h Harness) {
	p := acquire(t, open(t, h.New(t)), 0, 7)
	m := newModel(7)
	first := put(0, 7, projection.KindDue, "a")
	first.Add = []projection.Delta{{Key: []byte("n"), N: 1}}
	for range 3 { // again and again after a lost reply
		if err := p.Apply(t.Context(), first); err != nil {
			broken(t, ruleCAS, "the same batch again: %v", err)
		}
		if m.watermark.N == 0 {
			m.apply(first)
		}
		wantRows(t, ruleCAS, p, m)
	}
	refuse := func(what string, b projection.Batch) {
		t.Helper()
		err := p.Apply(t.Context(), b)
		wantIs(t, ruleCAS, what, err, projection.ErrWatermark)
		if w, ok := errors.AsType[*projection.WatermarkError](err); !ok || w.Have != m.watermark.N || w.Want != b.Expected {
			broken(t, ruleCAS, "%s: error %v, want one with have %d, want %d", what, err, m.watermark.N, b.Expected)
		}
		wantRows(t, ruleCAS, p, m)
	}
	refuse("expected too high", put(2, 7, projection.KindDue, "b"))
	second := put(1, 7, projection.KindDue, "b")
	apply(t, p, second)
	m.apply(second)
	refuse("expected too low", put(0, 7, projection.KindDue, "c"))
	other := put(1, 7, projection.KindDue, "c")
	other.New.Sum++
	refuse("event 2 of another history", other)
	other = put(1, 7, projection.KindDue, "c")
	other.New.LogID = "log-2"
	refuse("event 2 of another log", other)

	empty := projection.Batch{Expected: 2, New: mark(3, 7)}
	apply(t, p, empty)
	m.apply(empty)
	wantRows(t, ruleCAS, p, m)
	moved := projection.Batch{Expected: 3, New: mark(3, 7)}
	moved.New.Offset += 100
	apply(t, p, moved)
	m.apply(moved)
	wantRows(t, ruleLogID, p, m)
	far := put(3, 7, projection.KindDue, "far")
	far.New = mark(1<<62, 7)
	apply(t, p, far)
	m.apply(far)
	next := put(1<<62, 7, projection.KindDue, "further")
	apply(t, p, next)
	m.apply(next)
	wantRows(t, ruleCAS, p, m)
}

func testRefusedBatches(t *testing.T, h Harness) {
	p := acquire(t, open(t, h.New(t)), 0, 1)
	b := put(0, 1, projection.KindDue, "a")
	b.New = mark(5, 1)
	apply(t, p, b)
	m := newModel(1)
	m.apply(b)
	back := projection.Batch{Expected: 5, New: mark(4, 1)}
	still := put(5, 1, projection.KindDue, "b")
	still.New.N = 5
	for what, bad := range map[string]projection.Batch{
		"back":           back,
		"no event":       still,
		"counter in Put": put(5, 1, projection.KindCount, "n"),
		"counter in Del": {Expected: 5, New: mark(6, 1), Del: []projection.Row{{Kind: projection.KindCount, Key: []byte("n")}}},
		"reserved kind":  put(5, 1, projection.MinKind-1, "x"),
	} {
		if err := p.Apply(t.Context(), bad); err == nil {
			broken(t, ruleBatch, "%s: applied", what)
		}
		wantRows(t, ruleBatch, p, m)
	}
}

func testEpochs(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	old := acquire(t, s, 3, 5)
	m := newModel(5)
	b := put(0, 5, projection.KindDue, "a", "b")
	apply(t, old, b)
	m.apply(b)

	now := acquire(t, s, 3, 6)
	m.watermark.Epoch = 6
	wantRows(t, ruleFenced, now, m)
	wantIs(t, ruleFenced, "apply with the old epoch", old.Apply(t.Context(), put(1, 5, projection.KindDue, "c")), projection.ErrFenced)
	wantIs(t, ruleFenced, "the old owner's batch again", old.Apply(t.Context(), b), projection.ErrFenced)
	wantIs(t, ruleFenced, "an epoch that nobody acquired", now.Apply(t.Context(), put(1, 9, projection.KindDue, "c")), projection.ErrFenced)
	wantIs(t, ruleFenced, "drop with the old epoch", s.Drop(t.Context(), 3, 5), projection.ErrFenced)
	_, err := s.Acquire(t.Context(), 3, 5)
	wantIs(t, ruleFenced, "acquire with the old epoch", err, projection.ErrFenced)
	wantRows(t, ruleFenced, now, m)

	again := acquire(t, s, 3, 6)
	b = put(1, 6, projection.KindDue, "c")
	apply(t, again, b)
	m.apply(b)
	wantRows(t, ruleFenced, now, m)
	must(t, "release the old handle", old.Close())
	wantRows(t, ruleFenced, now, m)
	neighbour := acquire(t, s, 4, 1)
	wantRows(t, ruleFenced, neighbour, newModel(1))
}

// testRace: two goroutines with one epoch; at each step one of them wins, and what it wrote
// is there.
func testRace(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	const steps = 200
	var wg sync.WaitGroup
	wins := [2][]uint64{}
	fails := [2]error{}
	for who := range 2 {
		p := acquire(t, s, 0, 1)
		wg.Go(func() {
			n := uint64(0)
			for n < steps {
				b := put(n, 1, projection.KindDue, fmt.Sprintf("%03d %d", n+1, who))
				b.New.Sum += uint64(who) // two histories: the other's batch is not mine
				err := p.Apply(t.Context(), b)
				if w, ok := errors.AsType[*projection.WatermarkError](err); ok {
					n = w.Have
					continue
				}
				if err != nil {
					fails[who] = err
					return
				}
				n++
				wins[who] = append(wins[who], n)
			}
		})
	}
	wg.Wait()
	must(t, "apply in a race", errors.Join(fails[0], fails[1]))
	var want []string
	for who, list := range wins {
		for _, n := range list {
			want = append(want, fmt.Sprintf("%03d %d", n, who))
		}
	}
	slices.Sort(want)
	var got []string
	for _, r := range dump(t, view(t, s, 0)) {
		got = append(got, string(r.Key))
	}
	if len(want) != steps {
		broken(t, ruleCAS, "%d steps were won, want %d", len(want), steps)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		broken(t, ruleCAS, "rows are not those of the winners (-want +got):\n%s", diff)
	}
}
