package workflowtest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type freight struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

type sighting struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// freights has a step that fails as long as broken says so.
func freights(broken bool) *workflow.Definition[freight] {
	return workflow.New("Freight", workflow.Process("Way",
		workflow.Listen("scan", "scans", workflow.By("id", func(p *freight) string { return p.ID }, func(s *sighting) string { return s.ID }),
			func(_ context.Context, p *freight, s sighting) (bool, error) {
				p.State = s.State
				return true, nil
			}),
		workflow.Execute("book", func(_ context.Context, p *freight) error {
			if broken {
				return errors.New("no such account")
			}
			p.State += ", booked"
			return nil
		})))
}

// TestNewFrom exports an instance that failed and one that waits, and goes on with each of
// them elsewhere, with the mistake mended.
func TestNewFrom(t *testing.T) {
	failed, waits := filepath.Join(t.TempDir(), "failed.jsonl"), filepath.Join(t.TempDir(), "waits.jsonl")
	synctest.Test(t, func(t *testing.T) {
		def := freights(true)
		kit := workflowtest.New(t, def)
		workflowtest.Start(kit, def, "p-1", freight{ID: "1"})
		workflowtest.Start(kit, def, "p-2", freight{ID: "2"})
		kit.Advance(time.Hour)
		kit.Deliver("scans", sighting{ID: "1", State: "in town"})
		kit.RequireStatus("p-1", workflow.Failure)
		for file, id := range map[string]string{failed: "p-1", waits: "p-2"} {
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(kit.Engine.Export(t.Context(), f, id), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if err := kit.Engine.Export(t.Context(), os.Stderr, "nobody"); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("export of nobody: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		def := freights(false)
		kit := workflowtest.NewFrom(t, failed, def)
		i := kit.RequireStatus("p-1", workflow.Failure)
		if i.Error != "no such account" || i.Ended.IsZero() {
			t.Errorf("%+v", i)
		}
		h := def.Handle(kit.Engine, "p-1")
		if err := h.Retry(t.Context(), "mended"); err != nil {
			t.Fatal(err)
		}
		kit.Advance(time.Second)
		if p := workflowtest.RequireCompleted(kit, h); p.State != "in town, booked" {
			t.Errorf("%+v", p)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		def := freights(false)
		kit := workflowtest.NewFrom(t, waits, def)
		kit.RequireTask("p-2", "Way/scan", workflow.Executing)
		kit.Deliver("scans", sighting{ID: "2", State: "at the door"})
		if p := workflowtest.RequireCompleted(kit, def.Handle(kit.Engine, "p-2")); p.State != "at the door, booked" {
			t.Errorf("%+v", p)
		}
	})
}

// TestHistoryAPI looks back, with the public API.
func TestHistoryAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		def := freights(true)
		kit := workflowtest.New(t, def)
		before := time.Now()
		kit.Advance(time.Minute)
		workflowtest.Start(kit, def, "p-1", freight{ID: "1"})
		kit.Advance(time.Hour)
		while := time.Now()
		kit.Advance(time.Hour)
		kit.Deliver("scans", sighting{ID: "1", State: "in town"})
		kit.RequireStatus("p-1", workflow.Failure)

		if _, err := kit.Engine.GetAt(ctx, "p-1", workflow.AtTime(before)); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("before it was: %v", err)
		}
		if i, err := kit.Engine.GetAt(ctx, "p-1", workflow.AtTime(while)); err != nil || i.Status != workflow.Executing {
			t.Errorf("%+v, %v", i, err)
		}
		fleet, err := kit.Engine.AsOf(ctx, workflow.AtTime(while))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := fleet.Count(ctx, workflow.Filter{}); err != nil || c.Of["Freight"][workflow.Executing] != 1 || c.Total() != 1 {
			t.Errorf("%+v, %v", c, err)
		}
		if p, err := fleet.List(ctx, workflow.Filter{}); err != nil || len(p.Instances) != 1 || p.Instances[0].ID != "p-1" {
			t.Errorf("%+v, %v", p, err)
		}
		if i, err := fleet.Get("p-1"); err != nil || i.Status != workflow.Executing {
			t.Errorf("%+v, %v", i, err)
		}
		changes, err := kit.Engine.Diff(ctx, "p-1", workflow.AtTime(while), workflow.Moment{})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, c := range changes {
			found = found || c == workflow.Change{Path: "status", From: `"EXECUTING"`, To: `"FAILURE"`}
		}
		if !found {
			t.Errorf("%+v", changes)
		}
		if _, err := kit.Engine.Diff(ctx, "nobody", workflow.AtEvent(1), workflow.Moment{}); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("diff of nobody: %v", err)
		}
		h, err := kit.Engine.History(ctx, "p-1", workflow.Moment{})
		if err != nil {
			t.Fatal(err)
		}
		waited := time.Duration(0)
		for _, s := range h.Steps {
			for _, x := range s.Ended {
				if x.Path == "Way/scan" && x.What == "waited for a message on scans with id=1" {
					waited += x.To.Sub(x.From)
				}
			}
		}
		if waited < 2*time.Hour || waited > 2*time.Hour+time.Minute {
			t.Errorf("it waited %v: %+v", waited, h)
		}
	})
}
