package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/workflow"
)

// TestCopyLogKafka moves an application from a directory to Kafka and into another directory: on
// the brokers that KAFKA_BROKERS names, or on a fake one. Instances that wait go on in each.
func TestCopyLogKafka(t *testing.T) {
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		brokers = strings.Join(c.ListenAddrs(), ",")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	first, last := "file:"+t.TempDir()+"/log", "file:"+t.TempDir()+"/log"
	kafka := "kafka://" + brokers + "/copy-" + strings.ToLower(rand.Text()[:10])
	ctl := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if status := run(ctx, append(args, "--progress", "none"), &out, &errs, func(string) string { return "" }); status != want {
			t.Fatalf("%v: status %d, want %d: %s%s", args, status, want, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}

	w := newWaiting()
	// A first life: of eight that wait two get their message.
	w.engineOn(ctx, t, first+"?partitions=2", func(e *workflow.Engine) {
		w.start(ctx, t, e, 8)
		w.goOn(ctx, t, e, 0, 1)
	})
	w.unread(ctx, t, first, 2)
	if s := ctl(statusDone, "copy-log", "--from", first, "--to", kafka+"?replication=1"); !strings.Contains(s, "1 messages of "+w.topic) {
		t.Errorf("copied: %s", s)
	}
	if s := ctl(statusRefused, "copy-log", "--from", first, "--to", kafka); !strings.Contains(s, "not empty") {
		t.Errorf("into a log that is not empty: %s", s)
	}
	ctl(statusRefused, "copy-log", "--from", first, "--to", last+"?partitions=3")
	if err := os.RemoveAll(strings.TrimPrefix(last, "file:")); err != nil {
		t.Fatal(err)
	}

	w.engineOn(ctx, t, kafka+"?create=false", func(e *workflow.Engine) {
		w.goOn(ctx, t, e, 3, 4)
		w.ended(ctx, t, e, 2) // of the message that came while no engine ran
		// In use.
		short, cancel := context.WithTimeoutCause(ctx, time.Second, engine.ErrNotQuiet)
		defer cancel()
		if err := copyLog(short, &env{stdout: io.Discard, stderr: io.Discard, progress: "none", now: time.Now, getenv: os.Getenv}, copyLogArgs{from: kafka, to: "mem:"}); err == nil {
			t.Error("a log that an engine uses was copied")
		}
	})
	w.unread(ctx, t, kafka+"?create=false", 5)
	ctl(statusDone, "copy-log", "--from", kafka, "--to", last)
	w.engineOn(ctx, t, last, func(e *workflow.Engine) {
		w.goOn(ctx, t, e, 6, 7)
		w.ended(ctx, t, e, 5)
	})
	for _, url := range []string{kafka, last} {
		store := "pebble:" + t.TempDir() + "/store"
		ctl(statusDone, "rebuild", "--log", url, "--store", store)
		var v verified
		if err := json.Unmarshal([]byte(ctl(statusDone, "verify", "--audit", "--settled", "--log", url, "--store", store, "-o", "json")), &v); err != nil {
			t.Fatal(err)
		}
		if v.Instances != 8 || v.Audit.Instances != 8 {
			t.Errorf("%s: %+v", url, v)
		}
	}
	// Event numbers are the same in each.
	var started step
	if err := json.NewDecoder(strings.NewReader(ctl(statusDone, "history", "w-0", "--log", first, "-o", "jsonl"))).Decode(&started); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprint(started.N)
	ctl(statusNotFound, "show", "w-0", "--at", fmt.Sprint(started.N-1), "--log", last)
	for _, url := range []string{first, kafka, last} {
		if s := ctl(statusDone, "show", "w-0", "--at", at, "--log", url, "-o", "json"); !strings.Contains(s, `"id": "w-0"`) {
			t.Errorf("%s: %s", url, s)
		}
	}
	if a, b := ctl(statusDone, "history", "w-3", "--log", kafka), ctl(statusDone, "history", "w-3", "--log", last); strings.Count(a, "\n") != strings.Count(b, "\n") {
		t.Errorf("two histories: %s\n%s", a, b)
	}
}

// waiting is a definition that waits for messages of a topic which is its own: the brokers may
// have those of other tests.
type waiting struct {
	topic   string
	waiters *workflow.Definition[job]
}

func newWaiting() waiting {
	topic := "signals-" + strings.ToLower(rand.Text()[:10])
	return waiting{topic, waitersOn(topic)}
}

// engineOn runs an engine on a log, until the log is settled.
func (w waiting) engineOn(ctx context.Context, t *testing.T, url string, f func(*workflow.Engine)) {
	t.Helper()
	w.engine(ctx, t, workflow.Config{Log: url, Store: "mem:", Logger: slog.New(slog.DiscardHandler)}, func(e *workflow.Engine) {
		f(e)
		w.settle(ctx, t, e)
	})
}

// settle waits until everything that was told is decided.
func (w waiting) settle(ctx context.Context, t *testing.T, e *workflow.Engine) {
	t.Helper()
	for {
		r, err := audit.Log(ctx, e.Log(), audit.Options{Settled: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Violations == 0 && !r.Moved {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(r.Err())
		}
	}
}

// engine runs one while f does.
func (w waiting) engine(ctx context.Context, t *testing.T, cfg workflow.Config, f func(*workflow.Engine)) {
	t.Helper()
	e, err := workflow.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(w.waiters); err != nil {
		t.Fatal(err)
	}
	life, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(life); err != nil {
			t.Error(err)
		}
	})
	defer func() {
		stop()
		wg.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	f(e)
}

func (w waiting) start(ctx context.Context, t *testing.T, e *workflow.Engine, n int) {
	t.Helper()
	for k := range n {
		if _, err := w.waiters.Start(ctx, e, fmt.Sprintf("w-%d", k), job{Order: fmt.Sprint(k)}); err != nil {
			t.Fatal(err)
		}
	}
}

// goOn gives instances their message, and waits for their end.
func (w waiting) goOn(ctx context.Context, t *testing.T, e *workflow.Engine, numbers ...int) {
	t.Helper()
	for _, k := range numbers {
		publish(ctx, t, e.Log(), w.topic, fmt.Sprint(k))
	}
	for _, k := range numbers {
		w.ended(ctx, t, e, k)
	}
}

func (w waiting) ended(ctx context.Context, t *testing.T, e *workflow.Engine, k int) {
	t.Helper()
	if _, err := w.waiters.Handle(e, fmt.Sprintf("w-%d", k)).Wait(ctx); err != nil {
		t.Fatalf("w-%d: %v", k, err)
	}
}

// unread publishes a message while no engine runs.
func (w waiting) unread(ctx context.Context, t *testing.T, url string, k int) {
	t.Helper()
	log, err := eventlog.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	publish(ctx, t, log, w.topic, fmt.Sprint(k))
}
