package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// deadAddress is where nobody listens.
const deadAddress = "http://127.0.0.1:1/"

// worker runs an engine with a name and address until it is ended.
func worker(t *testing.T, name string, log eventlog.Log, store projection.Store, code *Code) (e *Engine, end func()) {
	t.Helper()
	e, err := New(t.Context(), Config{Log: log, Store: store, Worker: name, Address: deadAddress + name, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(t.Context(), code); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	ended := false
	end = func() {
		if cancel(); !ended {
			ended = true
			if err := <-done; err != nil {
				t.Errorf("Run of %s: %v", name, err)
			}
		}
	}
	t.Cleanup(end)
	return e, end
}

// TestListElsewhere: workers with stores of their own do not list what they do not have and
// can't ask for; those that share one do.
func TestListElsewhere(t *testing.T) {
	for _, shared := range []bool{false, true} {
		log := memLog(t)
		code := executeCode(t, "One", 1, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil })
		one := projection.Store(memStore(t))
		two := one
		if !shared {
			two = memStore(t)
		}
		a, _ := worker(t, "a", log, one, code)
		b, endB := worker(t, "b", log, two, code)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		await := func(what string, ok func() bool) {
			t.Helper()
			for tick := time.NewTicker(5 * time.Millisecond); !ok(); {
				select {
				case <-tick.C:
				case <-ctx.Done():
					t.Fatalf("shared %v: %s", shared, what)
				}
			}
		}
		ready := func(e *Engine) (n int) {
			for _, p := range e.Partitions() {
				if p.Ready {
					n++
				}
			}
			return n
		}
		await("two workers share the partitions", func() bool { return ready(a) > 0 && ready(b) > 0 && ready(a)+ready(b) == 4 })
		for _, id := range []string{"i-1", "i-2", "i-3", "i-4", "i-5", "i-6", "i-7", "i-8"} {
			if _, err := a.Call(ctx, &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "One", Params: json.RawMessage(`{}`)}); err != nil {
				t.Fatal(err)
			}
			if i, err := a.Wait(ctx, id); err != nil || !i.Terminal() {
				t.Fatal(i, err)
			}
		}
		if shared {
			await("all are listed", func() bool {
				page, err := a.List(ctx, Filter{})
				if err != nil {
					t.Fatal(err)
				}
				return len(page.Instances) == 8
			})
			continue
		}
		for range 2 { // the second time what was found before is remembered
			_, err := a.List(ctx, Filter{})
			e, ok := errors.AsType[*ElsewhereError](err)
			if !ok || e.Worker != "b" || e.Address != deadAddress+"b" || !strings.Contains(err.Error(), "connection refused") {
				t.Fatalf("List of a says %v", err)
			}
		}
		if _, _, err := b.Count(ctx, Filter{}); err == nil || err.Error() == "" {
			t.Error("Count of b says nothing")
		}
		endB()
		await("a has them all", func() bool {
			page, err := a.List(ctx, Filter{})
			return err == nil && len(page.Instances) == 8
		})
	}
}
