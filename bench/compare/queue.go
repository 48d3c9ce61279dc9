package main

import (
	"context"
	"sync"
)

// step is one of the three tasks of an instance, as a job of a queue.
type step struct {
	Instance string `json:"instance"`
	Number   int    `json:"number"` // from 1
	Params   params `json:"params"`
}

func (step) Kind() string { return "step" }

// waiters are told in this process when the last step of their instance has run. The queues
// have nothing of the kind, and asking the database would cost them more.
type waiters struct {
	mu      sync.Mutex
	waiting map[string]chan struct{} // by instance
}

func (w *waiters) wait(instance string) <-chan struct{} {
	done := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[instance] = done
	return done
}

// done may be called again for an instance: a job can run twice.
func (w *waiters) done(instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done, ok := w.waiting[instance]; ok {
		delete(w.waiting, instance)
		close(done)
	}
}

func until(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
