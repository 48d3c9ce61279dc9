package webui

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/telemetry/prom"
	"github.com/godagger/dagger/workflow"
)

type order struct {
	Number int `json:"number"`
}

// TestHealth asks an engine before, while and after it runs.
func TestHealth(t *testing.T) {
	metrics := prom.New()
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:?app=health&partitions=4", Observer: metrics.Observer()})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	h := New(eng, Options{Metrics: metrics.Handler(eng)})
	get := func(path string) (int, string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/livez"); code != 200 {
		t.Errorf("livez before Run: %d", code)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "Run does not work") {
		t.Errorf("readyz before Run: %d %s", code, body)
	}
	def := workflow.New("Health", workflow.Process("P", workflow.Execute("t", func(context.Context, *order) error { return nil })))
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- eng.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	limit, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	h1, err := def.Start(limit, eng, "order-1", order{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h1.Wait(limit); err != nil {
		t.Fatal(err)
	}
	for len(eng.Partitions()) < 4 || eng.Ready(limit) != nil {
		if limit.Err() != nil {
			t.Fatalf("not ready: %v", eng.Ready(t.Context()))
		}
	}
	if code, body := get("/readyz?verbose"); code != 200 || !strings.Contains(body, `"ready":true`) {
		t.Errorf("readyz: %d %s", code, body)
	}
	code, body := get("/metrics")
	if code != 200 {
		t.Errorf("metrics: %d", code)
	}
	for _, want := range []string{
		`dagger_instances_started_total{definition="Health"} 1`,
		`dagger_instances_ended_total{definition="Health",outcome="completed"} 1`,
		`dagger_partition_ready{partition="3"} 1`,
		`dagger_handler_seconds_count{definition="Health",outcome="ok",task="P/t"} 1`,
		`dagger_handler_slots{state="total"} 256`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(body, "order-1") {
		t.Error("an id stands in the metrics")
	}
}
