package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type job struct {
	ID    string   `json:"id"`
	Steps []string `json:"steps,omitempty"`
}

type news struct {
	ID   string `json:"id"`
	Last bool   `json:"last"`
}

func step(name string) func(context.Context, *job) error {
	return func(_ context.Context, j *job) error { j.Steps = append(j.Steps, name); return nil }
}

// running is an engine on memory that runs until the test ends.
func running(t *testing.T, definitions ...workflow.AnyDefinition) *workflow.Engine {
	t.Helper()
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:?partitions=4", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Register(definitions...); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := eng.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		wg.Wait()
	})
	eventually(t, "the engine runs", func() bool { return workflow.Runs(eng) })
	return eng
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(5 * time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in five minutes: %s", what)
		}
		<-tick.C
	}
}

func TestStartIsIdempotent(t *testing.T) {
	def := workflow.New("Steps", workflow.Execute("a", step("a")), workflow.Process("P", workflow.Execute("b", step("b")), workflow.Execute("c", step("c"))))
	eng := running(t, def)
	for n := range 2 {
		h, err := def.Start(t.Context(), eng, "job-1", job{ID: fmt.Sprint(n)})
		if err != nil {
			t.Fatal(err)
		}
		if h.Started() != (n == 0) || h.ID() != "job-1" {
			t.Errorf("start %d: Started is %v, id %q", n, h.Started(), h.ID())
		}
		got, err := h.Wait(t.Context())
		if diff := cmp.Diff(job{ID: "0", Steps: []string{"a", "b", "c"}}, got); diff != "" || err != nil {
			t.Errorf("start %d (-want +got):\n%s%v", n, diff, err)
		}
	}
	a, err := def.Start(t.Context(), eng, "", job{})
	if err != nil || len(a.ID()) != 36 {
		t.Fatalf("made-up id %q, %v", a.ID(), err)
	}
	if _, err := def.Start(t.Context(), eng, "a\nb", job{}); err == nil {
		t.Error("a control character in an id was taken")
	}
	if _, err := def.Handle(eng, "nobody").Status(t.Context()); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("status of nobody: %v", err)
	}
	other := workflow.New("Other", workflow.Execute("a", step("a")))
	if _, err := other.Start(t.Context(), eng, "x", job{}); !errors.Is(err, workflow.ErrNotRegistered) {
		t.Errorf("start of an unregistered definition: %v", err)
	}
}

