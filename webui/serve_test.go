package webui

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
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
