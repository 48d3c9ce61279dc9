package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/workflow"
)

// TestAuditWhileItGrows audits a log that an engine appends to: what is half told between
// partitions then must not count as a violation. When all is quiet, everything must balance.
func TestAuditWhileItGrows(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, err := workflow.Open(ctx, workflow.Config{Log: "mem:?partitions=4", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.Register(waiters); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	life, stop := context.WithCancel(ctx)
	all.Go(func() {
		if err := e.Run(life); err != nil {
			t.Error(err)
		}
	})
	const n = 400
	log := e.Log()
	for client := range 4 {
		all.Go(func() {
			for k := client; k < n; k += 4 {
				order := fmt.Sprint(k)
				if k%3 == 0 { // early
					publish(ctx, t, log, "signals", order)
				}
				h, err := waiters.Start(ctx, e, "w-"+order, job{Order: order})
				if err != nil {
					t.Error(err)
					return
				}
				if k%3 > 0 {
					publish(ctx, t, log, "signals", order)
				}
				if k%3 == 1 { // twice
					publish(ctx, t, log, "signals", order)
				}
				if _, err := h.Wait(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { // ends when the clients and the engine have
		all.Wait()
		close(done)
	}()
	moved := 0
	var r audit.Report
	for r.Instances < n || r.Moved {
		if r, err = audit.Log(ctx, log, audit.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		if r.Moved {
			moved++
		}
	}
	t.Logf("%d events, audited %d times while they grew", r.Events, moved)
	// Acknowledgements come a second later at the most.
	for {
		if r, err = audit.Log(ctx, log, audit.Options{Settled: true}); err != nil {
			t.Fatal(err)
		}
		if r.Violations == 0 && !r.Moved {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(r.Err())
		}
	}
	stop()
	<-done
}

func publish(ctx context.Context, t *testing.T, log eventlog.Log, topic, order string) {
	if err := log.Publish(ctx, eventlog.Record{Topic: topic, Partition: -1, Key: []byte(order), Value: fmt.Appendf(nil, `{"order":%q}`, order)}); err != nil {
		t.Error(err)
	}
}
