package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// unreadableLog refuses to give requests to who reads them, as when a right was withdrawn, and
// counts how often partitions are owned.
type unreadableLog struct {
	eventlog.Log
	owned atomic.Int32
}

func (l *unreadableLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	l.owned.Add(1)
	return l.Log.Own(ctx, partition)
}

func (l *unreadableLog) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	r, err := l.Log.Read(ctx, topic, partition, from, topicID, isolation)
	if err == nil && topic == eventlog.RequestsTopic(l.App()) {
		r = unreadable{r}
	}
	return r, err
}

type unreadable struct{ eventlog.Reader }

func (unreadable) Next(context.Context) ([]eventlog.Record, int64, error) {
	return nil, 0, errors.New("TOPIC_AUTHORIZATION_FAILED")
}

// TestTakeOversThatAreOfNoUse: an owner that gets into its loop and at once out of it again does
// not fill the log with its take-overs.
func TestTakeOversThatAreOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &unreadableLog{Log: memLog(t)}
		e, err := New(t.Context(), Config{Log: log, Store: memStore(t), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
		if n := log.owned.Load(); n > 4*25 { // one in 5 s of each partition, and the first ones
			t.Errorf("four partitions were taken %d times in a minute", n)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}
