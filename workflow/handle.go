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

// Handle is a grip on one instance. It holds no connection and needs no closing.
type Handle[P any] struct {
	eng        *Engine
	definition string
	id         string
	started    bool
	undecided  bool // when it was made, the start stood in the log only
}

// Start starts an instance with an id of the caller's; "" makes one up. It is idempotent:
// where an instance with the id exists, running or ended, with whatever parameters, nothing
// happens to it, its handle comes back with Started() == false, and the error is nil. The
// definition must be registered with the engine, else it is ErrNotRegistered. ErrParameters when
// they can't be written as JSON (NaN, a year beyond 9999) or a key or time can't be computed from
// them, ErrTooLarge when they do not fit the log.
//
// Where this engine runs, Start returns when the start is in the log and decided. Where it
// does not, it returns when the request is in the log: some engine that runs decides it.
// After another error, that of ctx too, the instance may have been started or not; call again
// with the same id. Where ctx has ended before the call nothing happens.
//
// An id has 1 to 512 bytes of valid UTF-8 without control characters (eventlog.ValidateID). Ids with an equal part in braces, such as {order-7} and {order-7}/refund, live in the same
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

// Handle is a grip on an instance that was started before. It does not look whether it
// exists.
func (d *Definition[P]) Handle(e *Engine, id string) *Handle[P] {
	return &Handle[P]{eng: e, definition: d.name, id: id}
}

// ID is the instance's id.
func (h *Handle[P]) ID() string { return h.id }

// Started says whether the call that gave this handle started the instance. It is also true
// where an engine that does not run could only hand the request in.
func (h *Handle[P]) Started() bool { return h.started }

// Wait waits until the instance has ended and returns its parameters. The error is a
// *TaskError when a task failed, ErrStopped when it was stopped, and the context's cause
// when ctx ended first, from which the instance knows nothing. After Retry of a failed
// instance, wait again. An instance in quarantine has not ended. ErrNotFound when there is none
// with the id, or none any more. Where the instance is of another definition, which this engine
// knows to have other parameters, that is an error, once it has ended.
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

// Status is the instance as it is now, or ErrNotFound.
func (h *Handle[P]) Status(ctx context.Context) (Instance, error) { return h.eng.Get(ctx, h.id) }

// Stop ends the instance as STOPPED: nothing of it starts any more and the contexts of its
// handlers end. ErrEnded if it has ended already, ErrNotFound, ErrQuarantined.
func (h *Handle[P]) Stop(ctx context.Context, reason string) error {
	return h.call(ctx, eventlog.StopInstance, "stop", reason)
}

// Retry lets a failed instance go on from the task that failed, with all its attempts again.
// ErrNotFailed if it has not failed, ErrNotFound, ErrQuarantined.
func (h *Handle[P]) Retry(ctx context.Context, reason string) error {
	return h.call(ctx, eventlog.RetryInstance, "retry", reason)
}

// Delete forgets an instance that has ended: its state goes from the store, its events stay
// in the log. Its id may be started anew. ErrNotEnded if it has not ended, ErrNotFound,
// ErrQuarantined.
func (h *Handle[P]) Delete(ctx context.Context, reason string) error {
	return h.call(ctx, eventlog.DeleteInstance, "delete", reason)
}

func (h *Handle[P]) call(ctx context.Context, t eventlog.RequestType, verb, reason string) error {
	if _, err := h.eng.call(ctx, &eventlog.Request{Type: t, ID: h.id, Reason: reason}); err != nil {
		return fmt.Errorf("%s %s: %w", verb, h.id, err)
	}
	return nil
}

// Events are the instance's events from the log, oldest first, up to its end at the call; none
// when it never ran. An error, that of ctx too, is the last that it gives. It reads the
// instance's whole partition: it is for looking closely, not for polling.
func (h *Handle[P]) Events(ctx context.Context) iter.Seq2[*eventlog.Event, error] {
	return h.eng.Events(ctx, h.id)
}
