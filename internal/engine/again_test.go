package engine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// TestLogTellsThatAPartitionWorksAgain: who reads that a partition failed also reads when that is over.
func TestLogTellsThatAPartitionWorksAgain(t *testing.T) {
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	store := &outageStore{Store: memstore.New(projection.Identity{App: "test", Partitions: 1})}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out lockedBuffer
	e, err := New(ctx, Config{Log: log, Store: store, Logger: slog.New(slog.NewTextHandler(&out, nil)), ProjectInterval: time.Millisecond, ShutdownTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(ctx, waitingCode(t)); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(run) }()
	until(t, ctx, "the owner is ready", func() bool { return len(e.Partitions()) == 1 && e.Partitions()[0].Ready })
	if strings.Contains(out.String(), "works again") {
		t.Errorf("a partition that did not fail works again:\n%s", out.String())
	}
	store.leave()
	publishStarts(t, log, 1, `{"a":1}`)
	until(t, ctx, "the store gets a batch", func() bool { store.mu.Lock(); defer store.mu.Unlock(); return store.owner > 0 })
	store.comeBack(errors.New("connection reset"))
	until(t, ctx, "the log tells", func() bool { return strings.Contains(out.String(), "msg=\"partition works again\"") })
	stop()
	if err := errors.Join(<-ended, e.Close()); err != nil {
		t.Error(err)
	}
	if s := out.String(); strings.Index(s, "partition is taken again") > strings.Index(s, "partition works again") {
		t.Error(s)
	}
}
