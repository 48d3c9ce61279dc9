package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/godagger/dagger/eventlog"
)

// failingLog is one whose disk is full.
type failingLog struct{ eventlog.Log }

func (failingLog) Own(context.Context, int32) (eventlog.Owner, error) {
	return nil, fmt.Errorf("write log: %w: no space left on device", eventlog.ErrFailed)
}

// TestRunEndsWithItsLog: where the log has failed for good, Run says so and ends, instead of
// trying for ever.
func TestRunEndsWithItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(t.Context(), Config{Log: failingLog{memLog(t)}, Store: memStore(t), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(t.Context()); !errors.Is(err, eventlog.ErrFailed) {
			t.Errorf("Run: %v, want %v", err, eventlog.ErrFailed)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}
