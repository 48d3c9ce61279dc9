package workflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	_ "github.com/godagger/dagger/backends/pebble"
	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/workflow"
)

// TestVerifyAndSnapshots: an engine at work verifies its store, takes snapshots when it is told
// to, lists them, rebuilds from them, and exports.
func TestVerifyAndSnapshots(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	eng, err := workflow.Open(ctx, workflow.Config{Log: "mem:?partitions=2", Store: "pebble:" + t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Snapshots: workflow.Snapshots{URL: "file:" + filepath.Join(t.TempDir(), "snapshots"), Every: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	def := workflow.New("Fetch", workflow.Execute("fetch", func(context.Context, *Order) error { return nil }))
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for k := range 20 {
		h, err := def.Start(ctx, eng, fmt.Sprint("order-", k), Order{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := eng.List(ctx, workflow.Filter{AtLeast: events(eng)}); err != nil { // the store has everything
		t.Fatal(err)
	}
	read := map[int32]int64{}
	v, err := eng.Verify(ctx, workflow.VerifyOptions{Progress: func(p int32, done, _ int64) { read[p] = done }})
	if err != nil || v.Partitions != 2 || v.Instances != 20 || v.Differences != 0 || len(v.First) != 0 || v.Events < 60 || len(read) != 2 {
		t.Errorf("verify: %+v, %v; read %v", v, err, read)
	}
	if v, err := eng.Verify(ctx, workflow.VerifyOptions{Partitions: []int32{1}}); err != nil || v.Partitions != 1 || len(v.AsOf) != 1 || v.AsOf[1] == 0 {
		t.Errorf("verify partition 1: %+v, %v", v, err)
	}

	steps := 0
	taken, err := eng.TakeSnapshots(ctx, func(done, total int) { steps = done*10 + total })
	if err != nil || len(taken) != 2 || steps != 22 {
		t.Fatalf("take snapshots: %+v, %v; steps %d", taken, err, steps)
	}
	list, err := eng.Snapshots(ctx)
	if diff := cmp.Diff(taken, list); diff != "" || err != nil {
		t.Errorf("snapshots: %v %s", err, diff)
	}
	rebuilt, err := eng.RebuildFromSnapshots(ctx, workflow.RebuildOptions{})
	if err != nil || len(rebuilt) != 2 || rebuilt[0].From != taken[0].AsOf && !rebuilt[0].ByOwner {
		t.Errorf("rebuild: %+v, %v; taken %+v", rebuilt, err, taken)
	}
	if v, err := eng.Verify(ctx, workflow.VerifyOptions{}); err != nil || v.Differences != 0 {
		t.Errorf("verify again: %+v, %v", v, err)
	}

	var all, one bytes.Buffer
	if err := errors.Join(eng.ExportLog(ctx, &all), eng.ExportPartition(ctx, &one, 1)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(all.String(), `"scope":"all"`) || !strings.Contains(one.String(), `"scope":"partition"`) || all.Len() < one.Len() {
		t.Errorf("exports of %d and %d bytes", all.Len(), one.Len())
	}
	if err := eng.ExportPartition(ctx, &one, 2); err == nil {
		t.Error("a partition that there is not was exported")
	}
	if _, err := workflow.Import(ctx, eng.Log(), &all); !errors.Is(err, workflow.ErrNotEmpty) {
		t.Errorf("import into a log that has something: %v", err)
	}

	// Close ends what reads for long, and waits for it.
	reading, closing, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	running.Go(func() {
		_, err := eng.Verify(ctx, workflow.VerifyOptions{Progress: func(int32, int64, int64) {
			once.Do(func() {
				close(reading)
				<-closing
			})
		}})
		ended <- err
	})
	<-reading
	time.AfterFunc(10*time.Millisecond, func() { close(closing) }) // Close is likely to wait by then
	if err := eng.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil && !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("verify while the engine is closed: %v", err)
	}
	running.Wait()
	if _, err := eng.Verify(context.WithoutCancel(ctx), workflow.VerifyOptions{}); !errors.Is(err, workflow.ErrClosed) {
		t.Errorf("verify when the engine is closed: %v", err)
	}
}

// events are the numbers of the last events of the partitions.
func events(eng *workflow.Engine) map[int32]uint64 {
	n := map[int32]uint64{}
	for _, p := range eng.Partitions() {
		n[p.Partition] = p.Event
	}
	return n
}

// TestNoSnapshots: without a bucket there is nothing to list, to take, or to begin with.
func TestNoSnapshots(t *testing.T) {
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: eventlog.Log(log), Store: "mem:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	_, taken := eng.TakeSnapshots(t.Context(), nil)
	_, listed := eng.Snapshots(t.Context())
	_, rebuilt := eng.RebuildFromSnapshots(t.Context(), workflow.RebuildOptions{})
	for _, err := range []error{taken, listed, rebuilt} {
		if !errors.Is(err, workflow.ErrNoSnapshots) {
			t.Error(err)
		}
	}
}
