// Package webui is the engine's HTTP side: an http.Handler that any program can mount.
//
//	GET /livez     200 while the process serves; it asks neither log nor store
//	GET /readyz    200 when the engine should get work, else 503 with what is wrong
//	GET /metrics   what Options.Metrics serves
//
// With ?verbose /readyz answers with a JSON object of the checks and partitions.
package webui

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/godagger/dagger/workflow"
)

// Options of a handler. The zero value works.
type Options struct {
	Metrics http.Handler  // of /metrics, e.g. from telemetry/prom; nil: 404
	Timeout time.Duration // of a readiness check; 0 = 2 s
}

// New makes the handler of an engine.
func New(eng *workflow.Engine, o Options) http.Handler {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { readyz(w, r, eng, o.Timeout) })
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	return mux
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a client that went away
}

// readiness is the verbose answer.
type readiness struct {
	Ready      bool        `json:"ready"`
	Problems   []string    `json:"problems,omitempty"`
	Partitions []partition `json:"partitions"`
	Slots      slots       `json:"slots"`
}

type partition struct {
	Partition int32  `json:"partition"`
	Ready     bool   `json:"ready"`
	Event     uint64 `json:"event"`
	Stored    uint64 `json:"stored"`
	Queued    int    `json:"queued"`
	Error     string `json:"error,omitempty"`
}

type slots struct {
	Total   int `json:"total"`
	Running int `json:"running"`
	Queued  int `json:"queued"`
	Parked  int `json:"parked"`
}

func readyz(w http.ResponseWriter, r *http.Request, eng *workflow.Engine, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	err := eng.Ready(ctx)
	status := http.StatusOK
	if err != nil {
		status = http.StatusServiceUnavailable
	}
	if !r.URL.Query().Has("verbose") {
		if err != nil {
			text(w, status, err.Error()+"\n")
			return
		}
		text(w, status, "ok\n")
		return
	}
	answer := readiness{Ready: err == nil, Partitions: []partition{}}
	if err != nil {
		answer.Problems = strings.Split(err.Error(), "\n")
	}
	for _, p := range eng.Partitions() {
		answer.Partitions = append(answer.Partitions, partition{p.Partition, p.Ready, p.Event, p.Stored, p.Queued, p.Err})
	}
	s := eng.Slots()
	answer.Slots = slots{s.Total, s.Running, s.Queued, s.Parked}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}
