package eventlog

import "encoding/json"

// Type names what happened. A type's meaning never changes: a fold that must behave
// differently gets a new version (Event.V) of the type.
type Type string

// Events of a partition.
const (
	PartitionOwned Type = "PartitionOwned" // an owner fenced the partition; N is its epoch
	PlanUsed       Type = "PlanUsed"       // precedes the partition's first event that uses the plan
	Checkpoint     Type = "Checkpoint"     // nothing but a position
)

// Events of an instance. Each has ID, Run and the next Seq of the instance.
const (
	InstanceStarted     Type = "InstanceStarted"     // N is the run
	KeysEvaluated       Type = "KeysEvaluated"       // correlation keys computed from the parameters
	AttemptStarted      Type = "AttemptStarted"      // a retry's time came
	AttemptRunning      Type = "AttemptRunning"      // the handler has run for a second
	AttemptInterrupted  Type = "AttemptInterrupted"  // the worker died; the handler starts again
	AttemptFailed       Type = "AttemptFailed"       // Due says when the next attempt starts
	AttemptTimedOut     Type = "AttemptTimedOut"     // Due says when the next attempt starts
	TaskCompleted       Type = "TaskCompleted"       // Starts says what starts next
	TaskFailed          Type = "TaskFailed"          // the last attempt failed
	MessageReceived     Type = "MessageReceived"     // a listener takes a message; its handler starts
	ListenContinued     Type = "ListenContinued"     // the handler wants another message
	EveryContinued      Type = "EveryContinued"      // the handler runs again at Due
	DeadlinePassed      Type = "DeadlinePassed"      // the time of a process is over; with Error it failed
	SkippedTo           Type = "SkippedTo"           // a message came for a listener that was not reached: what lies before Path is skipped
	FlowEnded           Type = "FlowEnded"           // nothing is left but listeners that work again on a message
	MessageBuffered     Type = "MessageBuffered"     // kept in the instance for a listener that is not free yet
	BufferExpired       Type = "BufferExpired"       // a buffered message outlived its time
	ListenerFull        Type = "ListenerFull"        // too many buffered: the message goes back, the subscription ends
	InstanceCompleted   Type = "InstanceCompleted"   // its last task has ended
	InstanceFailed      Type = "InstanceFailed"      // Path is the task that failed for good
	InstanceStopping    Type = "InstanceStopping"    // on-stop handlers run before InstanceStopped
	InstanceStopped     Type = "InstanceStopped"     // nothing of it starts any more
	InstanceRetried     Type = "InstanceRetried"     // a failed instance goes on from the failed task
	InstanceQuarantined Type = "InstanceQuarantined" // the fold or a decision failed; the instance is frozen
	InstanceReset       Type = "InstanceReset"       // State replaces the frozen state
	InstanceDeleted     Type = "InstanceDeleted"     // an ended instance is forgotten
)

// Events about an instance that are not part of its numbered history (no Seq).
const (
	RequestHeld      Type = "RequestHeld"      // Held waits until the quarantine ends
	RequestReleased  Type = "RequestReleased"  // the oldest held request is decided now
	StopKept         Type = "StopKept"         // a stop came before its start: it is kept until Expires
	StopExpired      Type = "StopExpired"      // nothing started in its time: it is dead-lettered
	AnswersForgotten Type = "AnswersForgotten" // remembered answers older than their time are dropped
	DeliveryRefused  Type = "DeliveryRefused"  // the instance can't take the message: it goes back
	MessageDropped   Type = "MessageDropped"   // a copy of a fanned-out message that nobody takes is dead-lettered
)

// Events of a correlation key (Topic, Key, Value).
const (
	SubscriptionAdded   Type = "SubscriptionAdded"   // an instance waits for messages of the key
	SubscriptionRemoved Type = "SubscriptionRemoved" // it no longer does
	MessageKept         Type = "MessageKept"         // nobody waits: kept until Expires
	MessageMatched      Type = "MessageMatched"      // given to waiters; provisional until acknowledged
	FanOutPage          Type = "FanOutPage"          // the next waiters of a matched message
	MessageReturned     Type = "MessageReturned"     // one waiter could not take it
	MessageExpired      Type = "MessageExpired"      // dead-lettered
	DeliveriesAcked     Type = "DeliveriesAcked"     // partition From has decided all deliveries up to Upto
)

