package workflow

import (
	"context"

	"github.com/godagger/dagger/internal/engine"
)

// Task says which attempt a handler runs.
type Task struct {
	Definition string
	Instance   string // id
	Path       string // e.g. "Delivery/deliver"
	Attempt    int    // from 1
	Item       int    // in a ForEach the index of the item, from 0; else -1
	// IdempotencyKey is the same for all attempts of this start of the task, in whatever
	// process they run, and of no other. Give it to systems that must not act twice.
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

// TaskFrom says for which attempt a handler was called. It is zero for a context that does
// not come from the engine.
func TaskFrom(ctx context.Context) Task {
	t, _ := ctx.Value(taskKey{}).(Task)
	return t
}
