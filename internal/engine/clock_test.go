package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/machine"
)

// TestClockForwardAndBack sets the clock an hour forward, two hours back and forward again
// under instances that wait for retries. None is lost or happens twice. What was armed before
// the clock was set back waits until the clock has come to its time; all else goes on.
func TestClockForwardAndBack(t *testing.T) {
	log, store := memLog(t), memStore(t)
	var offset atomic.Int64
	e, err := New(t.Context(), Config{
		Log: log, Store: store, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), TriggerInterval: 300 * time.Millisecond,
		ProjectInterval: 5 * time.Millisecond, ShutdownTimeout: time.Second,
		Now: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	// Every third instance fails its first attempt at each task.
	var ran sync.Map
	e.registry.add(executeCode(t, "Three", 3, func(_ context.Context, a Attempt) (Outcome, error) {
		if json.Valid(a.Params) && a.Attempt == 1 {
			var p struct{ Fails bool }
			if err := json.Unmarshal(a.Params, &p); err != nil || p.Fails {
				return Outcome{}, errors.New("the first attempt fails")
			}
		}
		if _, twice := ran.LoadOrStore(a.Instance+a.Path, true); twice {
			t.Errorf("%s %s succeeded before", a.Instance, a.Path)
		}
		return Outcome{}, nil
	}))
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	partitions := func(what string, holds func(PartitionStatus) bool) {
		t.Helper()
		for n := 0; n < int(log.Partitions()); time.Sleep(time.Millisecond) {
			n = 0
			for _, p := range e.Partitions() {
				if holds(p) {
					n++
				}
			}
			if ctx.Err() != nil {
				t.Fatalf("%d partitions %s", n, what)
			}
		}
	}
	partitions("are ready", func(p PartitionStatus) bool { return p.Ready })
	var all []string
	start := func(phase string, fails bool) {
		for k := range 30 {
			id := fmt.Sprintf("%s-%v-%d", phase, fails, k)
			all = append(all, id)
			a, err := e.Call(ctx, &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "Three", Params: json.RawMessage(fmt.Sprintf(`{"Fails":%v}`, fails))})
			if err != nil || a.Answer != machine.OK {
				t.Fatalf("start %s: %+v, %v", id, a, err)
			}
		}
	}
	completed := func(ids []string) {
		t.Helper()
		for _, id := range ids {
			i, err := e.Wait(ctx, id)
			if err != nil || i.Status != machine.Completed {
				t.Fatalf("wait for %s: %+v, %v", id, i, err)
			}
		}
	}
	start("now", true)
	offset.Store(int64(time.Hour)) // while retries wait
	start("later", true)
	start("later", false)
	completed(all)
	offset.Store(int64(-time.Hour))
	before := len(all)
	start("earlier", false)
	completed(all[before:]) // no timer is needed for them
	start("earlier", true)
	partitions("say that their clock is behind", func(p PartitionStatus) bool { return p.Behind > time.Hour })
	offset.Store(int64(time.Hour + time.Minute))
	completed(all)
	stop()
	running.Wait()
	if err := e.Close(); err != nil {
		t.Error(err)
	}

	report, err := audit.Log(t.Context(), log, audit.Options{})
	if err == nil {
		err = report.Err()
	}
	if err != nil || report.Instances != int64(len(all)) {
		t.Errorf("audit: %d instances of %d, %v", report.Instances, len(all), err)
	}
	verified, err := Verify(t.Context(), log, store, nil)
	if err != nil || verified.Differences > 0 {
		t.Errorf("verify: %+v, %v", verified, err)
	}
}
