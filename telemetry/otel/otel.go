// Package otel connects an engine with OpenTelemetry. Nothing else imports its libraries.
//
//	eng, err := workflow.Open(ctx, workflow.Config{Propagator: otel.Propagator()})
//
// The span in which an instance is started is then the parent of those that its handlers
// begin, in whatever process and however much later they run, and the messages of its Command
// tasks carry it on.
package otel

import (
	"context"

	"go.opentelemetry.io/otel/propagation"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// Propagator carries OpenTelemetry's span contexts, for workflow.Config. It needs no tracer
// provider and no global propagator.
func Propagator() workflow.Propagator { return propagator{} }

type propagator struct {
	w3c propagation.TraceContext
}

func (p propagator) Inject(ctx context.Context) (traceparent, tracestate string) {
	c := propagation.MapCarrier{}
	p.w3c.Inject(ctx, c)
	return c[eventlog.TraceParent], c[eventlog.TraceState]
}

func (p propagator) Extract(ctx context.Context, traceparent, tracestate string) context.Context {
	return p.w3c.Extract(ctx, propagation.MapCarrier{eventlog.TraceParent: traceparent, eventlog.TraceState: tracestate})
}
