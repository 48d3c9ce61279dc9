package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

// Exit statuses.
const (
	statusDone        = 0
	statusFailed      = 1
	statusUsage       = 2
	statusNotFound    = 3
	statusRefused     = 4 // by the state that something is in
	statusDifference  = 5
	statusUnreachable = 6 // or held by another process
	statusTimedOut    = 7
	statusInterrupted = 130
)

const statuses = `Exit statuses:
  0  done
  1  failed
  2  wrong usage
  3  no such instance
  4  refused: the state of the instance does not allow it
  5  a difference or a violation was found
  6  log or store can't be reached, or another process holds it
  7  timed out
  130  interrupted`

// statusError is an error with the exit status that it means.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func failure(status int, format string, args ...any) error {
	return &statusError{status, fmt.Errorf(format, args...)}
}

// errTimeout is the cause with which --timeout ends a command.
var errTimeout = errors.New("timed out")

// statusOf is the exit status of an error.
func statusOf(ctx context.Context, err error) int {
	if err == nil {
		return statusDone
	}
	if errors.Is(err, errTimeout) || errors.Is(context.Cause(ctx), errTimeout) {
		return statusTimedOut
	}
	if ctx.Err() != nil {
		return statusInterrupted
	}
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status
	}
	switch {
	case errors.Is(err, engine.ErrNotFound), errors.Is(err, engine.ErrUnknownDefinition):
		return statusNotFound
	case errors.Is(err, eventlog.ErrInUse), errors.Is(err, projection.ErrInUse):
		return statusUnreachable
	case errors.Is(err, engine.ErrCursor), errors.Is(err, engine.ErrPoint):
		return statusUsage
	}
	return statusFailed
}

// report writes an error as people or programs want it.
func report(w io.Writer, asJSON bool, status int, err error) {
	if !asJSON {
		fmt.Fprintln(w, "daggerctl:", err)
		return
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(struct {
		Error  string `json:"error"`
		Status int    `json:"status"`
	}{err.Error(), status})
}
