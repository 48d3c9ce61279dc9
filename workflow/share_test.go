package workflow_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// TestEnginesShareALog: two engines on one log and store share the work, whichever of them a
// call is made to, and when one ends the other goes on with everything.
func TestEnginesShareALog(t *testing.T) {
	log, err := eventlog.Open(t.Context(), "mem:?partitions=8")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	store, err := projection.Open(t.Context(), "mem:", projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	var mu sync.Mutex
	ran := map[int]int{}
	var wg sync.WaitGroup
	defer wg.Wait()
	var engines []*workflow.Engine
	var definitions []*workflow.Definition[job]
	var ends []context.CancelFunc
	for n := range 2 {
		def := workflow.New("Shared",
			workflow.Execute("a", func(context.Context, *job) error { mu.Lock(); defer mu.Unlock(); ran[n]++; return nil }),
			workflow.Listen("news", "news", workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
				func(_ context.Context, j *job, m news) (bool, error) { return m.Last, nil }))
		eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, OpenedStore: store, Worker: fmt.Sprint("worker-", n), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		wg.Go(func() {
			if err := eng.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
			if err := eng.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		engines, definitions, ends = append(engines, eng), append(definitions, def), append(ends, end)
	}
	eventually(t, "both engines have run a handler", func() bool {
		mu.Lock()
		both := ran[0] > 0 && ran[1] > 0
		mu.Unlock()
		if !both {
			if _, err := definitions[0].Start(t.Context(), engines[0], "", job{ID: "probe"}); err != nil {
				t.Fatal(err)
			}
		}
		return both
	})

	const n = 40
	var handles []*workflow.Handle[job]
	for k := range n {
		h, err := definitions[k%2].Start(t.Context(), engines[k%2], fmt.Sprint("job-", k), job{ID: fmt.Sprint(k)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := definitions[1-k%2].Start(t.Context(), engines[1-k%2], h.ID(), job{ID: fmt.Sprint(k)})
		if err != nil || again.Started() {
			t.Errorf("%s was started by both engines: %v", h.ID(), err)
		}
		handles = append(handles, definitions[0].Handle(engines[0], h.ID()))
	}
	publish := func(id string) {
		record := eventlog.Record{Topic: "news", Partition: -1, Value: fmt.Appendf(nil, `{"id":%q,"last":true}`, id)}
		if err := log.Publish(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	for k := range n / 2 {
		publish(fmt.Sprint(k))
	}
	ends[1]() // the second engine goes; what it had goes on in the first
	for k := n / 2; k < n; k++ {
		publish(fmt.Sprint(k))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, h := range handles {
		if _, err := h.Wait(ctx); err != nil {
			t.Errorf("%s: %v", h.ID(), err)
		}
	}
	ends[0]()
}
