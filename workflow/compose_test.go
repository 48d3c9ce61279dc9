package workflow_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// library has processes for others to be composed of.
func library() *workflow.Definition[job] {
	by := workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID })
	return workflow.New("Library",
		workflow.Process("Simple",
			workflow.Execute("first", step("first")),
			workflow.Listen("news", "news", by, func(_ context.Context, j *job, m news) (bool, error) {
				j.Steps = append(j.Steps, "news")
				return m.Last, nil
			})),
		workflow.Process("Outer",
			workflow.Process("Inner",
				workflow.Decide("which", func(context.Context, *job) (string, error) { return "right", nil },
					workflow.Execute("left", step("left")), workflow.Execute("right", step("right"))),
				workflow.At("then", func(*job) time.Time { return time.Unix(1, 0) }, step("then")))),
		workflow.Execute("task", step("task")),
		workflow.Listen("broken", "broken", workflow.By("id", func(*job) string { panic("this key is of another process") },
			func(m *news) string { return m.ID }), func(context.Context, *job, news) (bool, error) { return true, nil }))
}

// engineOn is an engine on a log that others use too; run lets it run until the test ends.
func engineOn(t *testing.T, log eventlog.Log, definitions ...workflow.AnyDefinition) (eng *workflow.Engine, run func()) {
	t.Helper()
	eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Register(definitions...); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return eng, func() {
		wg.Go(func() {
			if err := eng.Run(t.Context()); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		eventually(t, "the engine runs", func() bool { return workflow.Runs(eng) })
	}
}

func memoryLog(t *testing.T) eventlog.Log {
	t.Helper()
	log, err := eventlog.Open(t.Context(), "mem:?partitions=4")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

// TestComposedElsewhere: one engine composes a definition and starts its instances, another
// one that has registered only the library runs them.
func TestComposedElsewhere(t *testing.T) {
	log := memoryLog(t)
	worker, run := engineOn(t, log, library())
	run()
	composer, _ := engineOn(t, log) // it does not run
	lib := library()
	def := workflow.New("Composed", lib.Process("Outer/Inner"), workflow.Process("again", lib.Process("Simple").With(workflow.OnFailure(workflow.Continue))))
	def = workflow.New("Twice", def.Process("again"), lib.Process("Outer"))
	if err := composer.Register(def); err != nil { // while the worker runs
		t.Fatal(err)
	}
	if _, err := def.Start(t.Context(), composer, "a", job{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	publish(t, log, "news", `{"id":"a","last":true}`)
	got := wait(t, def.Handle(worker, "a"), nil)
	if diff := cmp.Diff([]string{"first", "news", "right", "then"}, got.Steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	i, err := worker.Get(t.Context(), "a")
	if err != nil || i.Definition != "Twice" || len(i.Tasks) == 0 || i.Tasks[0].Path != "again/Simple/first" {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestComposedByRecord: other programs start what was composed, by its name; its keys are
// computed by an engine that never heard of it, also one that comes later.
func TestComposedByRecord(t *testing.T) {
	log := memoryLog(t)
	lib := library()
	composer, _ := engineOn(t, log, workflow.New("Composed", lib.Process("Simple")))
	publishRequest(t, log, `{"v":1,"type":"Start","id":"a","definition":"Composed","params":{"id":"a"}}`)
	if err := composer.Close(); err != nil {
		t.Fatal(err)
	}
	worker, run := engineOn(t, log, library())
	run()
	publish(t, log, "news", `{"id":"a","last":true}`)
	if got := wait(t, lib.Handle(worker, "a"), nil); strings.Join(got.Steps, " ") != "first news" {
		t.Errorf("steps %v", got.Steps)
	}
}

// TestComposedWithOwnCode: a task that stands beside the processes, and a process that is not
// the same, wait for a worker that has their code.
func TestComposedWithOwnCode(t *testing.T) {
	log := memoryLog(t)
	lib := library()
	own := workflow.New("Own", lib.Process("Outer"), workflow.Execute("own", step("own")))
	other := workflow.New("Library", workflow.Process("Outer", workflow.Execute("other", step("other")))).Version(2)
	changed := workflow.New("Changed", other.Process("Outer"))
	worker, run := engineOn(t, log, lib)
	run()
	composer, _ := engineOn(t, log, own, changed)
	for _, def := range []*workflow.Definition[job]{own, changed} {
		if _, err := def.Start(t.Context(), composer, def.Name(), job{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, def.Name()+" waits for its code", func() bool {
			s, err := def.Handle(worker, def.Name()).Status(t.Context())
			return err == nil && len(s.Tasks) > 0 && s.Tasks[0].Status == workflow.Submitted
		})
	}
	// The worker learns the process: what waited goes on.
	if err := worker.Register(other); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, changed.Handle(worker, "Changed"), nil); len(got.Steps) != 1 {
		t.Errorf("steps %v", got.Steps)
	}
	if err := worker.Register(own); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, own.Handle(worker, "Own"), nil); len(got.Steps) != 3 {
		t.Errorf("steps %v", got.Steps)
	}
}

func TestNoSuchProcess(t *testing.T) {
	eng, _ := engineOn(t, memoryLog(t))
	lib := library()
	err := eng.Register(workflow.New("A", lib.Process("Outer/Missing"), lib.Process("task"), workflow.New("B", workflow.Execute("b", step("b"))).Process("P")))
	for _, want := range []string{
		`register A: Missing: Library has no process "Outer/Missing"; it has Simple, Outer, Outer/Inner`,
		`register A: task: Library has no process "task"`,
		`register A: P: B has no process "P"; it has none`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Register says\n%v\nwant in it: %s", err, want)
		}
	}
}

func TestChangedDefinition(t *testing.T) {
	log := memoryLog(t)
	by := workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID })
	listen := func(topic string) workflow.Node[job] {
		return workflow.Listen("news", topic, by, func(context.Context, *job, news) (bool, error) { return true, nil })
	}
	old := workflow.New("Order",
		workflow.Process("P", workflow.Execute("a", step("a")).With(workflow.Retry(3, time.Second)), workflow.Execute("b", step("b")), listen("news").With(workflow.Timeout(time.Hour))),
		workflow.Process("Gone", workflow.Execute("x", step("x"))))
	one, run := engineOn(t, log, old)
	run()
	if _, err := old.Start(t.Context(), one, "old", job{ID: "old"}); err != nil {
		t.Fatal(err)
	}

	young := workflow.New("Order",
		workflow.Process("P", workflow.Execute("b", step("b")), workflow.Execute("a", step("a")).With(workflow.Retry(5, time.Second)),
			workflow.Execute("c", step("c")), listen("olds").With(workflow.Timeout(2*time.Hour))),
		workflow.Parallel("New", workflow.All, workflow.Execute("x", step("x"))))
	two, _ := engineOn(t, log)
	fine := workflow.New("Fine", workflow.Execute("a", step("a")))
	err := two.Register(fine, young)
	if !errors.Is(err, workflow.ErrChanged) {
		t.Fatalf("Register says %v", err)
	}
	want := `register: workflow: definition changed without a new version: Order is not what was registered as version 1:
	Gone: the process is gone
	P: the order was a, b, news; it is b, a, news
	P/a: retry.attempts was 3, is 5
	P/c: a new execute
	P/news: timeout was 1h0m0s, is 2h0m0s
	P/news: topic was "news", is "olds"
	New: a new parallel
running instances need the recorded one: give the new one .Version(2), and register the old one beside it until its instances have ended; where nothing is worth keeping, begin with a fresh log`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("Register says (-want +got):\n%s", diff)
	}
	if _, err := fine.Start(t.Context(), two, "x", job{}); !errors.Is(err, workflow.ErrNotRegistered) {
		t.Errorf("a definition beside the refused one was registered: %v", err)
	}
	if _, err := log.Topic(t.Context(), "olds"); err == nil {
		t.Error("a topic of the refused definition was made")
	}
	err = two.Register(young.Version(2), workflow.New("New", workflow.Execute("a", step("a"))), workflow.New("New", workflow.Execute("b", step("b"))))
	if !errors.Is(err, workflow.ErrChanged) || !strings.Contains(err.Error(), "New is not what was registered as version 1:\n\ta: the execute is gone\n\tb: a new execute") {
		t.Errorf("two at once: %v", err)
	}

	// Both versions live.
	if err := one.Register(young.Version(2)); err != nil {
		t.Fatal(err)
	}
	publish(t, log, "news", `{"id":"old"}`)
	publish(t, log, "olds", `{"id":"young"}`)
	if _, err := young.Version(2).Start(t.Context(), one, "young", job{ID: "young"}); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, old.Handle(one, "old"), nil); strings.Join(got.Steps, " ") != "a b x" {
		t.Errorf("the old one took the steps %v", got.Steps)
	}
	if got := wait(t, old.Handle(one, "young"), nil); strings.Join(got.Steps, " ") != "b a c x" {
		t.Errorf("the new one took the steps %v", got.Steps)
	}
}
