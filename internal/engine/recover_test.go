package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// runUntil runs an engine for the time that f takes.
func runUntil(t *testing.T, log eventlog.Log, store projection.Store, f func(ctx context.Context, e *Engine), codes ...*Code) {
	t.Helper()
	runUntilTime(t, log, store, 5*time.Minute, f, codes...)
}

func runUntilTime(t *testing.T, log eventlog.Log, store projection.Store, limit time.Duration, f func(ctx context.Context, e *Engine), codes ...*Code) {
	t.Helper()
	e, err := New(t.Context(), Config{Log: log, Store: store, ShutdownTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range codes {
		e.registry.add(c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.Run(run) }()
	f(ctx, e)
	stop()
	if err := <-done; err != nil {
		t.Fatalf("Run: %v", err)
	}
}

// TestRecovery stops an engine with handlers running, then goes on with another one: from the
// store as it was left, from an empty store, and from one that stands far back.
func TestRecovery(t *testing.T) {
	for _, store := range []string{"kept", "lost"} {
		t.Run(store, func(t *testing.T) {
			log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 4})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			s := memstore.New(projection.Identity{App: "test", Partitions: 4})
			const instances = 50
			hanging := make(chan string, instances)
			hang := executeCode(t, "Three", 3, func(ctx context.Context, a Attempt) (Outcome, error) {
				if a.Path == "P/t2" {
					hanging <- a.Instance
					<-ctx.Done()
					return Outcome{}, context.Cause(ctx)
				}
				return Outcome{}, nil
			})
			runUntil(t, log, s, func(ctx context.Context, e *Engine) {
				for k := range instances {
					id := fmt.Sprintf("i-%d", k)
					if _, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: id, Made: time.Now().UnixMilli(), Definition: "Three"}}); err != nil {
						t.Fatal(err)
					}
				}
				for range instances {
					<-hanging
				}
			}, hang)
			if store == "lost" {
				s = memstore.New(projection.Identity{App: "test", Partitions: 4})
			}
			quick := executeCode(t, "Three", 3, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil })
			runUntil(t, log, s, func(ctx context.Context, e *Engine) {
				for k := range instances {
					x, err := ask(ctx, e, unit{request: eventlog.Request{ID: fmt.Sprintf("i-%d", k)}, read: true, wait: true})
					if err != nil || x.instance.Status != machine.Completed {
						t.Fatalf("instance %d: %+v %v", k, x.instance, err)
					}
				}
			}, quick)
		})
	}
}

// lossyStore says when it is told to that a partition is lost, and counts drops.
type lossyStore struct {
	*memstore.Store
	lose  atomic.Bool
	drops atomic.Int64
}

type lossyPartition struct {
	projection.Partition
	s *lossyStore
}

func (s *lossyStore) Acquire(ctx context.Context, p int32, epoch uint64) (projection.Partition, error) {
	part, err := s.Store.Acquire(ctx, p, epoch)
	return &lossyPartition{part, s}, err
}

func (s *lossyStore) Drop(ctx context.Context, p int32, epoch uint64) error {
	s.drops.Add(1)
	return s.Store.Drop(ctx, p, epoch)
}

func (p *lossyPartition) Apply(ctx context.Context, b projection.Batch) error {
	if p.s.lose.CompareAndSwap(true, false) {
		return fmt.Errorf("%w: said the test", projection.ErrStateLost)
	}
	return p.Partition.Apply(ctx, b)
}

// TestStateLostAtWork: the store says in the middle of work that it has lost a partition. It
// is rebuilt, once, and the work goes on.
func TestStateLostAtWork(t *testing.T) {
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := &lossyStore{Store: memstore.New(projection.Identity{App: "test", Partitions: 4})}
	quick := executeCode(t, "Three", 3, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil })
	runUntil(t, log, s, func(ctx context.Context, e *Engine) {
		run := func(id string) {
			t.Helper()
			if _, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: id, Made: time.Now().UnixMilli(), Definition: "Three"}}); err != nil {
				t.Fatal(err)
			}
			x, err := ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true})
			if err != nil || x.instance.Status != machine.Completed {
				t.Fatalf("instance %s: %+v %v", id, x.instance, err)
			}
		}
		for round := range int64(3) {
			s.lose.Store(true)
			for k := 0; s.drops.Load() <= round; k++ {
				run(fmt.Sprintf("i-%d-%d", round, k))
			}
			for k := range 20 {
				run(fmt.Sprintf("j-%d-%d", round, k))
			}
		}
	}, quick)
	if n := s.drops.Load(); n != 3 {
		t.Errorf("after 3 losses the store was dropped %d times", n)
	}
}
