package webui_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/webui"
	"github.com/godagger/dagger/workflow"
)

// users are those who may do something. A program of yours asks its own login instead.
var users = map[string]string{"ann": "s3cret"}

// known lets pass who is known, and says who it is. Anybody may ask for the health.
func known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/livez" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		name, password, _ := r.BasicAuth()
		if want, ok := users[name]; !ok || password != want {
			w.Header().Set("WWW-Authenticate", `Basic realm="workflows"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(workflow.WithCaller(r.Context(), name)))
	})
}

// The handler behind a login: who did what stands in the log, and in the history.
func ExampleNew_login() {
	ctx := context.Background()
	eng, err := workflow.Open(ctx, workflow.Config{Log: "mem:", Store: "mem:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer eng.Close()
	type order struct{}
	wait := func(ctx context.Context, _ *order) error { <-ctx.Done(); return context.Cause(ctx) }
	if err := eng.Register(workflow.New("Order", workflow.Execute("wait", wait))); err != nil {
		panic(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- eng.Run(running) }()
	defer func() { stop(); <-ended }()

	server := httptest.NewServer(known(webui.New(eng, webui.Options{})))
	defer server.Close()
	post := func(user, path, body string) {
		r, err := http.NewRequest(http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth(user, users[user])
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			panic(err)
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			panic(err)
		}
		fmt.Println(user, path, answer.StatusCode)
	}
	post("eve", "/api/v1/instances", `{"definition":"Order","id":"order-1"}`)
	post("ann", "/api/v1/instances", `{"definition":"Order","id":"order-1"}`)
	post("ann", "/api/v1/instances/order-1/stop", `{"reason":"cancelled by the customer"}`)

	answer, err := http.Get(server.URL + "/livez")
	if err != nil {
		panic(err)
	}
	answer.Body.Close()
	fmt.Println("anybody /livez", answer.StatusCode)

	h, err := eng.History(ctx, "order-1", workflow.Moment{})
	if err != nil {
		panic(err)
	}
	for _, s := range h.Steps {
		if s.By == "call" {
			fmt.Println(s.Type, "by", s.Caller)
		}
	}
	// Output:
	// eve /api/v1/instances 401
	// ann /api/v1/instances 201
	// ann /api/v1/instances/order-1/stop 200
	// anybody /livez 200
	// InstanceStarted by ann
	// InstanceStopped by ann
}
