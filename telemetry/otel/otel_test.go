package otel

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/workflow"
)

type params struct{}

// TestSpanOfStart: handlers work in the span in which their instance was started, and
// without one in none.
func TestSpanOfStart(t *testing.T) {
	state, err := trace.ParseTraceState("rojo=1")
	if err != nil {
		t.Fatal(err)
	}
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5}, TraceFlags: trace.FlagsSampled, TraceState: state,
	})
	spans := make(chan trace.SpanContext, 1)
	def := workflow.New("Traced", workflow.Execute("execute", func(ctx context.Context, _ *params) error {
		spans <- trace.SpanContextFromContext(ctx)
		return nil
	}))
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:?app=traced&partitions=1", Propagator: Propagator()})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- eng.Run(t.Context()) }()
	defer func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for id, want := range map[string]trace.SpanContext{"with": span.WithRemote(true), "without": {}} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		if want.IsValid() {
			ctx = trace.ContextWithSpanContext(ctx, span)
		}
		if _, err := def.Start(ctx, eng, id, params{}); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-spans:
			if !got.Equal(want) {
				t.Errorf("%s: the span is %+v, want %+v", id, got, want)
			}
		case <-ctx.Done():
			t.Fatalf("%s did not run", id)
		}
		cancel()
	}
}
