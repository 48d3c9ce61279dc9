package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	_ "github.com/godagger/dagger/backends/pebble"
	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// BenchmarkEngine is three tasks that do nothing, durable, without the public API: embedded,
// or on the broker that KAFKA_BROKERS names.
func BenchmarkEngine(b *testing.B) {
	var log eventlog.Log
	var err error
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		log, err = eventlog.Open(b.Context(), "kafka://"+brokers+"/bench-"+uuid.NewString()[:8]+"?partitions=16&replication=1")
	} else {
		log, err = embedlog.Open(b.Context(), b.TempDir(), embedlog.Options{App: "test", Partitions: 16})
	}
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	clients := 512
	if n, err := strconv.Atoi(os.Getenv("CLIENTS")); err == nil {
		clients = n
	}
	store, err := projection.Open(b.Context(), "pebble://"+b.TempDir(), projection.Identity{App: "test", Partitions: 16})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	e, err := New(b.Context(), Config{Log: log, Store: store})
	if err != nil {
		b.Fatal(err)
	}
	t := &testing.T{}
	e.registry.add(executeCode(t, "Three", 3, func(ctx context.Context, a Attempt) (Outcome, error) { return Outcome{}, nil }))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: "warm", Request: "warm", Definition: "Three"}}); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	b.ResetTimer()
	start := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				k := next.Add(1)
				if k > int64(b.N) {
					return
				}
				id := fmt.Sprintf("i-%d", k)
				if _, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: "r" + id, Made: time.Now().UnixMilli(), Definition: "Three", Params: json.RawMessage(`{"order_id":"1","customer_id":"7"}`)}}); err != nil {
					b.Error(err)
				}
				if _, err := ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "instances/s")
}

// foldLog is a log of 4 partitions with the events of n instances of three tasks, and the store
// that their engine kept.
func foldLog(b *testing.B, n int64) (eventlog.Log, projection.Store) {
	log, err := embedlog.Open(b.Context(), b.TempDir(), embedlog.Options{App: "test", Partitions: 4})
	if err != nil {
		b.Fatal(err)
	}
	store := foldStore(b)
	b.Cleanup(func() { store.Close(); log.Close() })
	e, err := New(b.Context(), Config{Log: log, Store: store})
	if err != nil {
		b.Fatal(err)
	}
	e.registry.add(executeCode(&testing.T{}, "Three", 3, func(ctx context.Context, a Attempt) (Outcome, error) { return Outcome{}, nil }))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for k := next.Add(1); k <= n; k = next.Add(1) {
				id := fmt.Sprintf("i-%d", k)
				_, _ = ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: uuid.Must(uuid.NewV7()).String(), Made: time.Now().UnixMilli(), Definition: "Three", Params: json.RawMessage(`{"order_id":"1","customer_id":"7"}`)}})
				_, _ = ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true})
			}
		})
	}
	wg.Wait()
	cancel()
	<-done
	return log, store
}

// foldStore opens an empty store.
func foldStore(b *testing.B) projection.Store {
	store, err := projection.Open(b.Context(), "pebble://"+b.TempDir(), projection.Identity{App: "test", Partitions: 4})
	if err != nil {
		b.Fatal(err)
	}
	return store
}

// perEvent reports how fast events were folded, by the clock and by this process's processor
// time, which counts what works beside the fold too.
func perEvent(b *testing.B, events int64, cpu time.Duration) {
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(events)/cpu.Seconds(), "events/cpu-s")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRebuild folds the events of 40,000 instances of three tasks into an empty store,
// one partition after the other.
func BenchmarkRebuild(b *testing.B) {
	log, _ := foldLog(b, 40_000)
	b.ResetTimer()
	var events int64
	var cpu time.Duration
	for range b.N {
		fresh := foldStore(b)
		began := cpuTime()
		for p := range log.Partitions() {
			r, err := rebuildOne(b.Context(), log, fresh, p, RebuildOptions{})
			if err != nil {
				b.Fatal(err)
			}
			events += r.Events
		}
		fresh.Close()
		cpu += cpuTime() - began
	}
	perEvent(b, events, cpu)
}

// BenchmarkVerify compares a store with the events of 40,000 instances of three tasks.
func BenchmarkVerify(b *testing.B) {
	log, store := foldLog(b, 40_000)
	b.ResetTimer()
	var events int64
	began := cpuTime()
	for range b.N {
		v, err := Verify(b.Context(), log, store, nil)
		if err != nil || v.Differences > 0 {
			b.Fatal(v.First, err)
		}
		events += v.Events
	}
	perEvent(b, events, cpuTime()-began)
}

// TestWaiting starts WAITING instances that wait for a message that never comes, and prints
// what they cost: memory, and the pace of others beside them. It runs only when asked.
func TestWaiting(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("WAITING"))
	if err != nil {
		t.Skip("WAITING is not set: no instances were left waiting")
	}
	log, err := embedlog.Open(t.Context(), t.TempDir(), embedlog.Options{App: "test", Partitions: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	store, err := projection.Open(t.Context(), "pebble://"+t.TempDir(), projection.Identity{App: "test", Partitions: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	plan, err := machine.NewPlan("Waits", 1, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: []machine.Node{{Path: "P/l", Kind: eventlog.Listen, Topic: "nobody", Key: "k", TTL: 3600_000}}}})
	if err != nil {
		t.Fatal(err)
	}
	waits := &Code{Plan: plan, Handlers: map[string]Handler{"P/l": func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil }},
		Keys: func(string, json.RawMessage) ([]eventlog.TaskKey, error) { return nil, nil }}
	three := executeCode(t, "Three", 3, func(ctx context.Context, a Attempt) (Outcome, error) { return Outcome{}, nil })
	runUntilTime(t, log, store, 30*time.Minute, func(ctx context.Context, e *Engine) {
		load := func(definition, prefix string, n int, wait bool) float64 {
			began := time.Now()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range 512 {
				wg.Go(func() {
					for k := next.Add(1); k <= int64(n); k = next.Add(1) {
						id := fmt.Sprintf("%s-%d", prefix, k)
						r := eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: "r" + id, Made: time.Now().UnixMilli(), Definition: definition, Params: json.RawMessage(`{"order_id":"1","customer_id":"7"}`)}
						if !wait {
							r.Keys, r.HasKeys = []eventlog.TaskKey{{Path: "P/l", Value: fmt.Sprintf("key-%d", k)}}, true
						}
						if _, err := ask(ctx, e, unit{request: r}); err != nil {
							t.Error(err)
							return
						}
						if wait {
							if _, err := ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true}); err != nil {
								t.Error(err)
								return
							}
						}
					}
				})
			}
			wg.Wait()
			return float64(n) / time.Since(began).Seconds()
		}
		t.Logf("before: %.0f instances/s, %s", load("Three", "a", 50_000, true), memory())
		t.Logf("waiting: %.0f starts/s of %d, %s", load("Waits", "w", n, false), n, memory())
		if path := os.Getenv("HEAP"); path != "" {
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			_ = pprof.WriteHeapProfile(f)
			f.Close()
		}
		t.Logf("after: %.0f instances/s, %s", load("Three", "b", 50_000, true), memory())
	}, three, waits)
}

// memory is what the process has now.
func memory() string {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") {
			return fmt.Sprintf("heap %d MB, %s", m.HeapAlloc>>20, strings.Join(strings.Fields(line), " "))
		}
	}
	return fmt.Sprintf("heap %d MB", m.HeapAlloc>>20)
}
