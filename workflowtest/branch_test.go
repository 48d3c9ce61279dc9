package workflowtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// parcel goes through every kind of node that is not in a pizza.
type parcel struct {
	ID       string    `json:"id"`
	Express  bool      `json:"express,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	Polls    int       `json:"polls,omitempty"`
	Left     bool      `json:"left,omitempty"`
	Right    bool      `json:"right,omitempty"`
	Winner   string    `json:"winner,omitempty"`
	At       time.Time `json:"at,omitzero"`
	By       string    `json:"by,omitempty"`
}

func shipping() *workflow.Definition[parcel] {
	do := func(f func(*parcel)) func(context.Context, *parcel) error {
		return func(_ context.Context, p *parcel) error { f(p); return nil }
	}
	never := func(ctx context.Context, _ *parcel) error { <-ctx.Done(); return context.Cause(ctx) }
	return workflow.New("Shipping",
		workflow.Decide("carrier", func(_ context.Context, p *parcel) (string, error) {
			if p.Express {
				return "plane", nil
			}
			return "road", nil
		},
			workflow.Process("plane", workflow.Execute("book", do(func(p *parcel) { p.By = "plane" }))),
			workflow.Execute("road", do(func(p *parcel) { p.By = "road" }))),
		workflow.Parallel("prepare", workflow.All,
			workflow.Process("papers", workflow.Execute("print", do(func(p *parcel) { p.Left = true }))),
			workflow.Execute("pack", do(func(p *parcel) { p.Right = true })),
			workflow.Execute("insure", func(context.Context, *parcel) error { return errors.New("nobody insures this") }).With(workflow.OnFailure(workflow.Continue))),
		workflow.Every("poll", func(p *parcel) workflow.Interval { return workflow.Interval{Period: 10 * time.Second} },
			func(_ context.Context, p *parcel) (bool, error) { p.Polls++; return p.Polls == 3, nil }),
		workflow.Parallel("race", workflow.Any,
			workflow.Execute("fast", do(func(p *parcel) { p.Winner = "fast" })),
			workflow.Execute("never", never),
			workflow.Listen("message", "parcels", workflow.By("id", func(p *parcel) string { return p.ID }, func(m *ready) string { return m.ID }),
				func(_ context.Context, p *parcel, m ready) (bool, error) { return true, nil })),
		workflow.At("deadline", func(p *parcel) time.Time { return p.Deadline }, do(func(p *parcel) { p.At = time.Now() })))
}

func TestBranches(t *testing.T) {
	for _, express := range []bool{true, false} {
		t.Run(fmt.Sprintf("express=%v", express), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				def := shipping()
				kit := workflowtest.New(t, def)
				deadline := time.Now().Add(time.Hour)
				h := workflowtest.Start(kit, def, "p", parcel{ID: "p", Express: express, Deadline: deadline})
				taken, skipped := "carrier/plane/book", "carrier/road"
				if !express {
					taken, skipped = skipped, taken
				}
				kit.RequireTask("p", taken, workflow.Completed)
				kit.RequireTask("p", skipped, workflow.Skipped)
				kit.RequireTask("p", "prepare/insure", workflow.Failure)
				kit.RequireTask("p", "poll", workflow.Executing)
				kit.Advance(21 * time.Second)
				kit.RequireTask("p", "poll", workflow.Completed)
				kit.RequireTask("p", "race/never", workflow.Skipped)
				kit.RequireTask("p", "race/message", workflow.Skipped)
				if w := kit.RequireTask("p", "deadline", workflow.Executing); w.WaitsFor == "" {
					t.Errorf("the task does not say what it waits for: %+v", w)
				}
				kit.Advance(time.Hour)
				got := workflowtest.RequireCompleted(kit, h)
				if late := got.At.Sub(deadline); late < 0 || late > 10*time.Millisecond {
					t.Errorf("At ran %v after its time", late)
				}
				by := "plane"
				if !express {
					by = "road"
				}
				want := parcel{ID: "p", Express: express, Deadline: deadline, Polls: 3, Left: true, Right: true, Winner: "fast", At: got.At, By: by}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("parameters (-want +got):\n%s", diff)
				}
			})
		})
	}
}
