package memstore_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

var identity = projection.Identity{App: "test", Partitions: 4}

// step is event n: it puts a row, replaces one, deletes one and counts.
func step(n uint64) projection.Batch {
	return projection.Batch{
		Expected: n - 1,
		New:      projection.Watermark{N: n, Epoch: 1, Sum: n},
		Put: []projection.Row{
			{Kind: projection.KindDue, Key: fmt.Appendf(nil, "%d", n)},
			{Kind: projection.KindPlan, Key: []byte("last"), Value: fmt.Appendf(nil, "%d", n)},
		},
		Del: []projection.Row{{Kind: projection.KindDue, Key: fmt.Appendf(nil, "%d", n-2)}},
		Add: []projection.Delta{{Key: []byte("n"), N: 1}},
	}
}

func rows(t *testing.T, v projection.View) []string {
	t.Helper()
	var list []string
	if err := v.Dump(t.Context(), func(r projection.Row) error {
		list = append(list, fmt.Sprintf("%#x %s %s", byte(r.Kind), r.Key, r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRewindTakesAppliesBack(t *testing.T) {
	s := memstore.New(identity, memstore.Options{History: 5})
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	var states [][]string
	for n := uint64(1); n <= 8; n++ {
		states = append(states, rows(t, p))
		if err := p.Apply(t.Context(), step(n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		steps int
		n     uint64
	}{{0, 8}, {1, 7}, {2, 5}, {9, 3}, {1, 3}} { // 5 of 8 are kept
		if w := s.Rewind(0, c.steps); w.N != c.n {
			t.Fatalf("Rewind by %d stands at %d, want %d", c.steps, w.N, c.n)
		}
		if c.n < 8 {
			if diff := cmp.Diff(states[c.n], rows(t, p)); diff != "" {
				t.Fatalf("at event %d (-want +got):\n%s", c.n, diff)
			}
		}
	}
	if err := p.Apply(t.Context(), step(4)); err != nil {
		t.Error(err)
	}
	s.Wipe(0)
	if w, err := p.Watermark(t.Context()); err != nil || w != (projection.Watermark{Epoch: 1}) || rows(t, p) != nil {
		t.Errorf("after Wipe: %+v, %v", w, err)
	}
}

func TestFaults(t *testing.T) {
	s := memstore.New(identity)
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	s.FailNext(boom)
	if err := p.Apply(t.Context(), step(1)); !errors.Is(err, boom) {
		t.Errorf("Apply: %v, want boom", err)
	}
	if got := rows(t, p); got != nil {
		t.Errorf("a failed Apply wrote %v", got)
	}
	s.LoseReply()
	if err := p.Apply(t.Context(), step(1)); !errors.Is(err, memstore.ErrReplyLost) {
		t.Errorf("Apply: %v, want ErrReplyLost", err)
	}
	if err := p.Apply(t.Context(), step(1)); err != nil {
		t.Errorf("the batch again: %v", err)
	}
	s.FailNext(projection.ErrStateLost)
	if _, _, err := p.Scan(t.Context(), projection.KindDue, nil, nil, 0); !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("Scan: %v, want ErrStateLost", err)
	}
	twice := step(2)
	twice.Put = append(twice.Put, twice.Put[0])
	if err := p.Apply(t.Context(), twice); err == nil {
		t.Error("a row named twice was applied")
	}
	if w, err := p.Watermark(t.Context()); err != nil || w.N != 1 {
		t.Errorf("watermark %+v, %v, want event 1", w, err)
	}
}

func TestURL(t *testing.T) {
	s, err := projection.Open(t.Context(), "mem:", identity)
	if err != nil || s.URL() != "mem:" {
		t.Fatalf("mem: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"mem:x", "mem://host", "mem:/x", "mem:?a=b", "mem:#f"} {
		if _, err := projection.Open(t.Context(), bad, identity); err == nil {
			t.Errorf("%s was opened", bad)
		}
	}
}
