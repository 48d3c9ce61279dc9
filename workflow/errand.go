package workflow

import (
	"context"
	"errors"
	"sync"
)

// errands are calls that read much of the log or the store. Close ends them and waits, so that
// they never meet a log that is closed.
type errands struct {
	mu      sync.Mutex
	closed  bool
	life    context.Context
	end     context.CancelCauseFunc
	running sync.WaitGroup
}

// begin makes the context of an errand; done must be called when it has ended.
func (r *errands) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, ErrClosed
	}
	if r.life == nil {
		r.life, r.end = context.WithCancelCause(context.Background())
	}
	r.running.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.life, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		r.running.Done()
	}, nil
}

// ended says that an errand was ended by Close, where it was.
func ended(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), ErrClosed) {
		return ErrClosed
	}
	return err
}

func (r *errands) close() {
	r.mu.Lock()
	r.closed = true
	if r.end != nil {
		r.end(ErrClosed)
	}
	r.mu.Unlock()
	r.running.Wait()
}
