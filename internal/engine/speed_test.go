package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	_ "github.com/godagger/dagger/backends/pebble"
	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
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

// BenchmarkRebuild folds the events of 40,000 instances of three tasks into an empty Pebble
// store, one partition after the other.
func BenchmarkRebuild(b *testing.B) {
	log, err := embedlog.Open(b.Context(), b.TempDir(), embedlog.Options{App: "test", Partitions: 4})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	open := func() projection.Store {
		store, err := projection.Open(b.Context(), "pebble://"+b.TempDir(), projection.Identity{App: "test", Partitions: 4})
		if err != nil {
			b.Fatal(err)
		}
		return store
	}
	store := open()
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
			for k := next.Add(1); k <= 40_000; k = next.Add(1) {
				id := fmt.Sprintf("i-%d", k)
				_, _ = ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: "r" + id, Made: time.Now().UnixMilli(), Definition: "Three", Params: json.RawMessage(`{"order_id":"1","customer_id":"7"}`)}})
				_, _ = ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true})
			}
		})
	}
	wg.Wait()
	cancel()
	<-done
	store.Close()
	b.ResetTimer()
	var events int64
	for range b.N {
		fresh := open()
		for p := range log.Partitions() {
			r, err := Rebuild(b.Context(), log, fresh, p, nil)
			if err != nil {
				b.Fatal(err)
			}
			events += r.Events
		}
		fresh.Close()
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
