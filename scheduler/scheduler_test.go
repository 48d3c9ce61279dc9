package scheduler

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

type timer struct {
	at int64
	id int
}

func newScheduler() *Scheduler[timer] {
	return New(Config{Interval: 60, Horizon: 120, Late: 10}, func(t timer) int64 { return t.at },
		func(a, b timer) int { return cmp.Compare(a.id, b.id) })
}

// TestOrder: entries come once each, by time and then by what they are, whatever order they
// were armed in, and never before their time.
func TestOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		s := newScheduler()
		want := map[timer]bool{}
		for range r.IntN(50) {
			x := timer{at: r.Int64N(100), id: r.IntN(5)}
			want[x] = true
			s.Arm(x, 0)
		}
		if s.Len() != len(want) {
			t.Fatalf("%d entries are kept of %d", s.Len(), len(want))
		}
		var got []timer
		for now := int64(0); now < 100; now += 7 {
			for {
				x, forgotten, ok := s.Due(now)
				if !ok {
					break
				}
				if x.at > now || forgotten {
					t.Fatalf("at %d came %+v, forgotten: %v", now, x, forgotten)
				}
				got = append(got, x)
			}
		}
		for {
			x, _, ok := s.Due(1000)
			if !ok {
				break
			}
			got = append(got, x)
		}
		sorted := slices.Clone(got)
		slices.SortFunc(sorted, func(a, b timer) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) })
		if diff := gocmp.Diff(sorted, got, gocmp.AllowUnexported(timer{})); diff != "" || len(got) != len(want) {
			t.Fatalf("%d of %d came, in the order (-want +got):\n%s", len(got), len(want), diff)
		}
	}
}

// TestHorizon: what lies beyond it is left to the index.
func TestHorizon(t *testing.T) {
	s := newScheduler()
	s.Arm(timer{at: 1120, id: 1}, 1000)
	s.Arm(timer{at: 1121, id: 2}, 1000)
	if s.Len() != 1 {
		t.Errorf("%d entries are kept", s.Len())
	}
}

// TestForgotten: only what a later read finds overdue was forgotten.
func TestForgotten(t *testing.T) {
	s := newScheduler()
	s.Recover(timer{at: 1, id: 1})
	s.Found(timer{at: 990, id: 2}, 1000)
	s.Found(timer{at: 989, id: 3}, 1000)
	s.Arm(timer{at: 980, id: 4}, 1000)
	s.Found(timer{at: 980, id: 4}, 1000)
	for range 4 {
		x, forgotten, ok := s.Due(1000)
		if !ok || forgotten != (x.id == 3) {
			t.Errorf("%+v is due: %v, forgotten: %v", x, ok, forgotten)
		}
	}
}

// TestRead: at once, then each interval, also when the clock is set.
func TestRead(t *testing.T) {
	s := newScheduler()
	for _, c := range []struct {
		now, until int64
		due        bool
	}{
		{1000, 1120, true}, {1000, 0, false}, {1059, 0, false}, {1060, 1180, true}, // the next at 1120
		{1000, 1120, true}, {500, 620, true}, {559, 0, false}, {9000, 9120, true},
	} {
		if until, due := s.Read(c.now); due != c.due || until != c.until {
			t.Errorf("at %d: read %v until %d, want %v until %d", c.now, due, until, c.due, c.until)
		}
	}
}

// TestWake is the earliest of both.
func TestWake(t *testing.T) {
	s := newScheduler()
	s.ReadNow(1000)
	if got := s.Wake(); got != 1060 {
		t.Errorf("without entries it wakes at %d", got)
	}
	s.Arm(timer{at: 1030}, 1000)
	if got := s.Wake(); got != 1030 {
		t.Errorf("with an entry at 1030 it wakes at %d", got)
	}
	s.Arm(timer{at: 0, id: 1}, 1000)
	if got := s.Wake(); got != 1 {
		t.Errorf("with an entry without a time it wakes at %d", got)
	}
}
