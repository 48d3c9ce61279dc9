package engine

import "errors"

var (
	// ErrNotFound: no instance of that id.
	ErrNotFound = errors.New("engine: instance not found")
	// ErrClosed: the engine is closed.
	ErrClosed = errors.New("engine: closed")
	// ErrBusy: the partition has too much queued; try again later. Results, timers and stops pass.
	ErrBusy = errors.New("engine: too much work is queued, try again later")
)