// Event is one entry of the events topic: a fact that no later event changes. One flat
// struct serves all types; which fields a type uses is in docs/event-log.md.
//
// N numbers the events of the partition, from 1 and without gaps; Seq numbers those of the
// instance. Times are in milliseconds since 1970 UTC; At never goes back within a partition.
type Event struct {
	V    int    `json:"v"` // version of the type, from 1
	N    uint64 `json:"n"`
	Type Type   `json:"type"`
	At   int64  `json:"at"`

	ID      string `json:"id,omitempty"`      // instance
	Seq     uint64 `json:"seq,omitempty"`     // number of the event in its instance
	Run     uint64 `json:"run,omitempty"`     // event number of the run's InstanceStarted
	Prev    uint64 `json:"prev,omitempty"`    // number of the event before it that changed what the partition knows of the id; 0 = nothing was known
	Path    string `json:"path,omitempty"`    // task, e.g. "Order/ready"
	Act     uint64 `json:"act,omitempty"`     // seq of the event that armed the attempt or wait
	Attempt int    `json:"attempt,omitempty"` // from 1

	Definition string            `json:"definition,omitempty"`
	Plan       string            `json:"plan,omitempty"` // hash
	PlanData   json.RawMessage   `json:"planData,omitempty"`
	Params     json.RawMessage   `json:"params,omitempty"`   // whole at the start, then a merge patch of top-level fields
	Keys       []TaskKey         `json:"keys,omitempty"`     // values of correlation keys that changed
	Evaluate   bool              `json:"evaluate,omitempty"` // keys must be computed again
	Starts     []Start           `json:"starts,omitempty"`   // what starts now
	Ends       []End             `json:"ends,omitempty"`     // other nodes whose status changes with this
	Choice     string            `json:"choice,omitempty"`   // branch that a Decide chose; of a TaskFailed or DeadlinePassed the path where the flow goes on
	Choices    []string          `json:"choices,omitempty"`  // processes that a Dynamic chose, in order
	Items      []json.RawMessage `json:"items,omitempty"`    // parameters of the runs of a ForEach
	Due        int64             `json:"due,omitempty"`      // when the next attempt starts, or this attempt or wait times out
	Error      string            `json:"error,omitempty"`    // why an attempt or a task failed, or what quarantined the instance
	Stack      string            `json:"stack,omitempty"`    // of a panic
	Reason     string            `json:"reason,omitempty"`   // why; for some types a word or a path
	Request    string            `json:"request,omitempty"`  // id of the call that this event answers; of StopKept, that is kept
	Made       int64             `json:"made,omitempty"`     // when that call was first made
	Caller     string            `json:"caller,omitempty"`   // who made that call, as the program that made it says
	Trace      *Trace            `json:"trace,omitempty"`    // of InstanceStarted: where its start came from
	Sent       *Sent             `json:"sent,omitempty"`     // message of a Command task, in the same transaction
	Subs       []KeyRef          `json:"subs,omitempty"`     // subscribed under (Run, Seq)
	Unsubs     []KeyRef          `json:"unsubs,omitempty"`   // no longer subscribed
	Back       []uint64          `json:"back,omitempty"`     // buffered messages that leave the instance, by the seq of their MessageBuffered
	State      json.RawMessage   `json:"state,omitempty"`    // InstanceReset
	Held       *Request          `json:"held,omitempty"`     // RequestHeld: what waits until the quarantine ends

	Topic   string   `json:"topic,omitempty"` // correlation key
	Key     string   `json:"key,omitempty"`   // its name
	Value   string   `json:"value,omitempty"` // its value
	Msg     uint64   `json:"msg,omitempty"`   // number of the event by which the message arrived at its key
	Message *Message `json:"message,omitempty"`
	Expires int64    `json:"expires,omitempty"` // until when a message or a stop is kept
	Sole    bool     `json:"sole,omitempty"`    // this waiter is the only one that was chosen
	Local   bool     `json:"local,omitempty"`   // the delivery stayed in this partition
	Again   bool     `json:"again,omitempty"`   // the message had been buffered or held before
	Chosen  int      `json:"chosen,omitempty"`  // waiters chosen by this event
	Kept    int      `json:"kept,omitempty"`    // of these, waiters in this partition
	After   uint64   `json:"after,omitempty"`   // fan-out: last subscription served
	Until   uint64   `json:"until,omitempty"`   // fan-out: last subscription to serve; 0 = none is left
	From    int32    `json:"from,omitempty"`    // DeliveriesAcked: the partition that has decided them
	Upto    *Mark    `json:"upto,omitempty"`    // DeliveriesAcked: the last of them

	Worker  string `json:"worker,omitempty"`  // PartitionOwned: the process that owns the partition now
	Address string `json:"address,omitempty"` // PartitionOwned: where that process can be asked

	Out []Out     `json:"out,omitempty"` // what other partitions are told
	Pos *Position `json:"pos,omitempty"` // how far the owner was

	Extra []Field `json:"-"` // fields that this version does not know, in order of appearance
}

// Field is a JSON member kept as it came.
type Field struct {
	Name  string
	Value json.RawMessage
}

// Kind is the kind of a plan's node.
type Kind string

