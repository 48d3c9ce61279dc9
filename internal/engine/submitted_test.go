package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// TestWorkerWithoutCode has an instance running whose definition the next worker does not
// know: its task says so and uses no attempt, until the definition is registered there.
// Protocol rule 13.
func TestWorkerWithoutCode(t *testing.T) {
	log, store := memLog(t), memStore(t)
	entered := make(chan struct{}, 1)
	hang := executeCode(t, "Three", 1, func(ctx context.Context, a Attempt) (Outcome, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return Outcome{}, context.Cause(ctx)
	})
	runUntil(t, log, store, func(ctx context.Context, e *Engine) {
		if _, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: "i", Request: "r", Made: time.Now().UnixMilli(), Definition: "Three"}}); err != nil {
			t.Fatal(err)
		}
		<-entered
	}, hang)

	runUntil(t, log, store, func(ctx context.Context, e *Engine) {
		status := func() *machine.Task {
			x, err := ask(ctx, e, unit{request: eventlog.Request{ID: "i"}, read: true})
			if err != nil {
				t.Fatal(err)
			}
			if got := x.instance.WaitsFor(nil, "P/t1"); x.instance.Task("P/t1").Status == machine.Submitted && !strings.Contains(got, "waits for a worker with Three@") {
				t.Errorf("the task says %q", got)
			}
			return x.instance.Task("P/t1")
		}
		for status().Status != machine.Submitted {
			if ctx.Err() != nil {
				t.Fatalf("the task never became SUBMITTED: %+v", status())
			}
		}
		if a := status().Attempt; a != 1 {
			t.Errorf("attempt %d, want 1: none was used", a)
		}
		e.registry.add(executeCode(t, "Three", 1, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil }))
		x, err := ask(ctx, e, unit{request: eventlog.Request{ID: "i"}, read: true, wait: true})
		if err != nil || x.instance.Status != machine.Completed {
			t.Fatalf("after the code came: %+v, %v", x.instance, err)
		}
	})
}
