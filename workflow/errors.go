package workflow

import (
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/internal/engine"
)

// Errors that a caller branches on, with errors.Is.
var (
	// ErrNotFound: there is no instance with this id.
	ErrNotFound = errors.New("workflow: no such instance")
	// ErrEnded: the instance has ended, so it can't be stopped.
	ErrEnded = errors.New("workflow: instance has ended")
	// ErrNotEnded: the instance has not ended, so it can't be deleted.
	ErrNotEnded = errors.New("workflow: instance has not ended")
	// ErrNotFailed: the instance has not failed, so it can't be retried.
	ErrNotFailed = errors.New("workflow: instance has not failed")
	// ErrStopped: the instance was stopped before it completed.
	ErrStopped = errors.New("workflow: instance was stopped")
	// ErrQuarantined: the instance is frozen because its state could not be computed. An operator
	// releases it with daggerctl release.
	ErrQuarantined = errors.New("workflow: instance is in quarantine")
	// ErrNotRegistered: the definition is not registered with this engine.
	ErrNotRegistered = errors.New("workflow: definition is not registered")
	// ErrParameters: the parameters are not of the definition's type, or can't be used.
	ErrParameters = errors.New("workflow: parameters do not fit")
	// ErrCursor: the cursor does not belong to the filter.
	ErrCursor = engine.ErrCursor
	// ErrTooLarge: the parameters do not fit the log. Keep large data elsewhere and refer to it.
	ErrTooLarge = errors.New("workflow: parameters are too large")
	// ErrExpired: the call reached its instance so late that the engine can't tell whether it had
	// been applied before. It was not applied now. Look at the instance.
	ErrExpired = errors.New("workflow: call came too late")
	// ErrBusy: too much work is waiting in the instance's partition. Try again later.
	ErrBusy = errors.New("workflow: too much work is waiting")
	// ErrClosed: the engine was closed, or Run has ended.
	ErrClosed = errors.New("workflow: engine is closed")
)

// ElsewhereError is returned where the answer is in the store of another process, which can't
// be asked: it has no Config.Address, or does not answer there. That happens with stores that
// each process has for itself, such as Pebble; see Config.Address.
type ElsewhereError struct {
	Partition int32
	Worker    string // Config.Worker of the process that owns the partition
	Address   string // its Config.Address; "" = it has none
	Err       error  // why it did not answer; nil = it was not asked
}

func (e *ElsewhereError) Error() string {
	s := fmt.Sprintf("workflow: partition %d is in the store of worker %s", e.Partition, e.Worker)
	if e.Address != "" {
		s += " at " + e.Address
	}
	if e.Err != nil {
		s += ", which can't be asked: " + e.Err.Error()
	}
	return s
}

func (e *ElsewhereError) Unwrap() error { return e.Err }

// Causes with which a handler's context ends, see context.Cause.
var (
	ErrAttemptTimeout = engine.ErrAttemptTimeout // the task's Timeout
	ErrInstanceEnded  = engine.ErrInstanceEnded  // the instance was stopped
	ErrPartitionLost  = engine.ErrPartitionLost  // another process goes on with the instance
	ErrShutdown       = engine.ErrShutdown       // the context of Engine.Run has ended
)

// TaskError says which task made an instance fail. Err is the text of the error that its last
// attempt returned: errors.Is does not find the handler's own errors in it.
type TaskError struct {
	Definition string
	Instance   string
	Path       string // "" when a correlation key could not be computed
	Attempt    int    // the last one, from 1
	Err        error
}

func (e *TaskError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s %s: %v", e.Definition, e.Instance, e.Err)
	}
	return fmt.Sprintf("%s %s: %s failed at attempt %d: %v", e.Definition, e.Instance, e.Path, e.Attempt, e.Err)
}

func (e *TaskError) Unwrap() error { return e.Err }

// Terminal marks an error that another attempt would not mend: the task fails at once, whatever its
// Retry says. Terminal(nil) is nil.
func Terminal(err error) error {
	if err == nil {
		return nil
	}
	return &terminalError{err}
}

type terminalError struct{ err error }

func (e *terminalError) Error() string       { return e.err.Error() }
func (e *terminalError) Unwrap() error       { return e.err }
func (e *terminalError) TerminalError() bool { return true }

// Stop makes an error with which a handler stops its own instance, as Handle.Stop would, for the
// given reason.
func Stop(reason string) error { return &stopError{reason} }

type stopError struct{ reason string }

func (e *stopError) Error() string      { return "stop the instance: " + e.reason }
func (e *stopError) StopReason() string { return e.reason }

// RetryAfter marks an error after which the next attempt starts d from now, instead of after the
// delay of the task's Retry. It does not add attempts. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, d}
}

type retryAfterError struct {
	err   error
	after time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// RetryAfter is the delay in whole milliseconds, at least 1: zero would mean the policy's.
func (e *retryAfterError) RetryAfter() int64 { return max(1, e.after.Milliseconds()) }
