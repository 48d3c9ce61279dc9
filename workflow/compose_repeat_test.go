package workflow_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/workflow"
)

// rich is a library whose process has what has functions and paths of its own.
func rich() *workflow.Definition[job] {
	return workflow.New("Rich", workflow.Process("Outer", workflow.Process("All",
		workflow.Dynamic("dynamic", func(context.Context, *job) ([]string, error) { return []string{"one", "two", "one"}, nil },
			workflow.Process("one", workflow.Execute("a", step("one"))), workflow.Process("two", workflow.Execute("a", step("two")))),
		workflow.ForEach("each", func(_ context.Context, j *job) ([]job, error) { return []job{{ID: "x"}, {ID: "y"}}, nil },
			func(_ context.Context, j *job, items []job) error {
				for _, i := range items {
					j.Steps = append(j.Steps, i.Steps...)
				}
				return nil
			}, workflow.At("at", func(j *job) time.Time { return time.Unix(1, 0) }, func(_ context.Context, j *job) error { j.Steps = []string{j.ID}; return nil })),
		workflow.Execute("last", step("last")).Monitor("watch", func(*job) workflow.Alarm { return workflow.Alarm{} }, func(context.Context, *job) error { return nil }))))
}

// TestComposedOfAllKinds: lists, choices, monitors and times come along with their process,
// and so do options that have no function.
func TestComposedOfAllKinds(t *testing.T) {
	log := memoryLog(t)
	worker, run := engineOn(t, log, rich())
	run()
	def := workflow.New("Composed", workflow.Process("P", rich().Process("Outer/All").With(workflow.Deadline(time.Hour, workflow.FailNode))))
	composer, _ := engineOn(t, log, def)
	if _, err := def.Start(t.Context(), composer, "a", job{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	got := wait(t, def.Handle(worker, "a"), nil)
	if diff := cmp.Diff([]string{"one", "two", "one", "x", "y", "last"}, got.Steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	// A function of the composer's own is not there.
	own := workflow.New("Own", workflow.Process("P", rich().Process("Outer/All")).OnStop(func(context.Context, *job) error { return nil }))
	if err := composer.Register(own); err != nil {
		t.Fatal(err)
	}
	if _, err := own.Start(t.Context(), composer, "b", job{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b waits for its code", func() bool {
		s, err := own.Handle(worker, "b").Status(t.Context())
		if err != nil {
			return false
		}
		for _, task := range s.Tasks {
			if task.Status == workflow.Submitted {
				return true
			}
		}
		return false
	})
}

func TestChangedRichDefinition(t *testing.T) {
	eng, _ := engineOn(t, memoryLog(t), rich())
	err := eng.Register(rich().Retain(time.Hour))
	if err == nil || !strings.Contains(err.Error(), "\n\tretain was not set, is 1h0m0s\n") {
		t.Errorf("Register says %v", err)
	}
	err = eng.Register(workflow.New("Rich", workflow.Process("Outer", workflow.Process("All",
		workflow.Execute("last", step("last")).Monitor("other", func(*job) workflow.Alarm { return workflow.Alarm{} }, func(context.Context, *job) error { return nil })))))
	want := `register: workflow: definition changed without a new version: Rich is not what was registered as version 1:
	Outer/All/dynamic: the dynamic is gone
	Outer/All/each: the foreach is gone
	Outer/All/last@watch: the monitor is gone
	Outer/All/last@other: a new monitor
`
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Register says\n%v\nwant\n%s", err, want)
	}
}
