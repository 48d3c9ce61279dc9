// Package webui is the HTTP API of an engine: one http.Handler that a program mounts at its root
// or, with http.StripPrefix, anywhere else. docs/http.md describes every path:
//
//	/livez /readyz /metrics        health and metrics
//	/api/v1/instances...           start, look at, list, stop and retry instances, also as they were
//	/api/v1/operations...          verify, rebuild and copy the store
//	/tasks/... /service/ready      the paths of Wayfair's Dagger for Python, in its shapes
//	/peers/v1/...                  for other engines; see workflow.Config.Address
//
// A GET changes nothing. Errors are application/problem+json.
//
// There is no authentication: whoever reaches the handler can do all that it offers. Put a handler
// with your login around it, which says with workflow.WithCaller who makes the call, or set
// Options.ReadOnly. Listen accepts connections only from this machine unless told otherwise.
package webui

import (
	"net/http"
	"time"

	"github.com/godagger/dagger/workflow"
)

// Options of the handler. The zero value works.
type Options struct {
	Metrics      http.Handler  // serves /metrics, for example that of telemetry/prom; nil: 404
	ReadyTimeout time.Duration // how long /readyz may ask the log and the store; 0 = 2 s
	ReadOnly     bool          // refuse everything that changes something
	// Checkpoints is a directory of this machine. If it is set, POST
	// /api/v1/store/checkpoint?name=NAME copies the engine's store into a new directory NAME in
	// it, while the engine works.
	Checkpoints string
	// Imports are the URLs of empty logs, by name. If there are any, POST /api/v1/import?to=NAME
	// makes a new application in one of them from an export.
	Imports map[string]string
}

// callTime is how long an answer of the engine may take.
const callTime = 30 * time.Second

// server answers requests about one engine.
type server struct {
	eng *workflow.Engine
	Options
}

// New makes the handler of an engine. The engine need not run yet.
func New(eng *workflow.Engine, o Options) http.Handler {
	if o.ReadyTimeout <= 0 {
		o.ReadyTimeout = 2 * time.Second
	}
	s := &server{eng, o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	s.seed(mux)
	s.api(mux)
	mux.Handle("GET /peers/v1/", eng.Peers())
	if o.Checkpoints != "" {
		mux.HandleFunc("POST /api/v1/store/checkpoint", s.checkpoint)
	}

	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fail(w, problem{Status: http.StatusForbidden, Code: "cross_origin", Detail: "a page of another site asked for it"})
	}))
	return cross.Handler(s.guard(problems(mux)))
}

// guard is what holds for all paths.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if s.ReadOnly && r.Method != http.MethodGet && r.Method != http.MethodHead {
			fail(w, problem{Status: http.StatusForbidden, Code: "read_only", Detail: "this server changes nothing"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
