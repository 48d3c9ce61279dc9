package webui

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// away is a log whose brokers went away after it was opened.
type away struct {
	eventlog.Log
	gone bool
}

var errAway = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func (l *away) Topic(ctx context.Context, name string) (eventlog.Topic, error) {
	if l.gone {
		return eventlog.Topic{}, fmt.Errorf("look up topic %s: %w", name, errAway)
	}
	return l.Log.Topic(ctx, name)
}

func (l *away) Publish(ctx context.Context, records ...eventlog.Record) error {
	if l.gone {
		return fmt.Errorf("publish: %w", errAway)
	}
	return l.Log.Publish(ctx, records...)
}

// Without its log an engine is not ready, and a call says that it may be repeated.
func TestLogUnreachable(t *testing.T) {
	log, err := eventlog.Open(t.Context(), "mem:?app=away&partitions=1")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	l := &away{Log: log}
	eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: l, Store: "mem:"})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	if err := eng.Register(workflow.New("Away", workflow.Execute("t", func(context.Context, *order) error { return nil }))); err != nil {
		t.Fatal(err)
	}
	l.gone = true
	h := New(eng, Options{})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if body := w.Body.String(); w.Code != 503 || !strings.Contains(body, "log: look up topic away.events: dial tcp: connection refused") {
		t.Errorf("readyz: %d %s", w.Code, body)
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v1/instances", strings.NewReader(`{"definition":"Away","id":"a"}`))
	r.Header.Set("Content-Type", "application/json")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if body := w.Body.String(); w.Code != 503 || !strings.Contains(body, `"code":"unreachable"`) || w.Header().Get("Retry-After") == "" {
		t.Errorf("start: %d %s", w.Code, body)
	}
}
