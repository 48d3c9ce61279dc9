package workflowtest_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// TestKeyFunctionEndsItsGoroutine: nobody reads the topic any more here, and readiness says so.
func TestKeyFunctionEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Exits", workflow.Listen("ready", "status", workflow.By("id",
			func(o *order) string { return o.ID },
			func(m *ready) string {
				runtime.Goexit()
				return ""
			}), func(context.Context, *order, ready) (bool, error) { return true, nil }))
		kit := workflowtest.New(t, def)
		kit.Deliver("status", ready{ID: "1"})
		if err := kit.Engine.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "the relay of topic status for id, partition 0: engine: a function of the relay ended its goroutine") {
			t.Errorf("Ready: %v", err)
		}
	})
}
