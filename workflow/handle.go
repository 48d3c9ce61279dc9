package workflow

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
)

// Handle refers to one instance, whose parameters are of type P. It holds no resources and needs
// no closing.
type Handle[P any] struct {
	eng        *Engine
	definition string
	id         string
	started    bool
	undecided  bool // when it was made, the start stood in the log only
}

// Start starts an instance with the given id; "" makes one up. It is idempotent: if there is an
// instance with the id, running or ended, whatever its parameters, nothing happens to it, and
// Start returns its handle, whose Started is false, and no error.
//
// If this engine runs, Start returns when the start has been decided and is in the log. If it
// does not, Start returns when the request is in the log, and an engine that runs decides it.
//
// ErrNotRegistered: the definition is not registered with the engine. ErrParameters: p can't be
// written as JSON (it has a NaN, or a year beyond 9999), or a key or time can't be computed from
// it. ErrTooLarge: p does not fit the log. After any other error, that of ctx included, the
// instance may have been started or not: call again with the same id. If ctx had ended before
// the call, it has not.
//
// An id has 1 to 512 bytes of valid UTF-8 without control characters (eventlog.ValidateID).
// Ids with the same part in braces, such as {order-7} and {order-7}/refund, are in the same
// partition.
func (d *Definition[P]) Start(ctx context.Context, e *Engine, id string, p P) (*Handle[P], error) {
	if id == "" {
		id = newID()
	}
	c, err := d.compile()
	if err != nil {
		return nil, err
	}
	if !e.isRegistered(c.code.Plan.Hash()) {
		return nil, fmt.Errorf("start %s: %w", d.name, ErrNotRegistered)
	}
	params, keys, err := c.start(id, p)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	a, err := e.call(ctx, &eventlog.Request{
		Type: eventlog.StartInstance, ID: id, Definition: d.name, Plan: c.code.Plan.Hash(),
		Params: params, Keys: keys, HasKeys: true, Trace: e.traceOf(ctx),
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	return &Handle[P]{eng: e, definition: d.name, id: id, started: a.Answer != machine.Exists, undecided: a.Answer == ""}, nil
}

// Handle returns a handle for an instance that was started before. It does not check that the
// instance exists.
func (d *Definition[P]) Handle(e *Engine, id string) *Handle[P] {
	return &Handle[P]{eng: e, definition: d.name, id: id}
}

// ID returns the instance's id.
func (h *Handle[P]) ID() string { return h.id }

// Started says whether the call that returned this handle started the instance. It is also true
// when the engine did not run, so that the call could only leave a request in the log.
func (h *Handle[P]) Started() bool { return h.started }

// Wait waits until the instance has ended, and returns its parameters. The error is a *TaskError
// when a task failed, ErrStopped when the instance was stopped, ErrNotFound when there is none or
// it is deleted meanwhile, and the context's cause when ctx ended first; the instance is not
// affected by that. An instance in quarantine has not ended. After a Retry of a failed instance,
// call Wait again. It is also an error if the instance belongs to another definition whose
// parameters, as far as this engine knows, have another type.
func (h *Handle[P]) Wait(ctx context.Context) (P, error) {
	i, err := h.eng.run.Wait(ctx, h.id)
	for pause := 10 * time.Millisecond; h.undecided && errors.Is(err, engine.ErrNotFound); pause = min(2*pause, time.Second) {
		select {
		case <-time.After(pause):
			i, err = h.eng.run.Wait(ctx, h.id)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		var zero P
		return zero, h.eng.told(h.id, err)
	}
	if t := h.eng.paramsOf(i.Definition); i.Definition != h.definition && t != nil && t != reflect.TypeFor[P]() {
		var zero P
		return zero, fmt.Errorf("wait for %s: it is an instance of %s with parameters %v, not %T", h.id, i.Definition, t, zero)
	}
	p, err := decodeParams[P](i.Params)
	if err != nil {
		var zero P
		return zero, fmt.Errorf("wait for %s: %w", h.id, err)
	}
	return *p, outcome(i)
}

// outcome is the error that an ended instance means.
func outcome(i *machine.Instance) error {
	switch i.Status {
	case machine.Failure:
		e := &TaskError{Definition: i.Definition, Instance: i.ID, Path: i.FailedPath, Err: errors.New(i.Error)}
		if t := i.Task(i.FailedPath); t != nil {
			e.Attempt = t.Attempt
		}
		return e
	case machine.Stopped:
		if i.Reason == "" {
			return fmt.Errorf("%w: %s", ErrStopped, i.ID)
		}
		return fmt.Errorf("%w: %s: %s", ErrStopped, i.ID, i.Reason)
	}
	return nil
}

// Status returns the instance as it is now, or ErrNotFound.
func (h *Handle[P]) Status(ctx context.Context) (Instance, error) { return h.eng.Get(ctx, h.id) }

// Stop ends the instance with the status Stopped: nothing of it starts any more, and the contexts
// of its handlers end; see Node.OnStop. reason is recorded. ErrEnded: it has ended already.
// ErrNotFound, ErrQuarantined.
func (h *Handle[P]) Stop(ctx context.Context, reason string) error {
	return h.call(ctx, eventlog.StopInstance, "stop", reason)
}

// Retry lets a failed instance go on from the task that failed, which gets all its attempts again.
// reason is recorded. ErrNotFailed: it has not failed. ErrNotFound, ErrQuarantined.
func (h *Handle[P]) Retry(ctx context.Context, reason string) error {
	return h.call(ctx, eventlog.RetryInstance, "retry", reason)
}

// Delete removes an instance that has ended from the store. Its events stay in the log. The id may
// be started anew. ErrNotEnded: it has not ended. ErrNotFound, ErrQuarantined.
func (h *Handle[P]) Delete(ctx context.Context, reason string) error {
	return h.call(ctx, eventlog.DeleteInstance, "delete", reason)
}

func (h *Handle[P]) call(ctx context.Context, t eventlog.RequestType, verb, reason string) error {
	if _, err := h.eng.call(ctx, &eventlog.Request{Type: t, ID: h.id, Reason: reason}); err != nil {
		return fmt.Errorf("%s %s: %w", verb, h.id, err)
	}
	return nil
}

// Events iterates over the instance's events in the log, oldest first, up to those that are there
// at the call; there are none if it never ran. An error, such as that of ctx, ends the
// iteration. It reads the instance's whole partition: use it to look closely, not to poll.
func (h *Handle[P]) Events(ctx context.Context) iter.Seq2[*eventlog.Event, error] {
	return h.eng.Events(ctx, h.id)
}