func TestFailureAndRetry(t *testing.T) {
	var mu sync.Mutex
	broken := true
	attempts := map[string]int{}
	def := workflow.New("Fails",
		workflow.Execute("first", step("first")),
		workflow.Execute("second", func(ctx context.Context, j *job) error {
			mu.Lock()
			defer mu.Unlock()
			attempts[workflow.TaskFrom(ctx).IdempotencyKey]++
			j.Steps = append(j.Steps, "lost")
			if broken && j.ID == "panic" {
				panic("out of cheese")
			}
			if broken {
				return fmt.Errorf("attempt %d", workflow.TaskFrom(ctx).Attempt)
			}
			j.Steps[len(j.Steps)-1] = "second"
			return nil
		}).With(workflow.Retry(3, time.Millisecond)))
	eng := running(t, def)
	h, err := def.Start(t.Context(), eng, "job-1", job{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Wait(t.Context())
	failed, ok := errors.AsType[*workflow.TaskError](err)
	if !ok || failed.Definition != "Fails" || failed.Instance != "job-1" || failed.Path != "second" || failed.Attempt != 3 || failed.Err.Error() != "attempt 3" {
		t.Errorf("Wait: %v", err)
	}
	if diff := cmp.Diff([]string{"first"}, got.Steps); diff != "" {
		t.Errorf("parameters after the failure (-want +got):\n%s", diff)
	}
	if err := h.Stop(t.Context(), "no"); !errors.Is(err, workflow.ErrEnded) {
		t.Errorf("Stop of a failed instance: %v", err)
	}
	p, err := def.Start(t.Context(), eng, "job-2", job{ID: "panic"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "panic: out of cheese") {
		t.Errorf("Wait after a panic: %v", err)
	}
	var stack bool
	for e, err := range p.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		stack = stack || e.Type == eventlog.TaskFailed && strings.Contains(e.Stack, "engine_test.go")
	}
	if !stack {
		t.Error("no event has the panic's stack")
	}

	mu.Lock()
	broken = false
	mu.Unlock()
	if err := h.Retry(t.Context(), "cheese is back"); err != nil {
		t.Fatal(err)
	}
	got, err = h.Wait(t.Context())
	if diff := cmp.Diff([]string{"first", "second"}, got.Steps); diff != "" || err != nil {
		t.Errorf("after Retry (-want +got):\n%s%v", diff, err)
	}
	if err := h.Retry(t.Context(), "again"); !errors.Is(err, workflow.ErrNotFailed) {
		t.Errorf("Retry of a completed instance: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	var counts []int
	for _, n := range attempts {
		counts = append(counts, n)
	}
	if len(attempts) != 3 || counts[0]+counts[1]+counts[2] != 7 {
		t.Errorf("idempotency keys and their attempts: %v; want one key for each start of the task: 3, 3 and 1 attempts", attempts)
	}
}

func TestStopListCountAndTwoEngines(t *testing.T) {
	def := workflow.New("Waits", workflow.Listen("news", "news", workflow.By("id",
		func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
		func(_ context.Context, j *job, m news) (bool, error) {
			j.Steps = append(j.Steps, "news")
			return m.Last, nil
		}))
	one, two := running(t, def), running(t, def)
	for n := range 5 {
		if _, err := def.Start(t.Context(), one, fmt.Sprintf("job-%d", n), job{ID: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	h := def.Handle(one, "job-3")
	status, err := h.Status(t.Context())
	if err != nil || status.Status != workflow.Executing || len(status.Tasks) != 1 || !strings.HasPrefix(status.Tasks[0].WaitsFor, "waits for a message on news with id=3, since ") {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := h.Stop(t.Context(), "enough"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(t.Context()); !errors.Is(err, workflow.ErrStopped) || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Wait for a stopped instance: %v", err)
	}
	last := news{ID: "4", Last: true}
	for _, m := range []news{{ID: "4"}, last} {
		if err := one.Log().Publish(t.Context(), eventlog.Record{Topic: "news", Partition: -1, Value: fmt.Appendf(nil, `{"id":%q,"last":%v}`, m.ID, m.Last)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := def.Handle(one, "job-4").Wait(t.Context()); err != nil || len(got.Steps) != 2 {
		t.Errorf("job-4 ended with %+v, %v", got, err)
	}

	// The store is behind the log by a moment.
	var counts workflow.Counts
	want := map[string]map[workflow.Status]int64{"Waits": {workflow.Executing: 3, workflow.Stopped: 1, workflow.Completed: 1}}
	eventually(t, "the store counts 3 executing, 1 stopped, 1 completed", func() bool {
		if counts, err = one.Count(t.Context(), workflow.Filter{}); err != nil {
			t.Fatal(err)
		}
		return cmp.Equal(want, counts.Of)
	})
	seen := map[string]workflow.Status{}
	f := workflow.Filter{Definition: "Waits", Limit: 2, AtLeast: counts.AsOf}
	for {
		page, err := one.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Instances) > 2 {
			t.Errorf("a page of %d", len(page.Instances))
		}
		for _, i := range page.Instances {
			seen[i.ID] = i.Status
		}
		if f.Cursor = page.Cursor; f.Cursor == "" {
			break
		}
	}
	wantList := map[string]workflow.Status{"job-0": workflow.Executing, "job-1": workflow.Executing, "job-2": workflow.Executing, "job-3": workflow.Stopped, "job-4": workflow.Completed}
	if diff := cmp.Diff(wantList, seen); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if c, err := two.Count(t.Context(), workflow.Filter{}); err != nil || c.Total() != 0 {
		t.Errorf("the other engine has %d instances, %v", c.Total(), err)
	}
}

func TestConfig(t *testing.T) {
	_, err := workflow.Open(t.Context(), workflow.Config{Slots: -1, ShutdownTimeout: -time.Second})
	for _, want := range []string{"Slots is -1", "ShutdownTimeout is -1s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open says %v, want %s in it", err, want)
		}
	}
	_, err = workflow.Open(t.Context(), workflow.Config{Log: "mem:", Store: "redis://localhost"})
	if err == nil || !strings.Contains(err.Error(), `import _ "github.com/godagger/dagger/backends/redis"`) {
		t.Errorf("Open of a store that is not linked: %v", err)
	}
}

func TestRegisterAgainstOthers(t *testing.T) {
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:?app=shop", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	by := workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID })
	byJob := workflow.By("id", func(j *job) string { return j.ID }, func(m *job) string { return m.ID })
	listen := workflow.Listen("l", "topic", by, func(context.Context, *job, news) (bool, error) { return true, nil })
	if err := eng.Register(workflow.New("A", listen)); err != nil {
		t.Fatal(err)
	}
	err = eng.Register(nil, workflow.New("B",
		workflow.Listen("l", "topic", byJob, func(context.Context, *job, job) (bool, error) { return true, nil }),
		workflow.Command("c", "shop.events", func(context.Context, *job) (job, error) { return job{}, nil })))
	for _, want := range []string{
		"register: a definition is nil",
		"register B: c: topic shop.events is one of the engine's own",
		"register B: l: id of topic topic is computed from workflow_test.job here and from workflow_test.news at A: l",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Register says\n%v\nwant in it: %s", err, want)
		}
	}
	if err := eng.Close(); err != nil {
		t.Error(err)
	}
	if err := eng.Register(workflow.New("A", listen)); !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("Register after Close: %v", err)
	}
}

// TestStartBeforeRun: a start that only stands in the log is found when the engine runs.
func TestStartBeforeRun(t *testing.T) {
	def := workflow.New("Steps", workflow.Execute("a", step("a")))
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	h, err := def.Start(t.Context(), eng, "early", job{ID: "1"})
	if err != nil || !h.Started() {
		t.Fatalf("Start: %v, %v", h, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if got, err := h.Wait(t.Context()); err != nil || len(got.Steps) != 1 {
		t.Errorf("Wait: %+v, %v", got, err)
	}
	cancel()
	wg.Wait()
	if err := errors.Join(eng.Close(), eng.Close()); err != nil {
		t.Error(err)
	}
	if _, err := def.Start(t.Context(), eng, "late", job{}); !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("Start after Close: %v", err)
	}
	if err := eng.Run(t.Context()); !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
}
