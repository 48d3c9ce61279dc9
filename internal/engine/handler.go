package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// run calls the user's code; a panic is a failed attempt with its stack.
func run(ctx context.Context, code *Code, j job) (r eventlog.Request) {
	r = resultOf(j)
	defer func() {
		if p := recover(); p != nil {
			r.OK, r.Params, r.More, r.Record = false, nil, false, nil
			r.Error, r.Stack = fmt.Sprintf("panic: %v", p), string(debug.Stack())
		}
	}()
	if r.Path == "" {
		keys, err := code.Keys.all(j.params, j.items)
		if err != nil {
			r.Error = "functions of the parameters: " + err.Error()
			return r
		}
		r.Keys, r.HasKeys = keys, true
		return r
	}
	if j.due > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, time.UnixMilli(j.due), ErrAttemptTimeout)
		defer cancel()
	}
	out, err := code.Handlers[machine.Pattern(r.Path)](ctx, j.attempt())
	if err != nil {
		explain(ctx, &r, err)
		return r
	}
	if out.Record != nil {
		out.Record.Headers = j.trace.AppendHeaders(out.Record.Headers)
	}
	r.OK, r.Params, r.More, r.Record, r.Choice, r.Choices, r.Items = true, out.Patch, out.More, out.Record, out.Choice, out.Choices, out.Items
	if code.Keys != nil {
		keys, err := code.Keys.computed(j, out)
		if err != nil {
			r.OK, r.Params, r.More, r.Record = false, nil, false, nil
			r.Error = "functions of the parameters: " + err.Error()
			return r
		}
		r.Keys, r.HasKeys = keys, true
	}
	return r
}

// resultOf is a result of a job that says nothing yet.
func resultOf(j job) eventlog.Request {
	r := eventlog.Request{V: 1, Type: eventlog.Result, ID: j.key.instance, Run: j.key.run, Path: j.key.work.Path,
		Act: j.key.work.Act, Attempt: j.key.work.Attempt, Base: j.base, Jitter: rand.Float64()}
	if r.Path == "" {
		r.Type = eventlog.Evaluated
	}
	return r
}

// attempt is what the handler is told.
func (j *job) attempt() Attempt {
	k := j.key
	a := Attempt{Definition: j.definition, Instance: k.instance, Run: k.run, Path: k.work.Path, Act: k.work.Act, Attempt: k.work.Attempt,
		IdempotencyKey: IdempotencyKey(k.instance, k.run, k.work.Path, k.work.Act), Params: j.params, Message: j.message, Item: -1, Collect: j.collect, Trace: j.trace}
	if j.scope != "" {
		a.Item = machine.ItemIndex(j.scope)
	}
	if j.collect && len(j.items) > 0 {
		a.Items = j.items[0].Values
	}
	return a
}

// explain says in a result what a handler's error means.
func explain(ctx context.Context, r *eventlog.Request, err error) {
	r.Error = err.Error()
	if s, ok := errors.AsType[StopError](err); ok {
		r.OK, r.Error, r.Stop = true, "", cmp.Or(s.StopReason(), "stopped by "+r.Path)
		return
	}
	if errors.Is(context.Cause(ctx), ErrAttemptTimeout) {
		r.Error = "timed out: " + r.Error
	}
	if t, ok := errors.AsType[TerminalError](err); ok {
		r.Terminal = t.TerminalError()
	}
	if t, ok := errors.AsType[RetryAfterError](err); ok {
		r.RetryAfter = t.RetryAfter()
	}
}
