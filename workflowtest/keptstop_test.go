package workflowtest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type early struct{ ID string }

// TestStopWithoutStart: a stop waits a day for its start and no longer.
func TestStopWithoutStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Early", workflow.Execute("work", func(context.Context, *early) error { return nil }))
		def = workflow.StartOn(def, "start", func(_ context.Context, id *string) (string, early, error) { return *id, early{*id}, nil })
		def = workflow.StopOn(def, "stop", func(_ context.Context, id *string) (string, error) { return *id, nil })
		kit := workflowtest.New(t, def)
		kit.Deliver("stop", "soon")
		kit.Deliver("stop", "late")
		kit.Advance(23 * time.Hour)
		kit.Deliver("start", "soon")
		if i, err := kit.Engine.Get(t.Context(), "soon"); err != nil || i.Status != workflow.Stopped {
			t.Errorf("after 23 hours: %+v, %v", i, err)
		}
		kit.Advance(2 * time.Hour)
		kit.Deliver("start", "late")
		if i, err := kit.Engine.Get(t.Context(), "late"); err != nil || i.Status != workflow.Completed {
			t.Errorf("after 25 hours: %+v, %v", i, err)
		}
		log := kit.Engine.Log()
		r, err := log.Read(t.Context(), eventlog.DeadLetterTopic(log.App()), 0, 0, "", eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		records, _, err := r.Next(t.Context())
		if err != nil || len(records) != 1 || string(records[0].Value) != `"late"` || string(records[0].Headers[0].Value) != "Stop was refused: not found in 24 hours" {
			t.Errorf("dead letters: %v, %v", records, err)
		}
	})
}
