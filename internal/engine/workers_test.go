package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// TestWorkersComeAndGo has three workers on one log and one store, of which one is always
// stopping or starting, while instances run. Every instance completes.
func TestWorkersComeAndGo(t *testing.T) {
	log, store := memLog(t), memStore(t)
	code := executeCode(t, "Three", 3, func(ctx context.Context, a Attempt) (Outcome, error) {
		return Outcome{}, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	var mu sync.Mutex
	engines := map[int]*Engine{}
	launch := func(k int) (stop func()) {
		e, err := New(ctx, Config{Log: log, Store: store, Worker: fmt.Sprintf("w%d", k), ShutdownTimeout: 50 * time.Millisecond, ProjectInterval: 5 * time.Millisecond})
		if err != nil {
			t.Error(err)
			return func() {}
		}
		e.registry.add(code)
		run, end := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := e.Run(run); err != nil {
				t.Errorf("worker %d: %v", k, err)
			}
		}()
		mu.Lock()
		engines[k] = e
		mu.Unlock()
		return func() {
			end()
			<-done
			mu.Lock()
			delete(engines, k)
			mu.Unlock()
		}
	}
	stops := []func(){launch(0), launch(1), launch(2)}

	owner := func(id string) *Engine {
		p := eventlog.PartitionOf(id, log.Partitions())
		for {
			mu.Lock()
			for _, e := range engines {
				if e.runner(p) != nil {
					mu.Unlock()
					return e
				}
			}
			mu.Unlock()
			if ctx.Err() != nil {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
	}
	var wg sync.WaitGroup
	finished := make(chan struct{})
	completed := make(chan struct{}, 2000)
	for c := range 20 {
		wg.Go(func() {
			for k := range 60 {
				id := fmt.Sprintf("i-%d-%d", c, k)
				request := eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: id, Made: time.Now().UnixMilli(), Definition: "Three"}
				if x := askAny(ctx, owner, unit{request: request}); x.err != nil || x.answer.Answer != machine.OK {
					t.Errorf("start %s: %+v", id, x)
					return
				}
				if x := askAny(ctx, owner, unit{request: eventlog.Request{ID: id}, read: true, wait: true}); x.err != nil || x.instance.Status != machine.Completed {
					t.Errorf("wait for %s: %+v", id, x)
					return
				}
				completed <- struct{}{}
			}
		})
	}
	go func() { wg.Wait(); close(finished) }()
	rounds := 0
	for running := true; running; rounds++ {
		for n := 0; n < 15 && running; n++ { // some work between two changes
			select {
			case <-completed:
			case <-finished:
				running = false
			}
		}
		k := rounds % 3
		stops[k]()
		stops[k] = launch(k)
	}
	for _, stop := range stops {
		stop()
	}
	t.Logf("%d workers stopped and started", rounds)
}

// askAny asks whoever owns the partition until somebody answers.
func askAny(ctx context.Context, owner func(id string) *Engine, u unit) reply {
	u.offset = -1
	for ctx.Err() == nil {
		e := owner(u.request.ID)
		if e == nil {
			break
		}
		r := e.runner(eventlog.PartitionOf(u.request.ID, e.log.Partitions()))
		c := newCall()
		u.token = c
		if r == nil || !r.submit(u) {
			time.Sleep(time.Millisecond)
			continue
		}
		select {
		case x := <-c.done:
			if x.err != errMoved {
				return x
			}
		case <-ctx.Done():
		}
	}
	return reply{err: context.Cause(ctx)}
}
