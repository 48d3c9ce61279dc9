package workflowtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type timed struct {
	At    time.Time       `json:"at,omitzero"`
	Until time.Time       `json:"until,omitzero"`
	Slow  time.Duration   `json:"slow,omitempty"`
	Every time.Duration   `json:"every,omitempty"`
	Ran   []time.Duration `json:"ran,omitempty"` // since the start
	Begun time.Time       `json:"begun,omitzero"`
}

func (p *timed) note() { p.Ran = append(p.Ran, time.Since(p.Begun).Round(100*time.Millisecond)) }

// TestTimesOfAt: in the past, moved while it waits to later, sooner and into the past, none at
// all, and years ahead.
func TestTimesOfAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Later", workflow.Parallel("both", workflow.All,
			workflow.At("at", func(p *timed) time.Time { return p.At }, func(_ context.Context, p *timed) error { p.note(); return nil }),
			workflow.Listen("move", "moves", workflow.By("all", func(*timed) string { return "x" }, func(*time.Time) string { return "x" }),
				func(_ context.Context, p *timed, at time.Time) (bool, error) { p.At = at; return at.IsZero(), nil })))
		kit := workflowtest.New(t, def)
		start := func(id string, after time.Duration) *workflow.Handle[timed] {
			t.Helper()
			return workflowtest.Start(kit, def, id, timed{At: time.Now().Add(after), Begun: time.Now()})
		}
		past := start("past", -100*24*time.Hour)
		kit.RequireTask("past", "both/at", workflow.Completed)
		years := start("years", 10*365*24*time.Hour)
		if w := kit.RequireTask("years", "both/at", workflow.Executing); !strings.HasPrefix(w.WaitsFor, "waits until 20") || time.Until(w.Due) < 9*365*24*time.Hour {
			t.Errorf("in ten years: %+v", w)
		}
		moved := start("moved", time.Hour)
		for _, to := range []time.Duration{3 * time.Hour, 2 * time.Hour, 30 * 24 * time.Hour, 10 * time.Minute} {
			kit.Deliver("moves", time.Now().Add(to)) // it moves all of them
		}
		kit.Advance(9 * time.Minute)
		kit.RequireTask("moved", "both/at", workflow.Executing)
		kit.Advance(time.Minute)
		kit.RequireTask("moved", "both/at", workflow.Completed)
		kit.RequireTask("years", "both/at", workflow.Completed)
		back := start("back", time.Hour)
		kit.Deliver("moves", time.Now().Add(-time.Hour))
		kit.RequireTask("back", "both/at", workflow.Completed)
		none := workflowtest.Start(kit, def, "none", timed{Begun: time.Now()})
		if w := kit.RequireTask("none", "both/at", workflow.Executing); !strings.Contains(w.WaitsFor, "a time that has no value yet") {
			t.Errorf("without a time: %+v", w)
		}
		kit.Deliver("moves", time.Now().Add(time.Second))
		kit.Advance(time.Second)
		kit.Deliver("moves", time.Time{}) // the listeners have ended, and what has run does not run again
		for h, want := range map[*workflow.Handle[timed]]time.Duration{past: 0, moved: 10*time.Minute + 300*time.Millisecond, back: 0, none: 1100 * time.Millisecond} {
			got := workflowtest.RequireCompleted(kit, h)
			if len(got.Ran) != 1 || (got.Ran[0]-want).Abs() > 200*time.Millisecond {
				t.Errorf("%s ran after %v, want %v", h.ID(), got.Ran, want)
			}
		}
		workflowtest.RequireCompleted(kit, years)
	})
}

// TestEveryIsSlow: a handler that takes longer than its period never overlaps itself, and what
// it missed does not come in a burst; the end comes from the parameters.
func TestEveryIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := 0
		def := workflow.New("Slow", workflow.Every("tick", func(p *timed) workflow.Interval {
			return workflow.Interval{Period: p.Every, Until: p.Until}
		}, func(_ context.Context, p *timed) (bool, error) {
			if running++; running > 1 {
				t.Error("it overlaps itself")
			}
			defer func() { running-- }()
			p.note()
			time.Sleep(p.Slow)
			if len(p.Ran) == 2 { // a period that changes counts after the next run
				p.Slow, p.Every = 0, time.Minute
			}
			return false, nil
		}))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "t", timed{Every: 10 * time.Second, Slow: 25 * time.Second, Begun: time.Now(), Until: time.Now().Add(200 * time.Second)})
		kit.Advance(5 * time.Minute)
		got := workflowtest.RequireCompleted(kit, h)
		want := []time.Duration{0, 30 * time.Second, 90 * time.Second, 150 * time.Second}
		if !slices.EqualFunc(got.Ran, want, func(a, b time.Duration) bool { return (a - b).Abs() <= 200*time.Millisecond }) {
			t.Errorf("it ran after %v, want %v", got.Ran, want)
		}
	})
}

// TestTimesBeyondTheCalendar: what is later than JSON's last year is its end, not now.
func TestTimesBeyondTheCalendar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := time.Unix(1<<62, 0) // its milliseconds since 1970 fit no integer
		at := func(*timed) time.Time { return never }
		note := func(_ context.Context, p *timed) error { p.note(); return nil }
		def := workflow.New("Never", workflow.Parallel("all", workflow.All,
			workflow.At("at", at, note),
			workflow.Every("every", func(*timed) workflow.Interval { return workflow.Interval{Period: 1<<63 - 1, Until: never} },
				func(context.Context, *timed) (bool, error) { return false, nil }),
			workflow.Process("deadline", workflow.At("none", func(*timed) time.Time { return time.Time{} }, note)).
				DeadlineAt(at, workflow.SkipRest).
				Monitor("alarm", func(*timed) workflow.Alarm { return workflow.Alarm{At: never} }, note)))
		kit := workflowtest.New(t, def)
		workflowtest.Start(kit, def, "a", timed{})
		kit.Advance(3 * time.Hour)
		for _, path := range []string{"all/at", "all/every", "all/deadline", "all/deadline/none"} {
			kit.RequireTask("a", path, workflow.Executing)
		}
		i := kit.RequireStatus("a", workflow.Executing)
		if _, err := json.Marshal(i); err != nil {
			t.Error(err)
		}
		if string(i.Parameters) != "{}" {
			t.Errorf("something has run: %s", i.Parameters)
		}
	})
}

// TestLongRetry: a delay of more than an hour is kept.
func TestLongRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		def := workflow.New("Daily", workflow.Execute("ask", func(context.Context, *timed) error {
			at = append(at, time.Now())
			return errors.New("nobody is there")
		}).With(workflow.Retry(3, 24*time.Hour)))
		kit := workflowtest.New(t, def)
		workflowtest.Start(kit, def, "a", timed{})
		kit.Advance(72 * time.Hour)
		if len(at) != 3 {
			t.Fatalf("%d attempts", len(at))
		}
		for k, next := range at[1:] {
			if d := next.Sub(at[k]); d < 19*time.Hour || d > 29*time.Hour {
				t.Errorf("after attempt %d it waited %v", k+1, d)
			}
		}
	})
}
