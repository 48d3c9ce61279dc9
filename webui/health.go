package webui

import (
	"context"
	"net/http"
	"strings"
)

// livez asks neither log nor store: it says that the process serves.
func livez(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") }

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
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

// ready is nil when the engine should get work, and the status that says so.
func (s *server) ready(r *http.Request) (int, error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.ReadyTimeout)
	defer cancel()
	if err := s.eng.Ready(ctx); err != nil {
		return http.StatusServiceUnavailable, err
	}
	return http.StatusOK, nil
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	status, err := s.ready(r)
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
	for _, p := range s.eng.Partitions() {
		answer.Partitions = append(answer.Partitions, partition{p.Partition, p.Ready, p.Event, p.Stored, p.Queued, p.Err})
	}
	n := s.eng.Slots()
	answer.Slots = slots{n.Total, n.Running, n.Queued, n.Parked}
	send(w, status, answer)
}
