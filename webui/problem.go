package webui

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// problem is an error as RFC 9457 has it. Code is what a program branches on.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`

	// Where another worker must be asked.
	Partition *int32 `json:"partition,omitempty"`
	Worker    string `json:"worker,omitempty"`
	Address   string `json:"address,omitempty"`
}

// codes are the engine's errors as HTTP has them.
var codes = []struct {
	err    error
	status int
	code   string
}{
	{workflow.ErrNotFound, http.StatusNotFound, "not_found"},
	{workflow.ErrEnded, http.StatusConflict, "ended"},
	{workflow.ErrNotEnded, http.StatusConflict, "running"},
	{workflow.ErrNotFailed, http.StatusConflict, "not_failed"},
	{workflow.ErrQuarantined, http.StatusConflict, "quarantined"},
	{workflow.ErrExpired, http.StatusConflict, "expired"},
	{workflow.ErrNotRegistered, http.StatusUnprocessableEntity, "not_registered"},
	{workflow.ErrParameters, http.StatusUnprocessableEntity, "parameters"},
	{workflow.ErrTooLarge, http.StatusRequestEntityTooLarge, "too_large"},
	{workflow.ErrTrimmed, http.StatusGone, "trimmed"},
	{workflow.ErrMoment, http.StatusBadRequest, "moment"},
	{workflow.ErrNoSnapshots, http.StatusNotImplemented, "no_snapshots"},
	{workflow.ErrCursor, http.StatusBadRequest, "cursor"},
	{workflow.ErrBusy, http.StatusServiceUnavailable, "busy"},
	{workflow.ErrClosed, http.StatusServiceUnavailable, "closed"},
	{eventlog.ErrClosed, http.StatusServiceUnavailable, "closed"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout"},
}

// problemOf says what an error of the engine comes to.
func problemOf(err error) problem {
	if e, ok := errors.AsType[*workflow.ElsewhereError](err); ok {
		return problem{Status: http.StatusServiceUnavailable, Code: "elsewhere", Detail: err.Error(),
			Partition: &e.Partition, Worker: e.Worker, Address: e.Address}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return problem{Status: c.status, Code: c.code, Detail: err.Error()}
		}
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return problem{Status: http.StatusServiceUnavailable, Code: "unreachable", Detail: err.Error()}
	}
	return problem{Status: http.StatusInternalServerError, Code: "internal", Detail: err.Error()}
}

// bad is a request that can't be understood.
func bad(detail string) problem {
	return problem{Status: http.StatusBadRequest, Code: "bad_request", Detail: detail}
}

func fail(w http.ResponseWriter, p problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	write(w, p.Status, "application/problem+json", p)
}

func send(w http.ResponseWriter, status int, body any) { write(w, status, "application/json", body) }

func write(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = encoder(w).Encode(body) // a client that went away
}

// encoder writes JSON in which text stands as it is.
func encoder(w http.ResponseWriter) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// problems makes problems of what the mux answers where it has no handler.
func problems(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		x := &unhandled{header: w.Header()}
		h.ServeHTTP(x, r)
		switch x.status {
		case http.StatusMethodNotAllowed:
			fail(w, problem{Status: x.status, Code: "method", Detail: r.Method + " is not for this path"})
		default:
			fail(w, problem{Status: http.StatusNotFound, Code: "no_path", Detail: "there is nothing at this path"})
		}
	})
}

// unhandled keeps the status and the header of an answer, and drops the rest.
type unhandled struct {
	header http.Header
	status int
}

func (u *unhandled) Header() http.Header         { return u.header }
func (u *unhandled) Write(b []byte) (int, error) { return len(b), nil }
func (u *unhandled) WriteHeader(status int)      { u.status = status }
