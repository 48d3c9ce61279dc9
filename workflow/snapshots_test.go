package workflow_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
	"github.com/godagger/dagger/workflow"
)

func TestSnapshotsConfig(t *testing.T) {
	dir, err := snapshot.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]workflow.Snapshots{
		"exclude each other": {URL: "file:x", Bucket: dir},
		"is negative":        {URL: "file:x", Keep: -1},
		"no bucket":          {Trim: true},
		"is not linked":      {URL: "s3://bucket"},
	} {
		e, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:", Snapshots: s})
		if err == nil {
			e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	if _, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:", VerifyInterval: -1}); err == nil {
		t.Error("a negative VerifyInterval")
	}
}

// TestSnapshotsOfAnEngine: an engine takes them by its Config, and rebuilds and can't
// checkpoint a store in memory.
func TestSnapshotsOfAnEngine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "snapshots")
	eng, err := workflow.Open(ctx, workflow.Config{Log: "mem:?partitions=2", Logger: slog.New(slog.DiscardHandler),
		Snapshots: workflow.Snapshots{URL: "file:" + dir, Every: 10 * time.Millisecond}, VerifyInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	def := workflow.New("Fetch", workflow.Execute("fetch", func(context.Context, *Order) error { return nil }))
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- eng.Run(run) }()
	h, err := def.Start(ctx, eng, "a", Order{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	bucket, err := snapshot.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	id := projection.Identity{App: eng.Log().App(), Partitions: 2}
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		list, _, err := snapshot.List(ctx, bucket, id, eventlog.PartitionOf("a", 2), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			tick.Stop()
			break
		}
	}
	if rebuilt, err := eng.Rebuild(ctx, workflow.RebuildOptions{}); err != nil || len(rebuilt) != 2 {
		t.Errorf("rebuild: %+v, %v", rebuilt, err)
	}
	if _, err := eng.Checkpoint(ctx, t.TempDir()); !errors.Is(err, workflow.ErrNoCheckpoints) {
		t.Errorf("checkpoint of a store in memory: %v", err)
	}
	stop()
	if err := errors.Join(<-done, eng.Close()); err != nil {
		t.Error(err)
	}
}
