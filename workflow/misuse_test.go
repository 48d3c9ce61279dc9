package workflow_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// quiet is an engine in memory that does not run, and says nothing.
func quiet(t *testing.T) *workflow.Engine {
	t.Helper()
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:?partitions=1", Store: "mem:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	})
	return eng
}

// TestClosedEngine: whatever is asked of it is ErrClosed.
func TestClosedEngine(t *testing.T) {
	def := workflow.New("Job", workflow.Execute("a", step("a")))
	eng := quiet(t)
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	h, err := def.Start(t.Context(), eng, "a", job{})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Register":        func() error { return eng.Register(def) },
		"Run":             func() error { return eng.Run(ctx) },
		"Start":           func() error { _, err := def.Start(ctx, eng, "b", job{}); return err },
		"Engine.Start":    func() error { _, _, err := eng.Start(ctx, "Job", "b", nil); return err },
		"Stop":            func() error { return h.Stop(ctx, "") },
		"Wait":            func() error { _, err := h.Wait(ctx); return err },
		"Status":          func() error { _, err := h.Status(ctx); return err },
		"Tree":            func() error { _, err := eng.Tree(ctx, "a"); return err },
		"List":            func() error { _, err := eng.List(ctx, workflow.Filter{}); return err },
		"Trees":           func() error { _, _, err := eng.Trees(ctx, workflow.Filter{}); return err },
		"Count":           func() error { _, err := eng.Count(ctx, workflow.Filter{}); return err },
		"GetAt":           func() error { _, err := eng.GetAt(ctx, "a", workflow.AtEvent(1)); return err },
		"AsOf":            func() error { _, err := eng.AsOf(ctx, workflow.AtTime(time.Now())); return err },
		"Diff":            func() error { _, err := eng.Diff(ctx, "a", workflow.AtEvent(1), workflow.Moment{}); return err },
		"History":         func() error { _, err := eng.History(ctx, "a", workflow.Moment{}); return err },
		"Verify":          func() error { _, err := eng.Verify(ctx, workflow.VerifyOptions{}); return err },
		"Rebuild":         func() error { _, err := eng.Rebuild(ctx, workflow.RebuildOptions{}); return err },
		"Export":          func() error { return eng.Export(ctx, io.Discard, "a") },
		"ExportPartition": func() error { return eng.ExportPartition(ctx, io.Discard, 0) },
		"ExportLog":       func() error { return eng.ExportLog(ctx, io.Discard) },
		"Events": func() (last error) {
			for _, err := range h.Events(ctx) {
				last = err
			}
			return last
		},
	} {
		if err := call(); !errors.Is(err, workflow.ErrClosed) {
			t.Errorf("%s says %v", name, err)
		}
	}
}

// TestEngineThatHasRun: what must be decided is ErrClosed, what is read is not.
func TestEngineThatHasRun(t *testing.T) {
	def := workflow.New("Job", workflow.Execute("a", step("a")))
	eng := quiet(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := eng.Run(ended); err != nil {
		t.Fatal(err)
	}
	if err := eng.Run(t.Context()); err == nil {
		t.Error("it runs again")
	}
	if err := eng.Register(def); !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("Register says %v", err)
	}
	if err := eng.Stop(t.Context(), "a", ""); !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("Stop says %v", err)
	}
	if _, err := eng.List(t.Context(), workflow.Filter{}); err != nil {
		t.Error(err)
	}
}

// TestCloseAtOnce: who closes beside another one waits for it.
func TestCloseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Slow", workflow.Execute("a", func(context.Context, *job) error { time.Sleep(time.Second); return nil }))
		eng := quiet(t)
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() {
			if err := eng.Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, err := def.Start(t.Context(), eng, "a", job{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		for range 3 {
			all.Go(func() {
				if err := eng.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took < time.Second {
					t.Errorf("closed after %v, while a handler was at work", took)
				}
			})
		}
		all.Wait()
	})
}

// TestEndedContext: a call that comes with it changes nothing.
func TestEndedContext(t *testing.T) {
	def := workflow.New("Job", workflow.Execute("a", step("a")))
	eng := running(t, def)
	mine := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	if _, err := def.Start(ctx, eng, "a", job{}); !errors.Is(err, mine) {
		t.Errorf("Start says %v", err)
	}
	h, err := def.Start(t.Context(), eng, "a", job{})
	if err != nil || !h.Started() {
		t.Errorf("it was started before: %v", err)
	}
}

// TestInstanceOfAnotherDefinition: its parameters are not read as if they were of this one.
func TestInstanceOfAnotherDefinition(t *testing.T) {
	type other struct{ Name string }
	def := workflow.New("Job", workflow.Execute("a", step("a")))
	another := workflow.New("Other", workflow.Execute("a", func(context.Context, *other) error { return nil }))
	eng := running(t, def, another)
	if _, err := def.Start(t.Context(), eng, "a", job{ID: "x"}); err != nil {
		t.Fatal(err)
	}
	h, err := another.Start(t.Context(), eng, "a", other{"y"})
	if err != nil || h.Started() {
		t.Fatal(err)
	}
	if _, err := h.Wait(t.Context()); err == nil || err.Error() != "wait for a: it is an instance of Job with parameters workflow_test.job, not workflow_test.other" {
		t.Errorf("Wait says %v", err)
	}
}

// TestParametersThatAreNoJSON are ErrParameters, and start nothing.
func TestParametersThatAreNoJSON(t *testing.T) {
	type odd struct {
		F float64
		T time.Time
	}
	def := workflow.New("Odd", workflow.At("a", func(o *odd) time.Time { return o.T }, func(context.Context, *odd) error { return nil }))
	eng := running(t, def)
	for _, o := range []odd{{F: math.NaN()}, {T: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}} {
		if _, err := def.Start(t.Context(), eng, "a", o); !errors.Is(err, workflow.ErrParameters) {
			t.Errorf("Start says %v", err)
		}
	}
	if _, _, err := eng.Start(t.Context(), "Odd", "a", []byte(" null ")); !errors.Is(err, workflow.ErrParameters) || !strings.Contains(err.Error(), "they are null, not a JSON object") {
		t.Errorf("of null Start says %v", err)
	}
	if _, _, err := eng.Start(t.Context(), "Odd", "a\n", nil); err == nil || errors.Is(err, workflow.ErrParameters) {
		t.Errorf("of a wrong id Start says %v", err)
	}
	if _, err := eng.Get(t.Context(), "a"); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("Get says %v", err)
	}
}

// slowLog is a log that may not answer who publishes.
type slowLog struct {
	eventlog.Log
	hang bool
}

func (l *slowLog) Publish(ctx context.Context, r ...eventlog.Record) error {
	if l.hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return l.Log.Publish(ctx, r...)
}

// TestRegisterThatHangs holds nothing up, and Close ends it.
func TestRegisterThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{Log: memoryLog(t)}
		def := workflow.New("Job", workflow.Execute("a", step("a")))
		eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		log.hang = true
		said := make(chan error)
		for _, name := range []string{"B", "C"} {
			go func() { said <- eng.Register(workflow.New(name, workflow.Execute("a", step("a")))) }()
		}
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := def.Start(ctx, eng, "a", job{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start says %v", err)
		}
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-said; !errors.Is(err, workflow.ErrClosed) {
				t.Errorf("Register says %v", err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestNilDefinitions are mistakes, whatever their type.
func TestNilDefinitions(t *testing.T) {
	var none *workflow.Definition[job]
	if err := quiet(t).Register(nil, none); err == nil || strings.Count(err.Error(), "register: a definition is nil") != 2 {
		t.Errorf("Register says %v", err)
	}
}