const (
	Process Kind = "process"
	Execute Kind = "execute"
	Command Kind = "command"
	Listen  Kind = "listen"

	Parallel Kind = "parallel" // its nodes run at once
	Decide   Kind = "decide"   // a handler names the one of its nodes that runs
	At       Kind = "at"       // a handler runs at a time
	Every    Kind = "every"    // a handler runs each period
	ForEach  Kind = "foreach"  // a handler gives items; its node runs for each of them
	Dynamic  Kind = "dynamic"  // a handler chooses which of the processes run, in which order

	Monitor Kind = "monitor" // of another node: a handler runs at a time while that is unfinished
	OnStop  Kind = "onstop"  // of another node: a handler runs when the instance is stopped meanwhile
)

// End says that a node that the event is not itself about has this status from now on: a
// Parallel or one of its branches has ended, a task is skipped. NOT_STARTED forgets what the
// node did: the flow went back before it.
type End struct {
	Path   string `json:"path"`
	Kind   Kind   `json:"kind"`
	Status string `json:"status"`
}

// Start says that a task starts: a handler (Execute, Command, Decide, Every) or a wait
// (Listen, At); or that a Parallel does.
type Start struct {
	Path string `json:"path"`
	Kind Kind   `json:"kind"`
	Due  int64  `json:"due,omitempty"` // when the attempt or wait times out; 0 = never
	// Collect says that the items of a ForEach have ended, and its handler gets them.
	Collect bool `json:"collect,omitempty"`
}

// TaskKey is a value that a node computes from the parameters: a listener's correlation
// key; the time of an At or a process's deadline, in ms; the period and the end of an Every,
// in ms, as "60000" or "60000/1735689600000"; the time and the period of a monitor, as
// "1735689600000" or "1735689600000/60000". In a path of a Dynamic, "[]" stands for each of
// its runs.
type TaskKey struct {
	Path  string `json:"path"`
	Value string `json:"value"`
}

// KeyRef is a correlation key.
type KeyRef struct {
	Topic string `json:"topic"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Sent describes the message of a Command task. The record carries the headers
// dagger-app, dagger-instance, dagger-path and dagger-idempotency-key, and the trace context
// of its instance.
type Sent struct {
	Topic string `json:"topic"`
	Key   string `json:"key,omitempty"`
	NoKey bool   `json:"noKey,omitempty"`
	Size  int    `json:"size"`
}

// Message is a record of a user's topic on its way to an instance.
type Message struct {
	Topic     string          `json:"topic"`
	TopicID   string          `json:"topicId,omitempty"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Time      int64           `json:"time,omitempty"` // of the record, ms
	Key       []byte          `json:"key,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"` // the record's value when it is JSON
	Bytes     []byte          `json:"bytes,omitempty"` // the record's value when it is not
	Headers   []Header        `json:"headers,omitempty"`
}

// Out is a request to another partition; its position is (N, index in Event.Out).
type Out struct {
	To      int32   `json:"to"`
	Request Request `json:"request"`
}

// Mark is a position within a source: what one source record sends to one target
// partition is numbered by Index. Marks are compared as pairs.
type Mark struct {
	Pos   int64 `json:"pos"`
	Index int   `json:"index,omitempty"`
}

// Compare orders marks.
func (m Mark) Compare(o Mark) int {
	switch {
	case m.Pos != o.Pos && m.Pos < o.Pos, m.Pos == o.Pos && m.Index < o.Index:
		return -1
	case m == o:
		return 0
	}
	return 1
}

// Source is where a crossing record comes from: a partition of a user's topic read for one
// key name (relay), or with an empty TopicID the events of another partition (forward).
type Source struct {
	TopicID   string `json:"topicId,omitempty"`
	Partition int32  `json:"partition"`
	Key       string `json:"key,omitempty"`
}

// SourceMark is a source's watermark.
type SourceMark struct {
	Source
	Mark
	Delivery bool `json:"delivery,omitempty"` // it was a delivery, so an Ack is owed
}

// Position is the in-band position of an owner: what it had consumed and told when the
// event was appended.
type Position struct {
	TopicID   string       `json:"topicId,omitempty"`   // of the requests topic
	Offset    int64        `json:"offset"`              // next request to consume
	Term      int32        `json:"term,omitempty"`      // Record.Term of the request before it
	Forwarded uint64       `json:"forwarded,omitempty"` // every event up to this number has reached its targets
	Sources   []SourceMark `json:"sources,omitempty"`
	Refused   []Refusal    `json:"refused,omitempty"`
}

// Refusal is the in-band answer to a call that changed nothing.
type Refusal struct {
	ID      string `json:"id"` // instance
	Request string `json:"request"`
	Made    int64  `json:"made,omitempty"`
	Answer  string `json:"answer"`
	Prev    uint64 `json:"prev,omitempty"` // as Event.Prev, unless the event is itself about the instance
}
