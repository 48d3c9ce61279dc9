package webui

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/workflow"
)

// TestServe: it answers on this machine, to who means this machine, until it is told to end.
func TestServe(t *testing.T) {
	l, err := Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	if a := l.Addr().String(); !strings.HasPrefix(a, "127.0.0.1:") {
		t.Errorf("it listens on %s", a)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, http.HandlerFunc(livez)) }()
	for host, want := range map[string]int{"": 200, "localhost:99": 200, "127.0.0.1": 200, "[::1]:80": 200, "[::1]": 200, "evil.example": 403, "evil.example:6066": 403, "10.0.0.1": 403} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(w.Body)
		if w.StatusCode != want || err != nil {
			t.Errorf("host %q: %d %s %v", host, w.StatusCode, body, err)
		}
		if err := w.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestListen refuses what is no address.
func TestListen(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "127.0.0.1:x", "no such host:1"} {
		if l, err := Listen(address); err == nil {
			t.Errorf("it listens on %v", l.Addr())
		}
	}
}

// TestElsewhere: a worker with a store of its own names the one that has the rest.
func TestElsewhere(t *testing.T) {
	log, err := embedlog.OpenMemory(embedlog.Options{App: "elsewhere", Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	closed := false
	def := shop(&closed)
	handlers := map[string]http.Handler{}
	engines := map[string]*workflow.Engine{}
	for _, name := range []string{"a", "b"} {
		eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", Worker: name, Address: "http://" + name + ".example", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer eng.Close()
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
		engines[name], handlers[name] = eng, New(eng, Options{})
	}
	limit, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		n := map[string]int{}
		for name, eng := range engines {
			for _, p := range eng.Partitions() {
				if p.Ready {
					n[name]++
				}
			}
		}
		if n["a"] > 0 && n["b"] > 0 && n["a"]+n["b"] == 4 {
			break
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			t.Fatalf("partitions: %v", n)
		}
	}
	for k := range 8 {
		if _, err := def.Start(limit, engines["a"], fmt.Sprint("order-", k), pizza{OrderID: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"/tasks/instances", "/api/v1/instances"} {
		w := httptest.NewRecorder()
		handlers["a"].ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err, w.Body)
		}
		if w.Code != 503 || w.Header().Get("Content-Type") != "application/problem+json" || p.Code != "elsewhere" || p.Worker != "b" || p.Address != "http://b.example" || p.Partition == nil {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	for k := range 8 { // one instance is read from the log, wherever it is
		w := httptest.NewRecorder()
		handlers["b"].ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprint("/tasks/instance/order-", k), nil))
		if w.Code != 200 {
			t.Errorf("order-%d: %d %s", k, w.Code, w.Body)
		}
	}
}
