package workflow_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/workflow"
)

// A handler that ends its goroutine, as t.FailNow does, has failed, and its slot is free again.
func TestHandlerEndsItsGoroutine(t *testing.T) {
	def := workflow.New("Exits", workflow.Execute("exit", func(context.Context, *job) error {
		runtime.Goexit()
		return nil
	}).With(workflow.Retry(2, time.Millisecond)))
	eng := running(t, def)
	for _, id := range []string{"job-1", "job-2", "job-3", "job-4", "job-5", "job-6", "job-7", "job-8"} {
		h, err := def.Start(t.Context(), eng, id, job{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "ended its goroutine") {
			t.Errorf("Wait: %v", err)
		}
	}
	eventually(t, "the slots are free", func() bool { return eng.Slots().Running == 0 })
}
