package workflow_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// silentLog does not answer while silent.
type silentLog struct {
	eventlog.Log
	silent atomic.Bool
}

func (l *silentLog) Topic(ctx context.Context, name string) (eventlog.Topic, error) {
	if l.silent.Load() {
		<-ctx.Done()
		return eventlog.Topic{}, ctx.Err()
	}
	return l.Log.Topic(ctx, name)
}

// dutifulStore answers nothing when the time is over.
type dutifulStore struct{ projection.Store }

func (s dutifulStore) Partitions(ctx context.Context) ([]int32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.Store.Partitions(ctx)
}

// TestReadyBlamesTheRightOne: a log that does not answer leaves the store its time.
func TestReadyBlamesTheRightOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, err := eventlog.Open(t.Context(), "mem:?partitions=1")
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		store, err := projection.Open(t.Context(), "mem:", projection.Identity{App: opened.App(), Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		log := &silentLog{Log: opened}
		eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, OpenedStore: dutifulStore{store}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer eng.Close()
		log.silent.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err = eng.Ready(ctx)
		if err == nil || !strings.Contains(err.Error(), "log: context deadline exceeded") || strings.Contains(err.Error(), "store:") {
			t.Errorf("the log does not answer: %v", err)
		}
		log.silent.Store(false)
	})
}
