package engine

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Code is a plan with the user code behind it, erased of its types.
type Code struct {
	Plan *machine.Plan
	// Handlers by path, one for each task.
	Handlers map[string]Handler
	// Keys gives what is computed from encoded parameters (eventlog.TaskKey): the correlation
	// keys of all listeners, the times of At, the periods of Every; "" where there is none
	// yet. nil when nothing of the plan is computed.
	Keys Keys
	// KeysUnder gives those of a node and what is inside it. nil as Keys.
	KeysUnder func(path string) Keys
	// Messages gives the key values of a message, by topic and key name.
	Messages map[TopicKey]MessageKeys
	// Begins says where their relays begin; BeginYoung unless it says otherwise.
	Begins map[TopicKey]Begin
	// Triggers make calls of records of topics.
	Triggers []Trigger
	// Partitions wanted of topics that must be created; an existing topic keeps its own.
	Topics []string
}

// TopicKey is what a relay reads and by which name of key.
type TopicKey struct{ Topic, Key string }

// MessageKeys gives the values of a message's key: none if it concerns nobody. An error
// dead-letters the message.
type MessageKeys func(*eventlog.Message) ([]string, error)

// Handler runs one attempt of a task. The context ends when the attempt times out, its
// instance is stopped, its partition is lost or the engine shuts down; context.Cause tells
// which (ErrAttemptTimeout, ErrInstanceEnded, ErrPartitionLost, ErrShutdown).
type Handler func(ctx context.Context, a Attempt) (Outcome, error)

// Attempt is what a handler is told.
type Attempt struct {
	Definition string
	Instance   string
	Run        uint64
	Path       string
	Act        uint64
	Attempt    int
	// IdempotencyKey is the same for all attempts of this activation of the task.
	IdempotencyKey string
	Params         json.RawMessage   // in a ForEach those of the item
	Message        *eventlog.Message // of a listener
	Item           int               // in a ForEach, from 0; else -1
	Collect        bool              // a ForEach whose items have ended
	Items          []json.RawMessage // their parameters then
	Trace          *eventlog.Trace   // that the instance's start came with; nil = none
}

// Outcome is what a handler that returned no error did.
type Outcome struct {
	Patch   json.RawMessage   // merge patch of the changed top-level parameters; nil = none
	More    bool              // a listener wants another message, an Every another run
	Choice  string            // of a Decide: the branch; "" = none
	Choices []string          // of a Dynamic: processes, in order
	Items   []json.RawMessage // of a ForEach: parameters of each run
	Record  *eventlog.Record  // of a Command; Partition -1 = by key
}

// Causes with which a handler's context ends.
var (
	ErrAttemptTimeout = errors.New("engine: attempt timed out")
	ErrInstanceEnded  = errors.New("engine: instance ended")
	ErrPartitionLost  = errors.New("engine: partition moved to another worker")
	ErrShutdown       = errors.New("engine: shutting down")
)

// TerminalError marks an error after which no retry makes sense.
type TerminalError interface {
	error
	TerminalError() bool
}

// StopError asks for the end of the instance, with the reason.
type StopError interface {
	error
	StopReason() string
}

// RetryAfterError asks for a delay before the next attempt, in milliseconds.
type RetryAfterError interface {
	error
	RetryAfter() int64
}
