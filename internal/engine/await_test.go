package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// commitLog is a log whose commits take a time.
type commitLog struct {
	eventlog.Log
	took    time.Duration
	commits atomic.Int64
}

func (l *commitLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return commitOwner{o, l}, err
}

type commitOwner struct {
	eventlog.Owner
	l *commitLog
}

func (o commitOwner) Commit(ctx context.Context) error {
	time.Sleep(o.l.took)
	o.l.commits.Add(1)
	return o.Owner.Commit(ctx)
}

// loaded is the median time of instances with three tasks, of which one starts every so often.
func loaded(t *testing.T, commit, handler, every time.Duration) (median time.Duration, commits float64) {
	const n = 400
	took := make([]time.Duration, n)
	synctest.Test(t, func(t *testing.T) {
		log := &commitLog{Log: memLog(t), took: commit}
		e := startEngine(t, log, memStore(t), executeCode(t, "Three", 3, func(context.Context, Attempt) (Outcome, error) {
			time.Sleep(handler)
			return Outcome{}, nil
		}))
		time.Sleep(time.Second) // the partitions are owned
		before := log.commits.Load()
		var wg sync.WaitGroup
		for k := range n {
			time.Sleep(every)
			wg.Go(func() {
				begin := time.Now()
				id := fmt.Sprintf("i%d", k)
				if _, err := ask(t.Context(), e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: id, Definition: "Three"}}); err != nil {
					t.Error(err)
				}
				if _, err := ask(t.Context(), e, unit{request: eventlog.Request{ID: id}, read: true, wait: true}); err != nil {
					t.Error(err)
				}
				took[k] = time.Since(begin)
			})
		}
		wg.Wait()
		commits = float64(log.commits.Load()-before) / n
	})
	slices.Sort(took)
	return took[n/2], commits
}

// TestResultsComeWithTheNextTurn: an instance whose handlers are quick needs a transaction for its
// start and one for each task, however many others are under way; and it waits half of one on
// average before its start. Handlers that take longer cost nobody anything.
func TestResultsComeWithTheNextTurn(t *testing.T) {
	const commit = 8 * time.Millisecond
	for _, c := range []struct {
		handler, most time.Duration
	}{
		{0, 5 * commit},
		{commit / 20, 5 * commit},
		{commit / 2, 8 * commit}, // each result waits for the transaction that is under way
	} {
		median, commits := loaded(t, commit, c.handler, 2*time.Millisecond)
		t.Logf("handlers of %v: median %v, %.2f transactions an instance", c.handler, median, commits)
		if median > c.most {
			t.Errorf("with handlers of %v an instance takes %v, want at most %v", c.handler, median, c.most)
		}
	}
}

// TestAwaitInVain: where handlers are too slow, they are waited for ever more seldom, until one is
// quick again.
func TestAwaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAwait()
		a.took = 8 * time.Millisecond
		turns := func(n int, quick bool) (waited time.Duration) {
			for range n {
				begin := time.Now()
				a.expect(2)
				if quick {
					a.came()
					a.came()
				}
				a.wait(t.Context(), 2)
				waited += time.Since(begin)
			}
			return waited
		}
		if d := turns(10, true); d != 0 {
			t.Errorf("quick handlers were waited for %v", d)
		}
		if d := turns(1, false); d != time.Millisecond {
			t.Errorf("slow handlers were waited for %v at first, not 1ms", d)
		}
		turns(200, false)
		if d := turns(64*10, false); d != 10*time.Millisecond {
			t.Errorf("slow handlers were waited for %v in 640 turns, want 10ms", d)
		}
		if a.came() {
			t.Error("a late result is waited for")
		}
		turns(64, true)
		if a.skip != 0 || a.vain != 0 {
			t.Errorf("after quick ones %d turns don't wait", a.skip)
		}
	})
}
