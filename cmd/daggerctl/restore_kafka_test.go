package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// TestRestoreKilledKafka restores an application on Kafka from snapshots and the rest of the log
// into Redis and into Pebble, in processes that are killed at any of their writes: with the whole
// log and with one that was trimmed. The restored stores are the old one byte for byte, and an
// engine goes on with them.
func TestRestoreKilledKafka(t *testing.T) {
	brokers := testBrokers(t)
	random := randomly(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := newWaiting()
	dir := t.TempDir()
	logURL := "kafka://" + brokers + "/restore-" + strings.ToLower(rand.Text()[:10])
	_, old := testRedis(t)
	_, other := testRedis(t)
	bucket := "file:" + dir + "/bucket"
	ctl := func(args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		args = append(args, "--log", logURL, "--store", old, "--progress", "none")
		if status := run(ctx, args, &out, &errs, func(string) string { return "" }); status != statusDone {
			t.Fatalf("%v: status %d: %s%s", args[0], status, out.String(), errs.String())
		}
	}
	trimmed := false
	work := func(store string, f func(*workflow.Engine)) {
		t.Helper()
		cfg := workflow.Config{Log: logURL + "?partitions=4&replication=1", Store: store, Logger: slog.New(slog.DiscardHandler)}
		w.engine(ctx, t, cfg, func(e *workflow.Engine) {
			if f(e); !trimmed { // an audit needs the whole log
				w.settle(ctx, t, e)
			}
		})
	}
	work(old, func(e *workflow.Engine) {
		w.start(ctx, t, e, 24)
		w.goOn(ctx, t, e, 0, 1, 2, 3)
	})
	ctl("snapshot", "--to", bucket)
	work(old, func(e *workflow.Engine) { w.goOn(ctx, t, e, 4, 5, 6) })

	said := killedUntilDone(ctx, t, random, 4, 20, "restore", "--log", logURL, "--store", "kill:"+other, "--from", bucket)
	t.Log(said)
	sameStores(ctx, t, logURL, old, other)
	wantWhole(ctx, t, logURL, other)

	ctl("snapshot", "--to", bucket, "--keep", "1", "--trim")
	trimmed = true
	begins := false
	work(old, func(e *workflow.Engine) {
		topic, err := e.Log().Topic(ctx, eventlog.EventsTopic(e.Log().App()))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range topic.Partitions {
			begins = begins || p.Start > 0
		}
		w.goOn(ctx, t, e, 7, 8)
	})
	if !begins {
		t.Error("nothing was trimmed")
	}
	last := "pebble:" + dir + "/store"
	killedUntilDone(ctx, t, random, 4, 20, "restore", "--log", logURL, "--store", "kill:"+last, "--from", bucket)
	sameStores(ctx, t, logURL, old, last)
	work(last, func(e *workflow.Engine) { w.goOn(ctx, t, e, 9, 10, 11, 12, 13) })
	work(other, func(e *workflow.Engine) { w.goOn(ctx, t, e, 14, 15) })
}

// sameStores compares the rows of two stores that have folded the whole log.
func sameStores(ctx context.Context, t *testing.T, logURL, a, b string) {
	t.Helper()
	log, err := eventlog.Open(ctx, opened(logURL))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var sums [2][][32]byte
	var stands [2][]uint64
	for k, url := range []string{a, b} {
		store, err := projection.Open(ctx, url, projection.Identity{App: log.App(), Partitions: log.Partitions()})
		if err != nil {
			t.Fatal(err)
		}
		for p := range log.Partitions() {
			sum, n, err := engine.StoreSum(ctx, store, p)
			if err != nil {
				t.Fatal(err)
			}
			sums[k], stands[k] = append(sums[k], sum), append(stands[k], n)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for p := range sums[0] {
		if sums[0][p] != sums[1][p] || stands[0][p] != stands[1][p] {
			t.Errorf("partition %d: %x at event %d, and restored %x at event %d", p, sums[0][p], stands[0][p], sums[1][p], stands[1][p])
		}
	}
	t.Logf("the same rows at events %v", stands[0])
}
