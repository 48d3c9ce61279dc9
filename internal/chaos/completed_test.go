package chaos

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// awaitCompleted follows the log until so many instances are completed.
func awaitCompleted(t *testing.T, log eventlog.Log, orders int, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	name := eventlog.EventsTopic(log.App())
	var completed atomic.Int64
	follow := func(partition int32) error {
		r, err := log.Read(ctx, name, partition, 0, "", eventlog.ReadCommitted)
		if err != nil {
			return err
		}
		defer r.Close()
		for {
			records, _, err := r.Next(ctx)
			if err != nil {
				return err
			}
			for _, rec := range records {
				var e eventlog.Event
				if eventlog.IsBarrier(rec.Value) {
					continue
				}
				if err := eventlog.DecodeEvent(rec.Value, &e); err != nil {
					return err
				}
				if e.Type == eventlog.InstanceCompleted && completed.Add(1) == int64(orders) {
					enough()
				}
			}
		}
	}
	var wg sync.WaitGroup
	for p := range log.Partitions() {
		wg.Go(func() {
			if err := follow(p); err != nil && ctx.Err() == nil {
				t.Errorf("follow events of partition %d: %v", p, err)
				enough()
			}
		})
	}
	wg.Wait()
	if n := completed.Load(); n < int64(orders) {
		t.Fatalf("%d of %d orders are completed after %v", n, orders, within)
	}
	if err := rest(t.Context(), log); err != nil {
		t.Fatal(err)
	}
}

// rest waits until the log has not grown for two seconds: what one partition still had to
// tell another, and what the stores had to fold, is done.
func rest(ctx context.Context, log eventlog.Log) error {
	ends := func() (all []int64, err error) {
		for _, name := range []string{eventlog.EventsTopic(log.App()), eventlog.RequestsTopic(log.App())} {
			topic, err := log.Topic(ctx, name)
			if err != nil {
				return nil, err
			}
			for _, p := range topic.Partitions {
				all = append(all, p.End)
			}
		}
		return all, nil
	}
	var last []int64
	since := time.Now()
	for time.Since(since) < 2*time.Second {
		now, err := ends()
		if err != nil {
			return err
		}
		if !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		pause(ctx, 100*time.Millisecond)
	}
	return context.Cause(ctx)
}

// openedLog opens a log for the time of the test.
func openedLog(t *testing.T, url string) eventlog.Log {
	t.Helper()
	log, err := openLog(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}
