package aerospike

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/godagger/dagger/projection"
)

// moving is event n of a log in which pages are divided, emptied and dropped, and rows get long
// and short: what is there at event n is known from n alone.
func moving(n uint64) projection.Batch {
	b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1, LogID: "log", Sum: n}}
	row := func(kind projection.Kind, i uint64) projection.Row {
		return projection.Row{Kind: kind, Key: fmt.Appendf(nil, "%08d%s", i, strings.Repeat("k", int(i%50)))}
	}
	const perEvent, life = 15, 40
	for i := range uint64(perEvent) {
		for _, kind := range []projection.Kind{projection.KindDue, projection.KindInstance, projection.KindKept} {
			// New rows in the middle of the old ones, so that pages in use are divided.
			r := row(kind, (n*perEvent+i)*7919%100_000)
			switch {
			case kind == projection.KindInstance:
				r.Value = fmt.Appendf(nil, "instance at %d", n)
			case kind == projection.KindKept && i == 0:
				rnd := rand.New(rand.NewPCG(n, 0))
				r.Value = make([]byte, 5000)
				for j := range r.Value {
					r.Value[j] = byte(rnd.Uint32())
				}
			}
			b.Put = append(b.Put, r)
			if n > life {
				b.Del = append(b.Del, row(kind, ((n-life)*perEvent+i)*7919%100_000))
			}
		}
	}
	return b
}

// TestDumpMeanwhile reads a partition whole, again and again, while its owner applies one batch
// after the other: each time it gets the rows of one event, soon.
func TestDumpMeanwhile(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	s, err := openFake(t, f, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan error, 1)
	var at atomic.Uint64
	go func() {
		for n := uint64(1); !stop.Load(); n++ {
			if err := p.Apply(t.Context(), moving(n)); err != nil {
				done <- err
				return
			}
			at.Store(n)
		}
		done <- nil
	}()
	var last uint64
	dumps := 0
	for ; dumps < 25 || at.Load() < 100; dumps++ {
		got := map[rowName]string{}
		w, err := projection.DumpAt(t.Context(), v, func(r projection.Row) error {
			got[rowName{r.Kind, string(r.Key)}] = string(r.Value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[rowName]string{}
		for n := max(1, int64(w.N)-100); n <= int64(w.N); n++ {
			b := moving(uint64(n))
			for _, r := range b.Put {
				want[rowName{r.Kind, string(r.Key)}] = string(r.Value)
			}
			for _, r := range b.Del {
				delete(want, rowName{r.Kind, string(r.Key)})
			}
		}
		// What was deleted before is not looked at again: keys return after 100,000 rows only.
		for name, value := range want {
			if got[name] != value {
				t.Fatalf("at event %d row %v is %.30q, want %.30q", w.N, name, got[name], value)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("at event %d there are %d rows, want %d", w.N, len(got), len(want))
		}
		if w.N < last {
			t.Fatalf("the watermark went back from %d to %d", last, w.N)
		}
		last = w.N
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d dumps while %d batches came", dumps, at.Load())
}

// TestFollow reads the pages at one event, and the rest after some more batches, in which pages were
// divided, emptied and dropped.
func TestFollow(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	part := p.(*handle).p
	rnd := seeded(t)
	for n := uint64(1); n < 200; {
		if err := p.Apply(t.Context(), moving(n)); err != nil {
			t.Fatal(err)
		}
		n++
		st, err := part.load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := &content{p: part, st: st, kinds: map[projection.Kind]map[string]cell{}, missing: map[int64]bool{}}
		if err := c.pages(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(2) == 0 {
			if _, err := c.rows(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range rnd.IntN(8) {
			if err := p.Apply(t.Context(), moving(n)); err != nil {
				t.Fatal(err)
			}
			n++
		}
		err = c.follow(t.Context())
		if err == nil {
			_, err = c.rows(t.Context())
		}
		if err == nil {
			err = c.resolve(t.Context())
		}
		if err != nil {
			t.Fatalf("at event %d: %v", n-1, err)
		}
		got := map[rowName]string{}
		for kind, cells := range c.kinds {
			for key, x := range cells {
				got[rowName{kind, key}] = string(x.value)
			}
		}
		want := map[rowName]string{}
		if err := p.Dump(t.Context(), func(r projection.Row) error {
			want[rowName{r.Kind, string(r.Key)}] = string(r.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("at event %d there are %d rows, want %d", n-1, len(got), len(want))
		}
	}
}

type rowName struct {
	Kind projection.Kind
	Key  string
}
