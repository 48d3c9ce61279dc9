package workflow

import (
	"context"

	"github.com/godagger/dagger/eventlog"
)

// Propagator connects Go contexts with the two headers of a W3C trace context
// (https://www.w3.org/TR/trace-context/). It must not fail, and is called by several goroutines.
// Package telemetry/otel has one.
type Propagator interface {
	// Inject returns the headers for the span that ctx is in; "" when there is none.
	Inject(ctx context.Context) (traceparent, tracestate string)
	// Extract returns ctx in the span of the headers.
	Extract(ctx context.Context, traceparent, tracestate string) context.Context
}

type (
	traceKey      struct{}
	propagatorKey struct{}
)

// WithTrace returns ctx with a trace context. An instance that is started with it belongs to that
// trace: its handlers get it back (see TraceFrom), and the messages of its Command tasks and its
// updates carry it as headers. If Config.Propagator finds a trace context in ctx, that one counts
// instead. A trace context that can't be understood is ignored.
func WithTrace(ctx context.Context, traceparent, tracestate string) context.Context {
	if t := eventlog.NewTrace(traceparent, tracestate); t != nil {
		return context.WithValue(ctx, traceKey{}, t)
	}
	return ctx
}

// TraceFrom returns the trace context of ctx: in a handler, that with which the instance was
// started; in a function of StartOn or StopOn, that of the record; "" when there is none.
func TraceFrom(ctx context.Context) (traceparent, tracestate string) {
	if t, _ := ctx.Value(traceKey{}).(*eventlog.Trace); t != nil {
		return t.Parent, t.State
	}
	return "", ""
}

// withPropagator lets the contexts of handlers, which come from that of Run, know it.
func withPropagator(ctx context.Context, p Propagator) context.Context {
	if p == nil {
		return ctx
	}
	return context.WithValue(ctx, propagatorKey{}, p)
}

// withTrace is the context of user code that works for a trace; t may be nil.
func withTrace(ctx context.Context, t *eventlog.Trace) context.Context {
	if t == nil {
		return ctx
	}
	ctx = context.WithValue(ctx, traceKey{}, t)
	if p, _ := ctx.Value(propagatorKey{}).(Propagator); p != nil {
		ctx = p.Extract(ctx, t.Parent, t.State)
	}
	return ctx
}

// traceOf is the trace context in which a call is made, or nil.
func (e *Engine) traceOf(ctx context.Context) *eventlog.Trace {
	if e.propagator != nil {
		if t := eventlog.NewTrace(e.propagator.Inject(ctx)); t != nil {
			return t
		}
	}
	return eventlog.NewTrace(TraceFrom(ctx))
}
