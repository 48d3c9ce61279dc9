package workflow

import (
	"context"

	"github.com/godagger/dagger/internal/engine"
)

// Task identifies an attempt that a handler is called for.
type Task struct {
	Definition string
	Instance   string // id
	Path       string // e.g. "Delivery/deliver"
	Attempt    int    // from 1
	Item       int    // in a ForEach the index of the item, from 0; else -1
	// IdempotencyKey is the same for all attempts of the task, in whatever process they run, and
	// different when the task is started again: by Retry, Goto or a ForEach. Give it to systems
	// that must not act twice.
	IdempotencyKey string
}

type taskKey struct{}

func withTask(ctx context.Context, a engine.Attempt) context.Context {
	if a.Message != nil {
		ctx = withMessage(ctx, a.Message)
	}
	ctx = withTrace(ctx, a.Trace)
	return context.WithValue(ctx, taskKey{}, Task{
		Definition: a.Definition, Instance: a.Instance, Path: a.Path, Attempt: a.Attempt, Item: a.Item, IdempotencyKey: a.IdempotencyKey,
	})
}

// TaskFrom returns the attempt that a handler was called for; the zero Task if ctx is not that of a
// handler.
func TaskFrom(ctx context.Context) Task {
	t, _ := ctx.Value(taskKey{}).(Task)
	return t
}
