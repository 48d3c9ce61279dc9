package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// TestTrimKafka lets the events topic drop what no snapshot needs, on the brokers that
// KAFKA_BROKERS names, or on a fake one. Workers go on with an empty store and with the one
// they have, the application is restored, and what can't be told any more says so.
func TestTrimKafka(t *testing.T) {
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
	logURL := "kafka://" + brokers + "/trim-" + strings.ToLower(rand.Text()[:10])
	dir := t.TempDir()
	w := newWaiting()
	stores := 0
	newStore := func() string {
		stores++
		return fmt.Sprintf("pebble:%s/store-%d", dir, stores)
	}
	bucket := "file:" + dir + "/bucket"
	ctl := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if args = append(args, "--progress", "none"); args[0] != "copy-log" {
			args = append(args, "--log", logURL)
		}
		if status := run(ctx, args, &out, &errs, func(string) string { return "" }); status != want {
			t.Fatalf("%v: status %d, want %d: %s%s", args, status, want, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	work := func(store string, snapshots workflow.Snapshots, f func(*workflow.Engine)) {
		t.Helper()
		w.engine(ctx, t, workflow.Config{Log: logURL + "?partitions=2&replication=1", Store: store, Snapshots: snapshots, Logger: slog.New(slog.DiscardHandler)}, f)
	}
	starts := func() (l []int64) {
		t.Helper()
		log, err := eventlog.Open(ctx, logURL+"?create=false")
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range topic.Partitions {
			l = append(l, p.Start)
		}
		return l
	}

	old := newStore()
	work(old, workflow.Snapshots{}, func(e *workflow.Engine) {
		w.start(ctx, t, e, 16)
		w.goOn(ctx, t, e, 0, 1, 2, 3)
	})
	ctl(statusDone, "snapshot", "--store", old, "--to", bucket)
	if l := starts(); l[0] != 0 || l[1] != 0 {
		t.Fatalf("without --trim the log begins at %v", l)
	}
	var started step
	if err := json.NewDecoder(strings.NewReader(ctl(statusDone, "history", "w-9", "-o", "jsonl"))).Decode(&started); err != nil {
		t.Fatal(err)
	}
	work(old, workflow.Snapshots{}, func(e *workflow.Engine) { w.goOn(ctx, t, e, 4, 5) })
	ctl(statusDone, "snapshot", "--store", old, "--to", bucket, "--keep", "1", "--trim")
	if l := starts(); l[0] == 0 || l[1] == 0 {
		t.Fatalf("trimmed, the log begins at %v", l)
	}

	// What the log has no more is refused, and named; nothing is guessed from what is left.
	if s := ctl(statusFailed, "rebuild", "--store", newStore()); !strings.Contains(s, "begins at event") {
		t.Errorf("rebuild from the rest of the log alone: %s", s)
	}
	if s := ctl(statusFailed, "show", "w-9", "--at", fmt.Sprint(started.N)); !strings.Contains(s, "trimmed") {
		t.Errorf("as of an event that is gone: %s", s)
	}
	if s := ctl(statusFailed, "copy-log", "--from", logURL, "--to", "file:"+dir+"/copy"); !strings.Contains(s, "trimmed") {
		t.Errorf("copy: %s", s)
	}

	// The whole application, from snapshots and the rest of the log.
	restored := newStore()
	ctl(statusDone, "restore", "--store", restored, "--from", bucket)
	if a, b := ctl(statusDone, "list", "--store", old, "-o", "json"), ctl(statusDone, "list", "--store", restored, "-o", "json"); a != b || strings.Count(a, "COMPLETED") != 12 {
		t.Errorf("restored: %s\nand it was: %s", b, a)
	}
	work(restored, workflow.Snapshots{}, func(e *workflow.Engine) { w.goOn(ctx, t, e, 6, 7) })
	// A worker with nothing, and the one that was away meanwhile.
	work(newStore(), workflow.Snapshots{URL: bucket}, func(e *workflow.Engine) { w.goOn(ctx, t, e, 8, 9) })
	work(old, workflow.Snapshots{URL: bucket, Trim: true, Keep: 1, Every: 50 * time.Millisecond}, func(e *workflow.Engine) {
		w.goOn(ctx, t, e, 10, 11)
		was := starts()
		for l := starts(); l[0] <= was[0] || l[1] <= was[1]; l = starts() { // the worker trims, too
			w.goOn(ctx, t, e, 12)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("the log begins at %v, and did at %v", l, was)
			}
		}
		w.goOn(ctx, t, e, 13, 14, 15)
	})
	last := newStore()
	ctl(statusDone, "restore", "--store", last, "--from", bucket)
	if a, b := ctl(statusDone, "list", "--store", old, "-o", "json"), ctl(statusDone, "list", "--store", last, "-o", "json"); a != b || strings.Count(a, "COMPLETED") != 32 {
		t.Errorf("restored at the end: %s\nand it was: %s", b, a)
	}
}
