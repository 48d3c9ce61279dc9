package workflowtest_test

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// TestFunctionsOfRelaysEndTheirGoroutine: such a message is a dead letter, like one at which the
// function panics, and what comes behind is read.
func TestFunctionsOfRelaysEndTheirGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := func(id string) {
			if id == "bad" {
				runtime.Goexit()
			}
		}
		def := workflow.New("Exits", workflow.Listen("ready", "status", workflow.By("id",
			func(o *order) string { return o.ID },
			func(m *ready) string { bad(m.ID); return m.ID }),
			func(context.Context, *order, ready) (bool, error) { return true, nil }))
		def = workflow.StartOn(def, "orders", func(_ context.Context, m *ready) (string, order, error) {
			bad(m.ID)
			return m.ID, order{ID: m.ID}, nil
		})
		kit := workflowtest.New(t, def)
		for _, topic := range []string{"orders", "status"} {
			kit.Deliver(topic, ready{ID: "bad"})
			kit.Deliver(topic, ready{ID: "1"})
		}
		kit.RequireStatus("1", workflow.Completed)
		if err := kit.Engine.Ready(t.Context()); err != nil {
			t.Errorf("Ready: %v", err)
		}
		letters := workflowtest.Sent[ready](kit, eventlog.DeadLetterTopic(kit.Engine.Log().App()))
		if want := []ready{{ID: "bad"}, {ID: "bad"}}; !slices.Equal(letters, want) {
			t.Errorf("dead letters %v", letters)
		}
	})
}
