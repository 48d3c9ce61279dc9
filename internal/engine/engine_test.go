package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// threeTasks is a plan of n Execute tasks that run f.
func executeCode(t *testing.T, name string, n int, f Handler) *Code {
	t.Helper()
	var nodes []machine.Node
	handlers := map[string]Handler{}
	for k := range n {
		path := fmt.Sprintf("P/t%d", k+1)
		nodes = append(nodes, machine.Node{Path: path, Kind: eventlog.Execute, Retry: &machine.Retry{Attempts: 3, Delay: 5}})
		handlers[path] = f
	}
	plan, err := machine.NewPlan(name, 1, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: nodes}})
	if err != nil {
		t.Fatal(err)
	}
	return &Code{Plan: plan, Handlers: handlers}
}

// startEngine runs an engine on an embedded log in memory until the test ends.
func startEngine(t *testing.T, log eventlog.Log, store projection.Store, codes ...*Code) *Engine {
	t.Helper()
	e, err := New(t.Context(), Config{Log: log, Store: store, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range codes {
		e.registry.add(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e
}

func memLog(t *testing.T) *embedlog.Log {
	t.Helper()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

func memStore(t *testing.T) *memstore.Store {
	return memstore.New(projection.Identity{App: "test", Partitions: 4})
}

func ask(ctx context.Context, e *Engine, u unit) (reply, error) {
	for {
		r := e.runner(eventlog.PartitionOf(u.request.ID, e.log.Partitions()))
		c := newCall()
		u.token, u.offset = c, -1
		if r == nil || !r.submit(u) {
			time.Sleep(time.Millisecond)
			continue
		}
		select {
		case x := <-c.done:
			if errors.Is(x.err, errMoved) {
				continue
			}
			return x, x.err
		case <-ctx.Done():
			return reply{}, ctx.Err()
		}
	}
}

func TestThreeTasks(t *testing.T) {
	var ran atomic.Int64
	code := executeCode(t, "Three", 3, func(ctx context.Context, a Attempt) (Outcome, error) {
		if ran.Add(1)%7 == 0 && a.Attempt == 1 {
			return Outcome{}, errors.New("now and then")
		}
		return Outcome{Patch: json.RawMessage(fmt.Sprintf(`{"n":%d}`, a.Act))}, nil
	})
	log := memLog(t)
	e := startEngine(t, log, memStore(t), code)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for k := range 200 {
		wg.Go(func() {
			id := fmt.Sprintf("i-%d", k)
			x, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: "r" + id, Made: time.Now().UnixMilli(), Definition: "Three", Params: json.RawMessage(`{"a":1}`)}})
			if err != nil || x.answer.Answer != machine.OK {
				t.Errorf("start %s: %+v %v", id, x, err)
				return
			}
			x, err = ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true})
			if err != nil || x.instance.Status != machine.Completed {
				t.Errorf("wait %s: %+v %v", id, x, err)
			}
		})
	}
	wg.Wait()
}
