package eventlog

import "encoding/json"

// RequestType says what is asked for.
type RequestType string

// Calls: they carry a request id and are answered.
const (
	StartInstance   RequestType = "Start"   // Definition or Plan, Params
	StopInstance    RequestType = "Stop"    // Reason
	RetryInstance   RequestType = "Retry"   // a failed instance, from its failed task
	ReleaseInstance RequestType = "Release" // a quarantined instance; State, or the last good one
	DeleteInstance  RequestType = "Delete"  // an ended instance
)

// Requests between the engine's own parts.
const (
	Result      RequestType = "Result"      // a handler ended
	Evaluated   RequestType = "Evaluated"   // correlation keys were computed
	Deliver     RequestType = "Deliver"     // relay to correlation owner
	Subscribe   RequestType = "Subscribe"   // instance to correlation owner
	Unsubscribe RequestType = "Unsubscribe" // instance to correlation owner
	DeliverTo   RequestType = "DeliverTo"   // correlation owner to instance
	Returned    RequestType = "Returned"    // instance to correlation owner: could not take it
	Ack         RequestType = "Ack"         // receiver to correlation owner: deliveries up to Upto are decided
)

// Request asks an instance or a correlation key for something, and may be refused. It is the value
// of a record of <app>.requests; the key of the record is the PartitionKey of ID, or of Value for
// Deliver, Subscribe, Unsubscribe and Returned. Any Kafka client may append calls. One flat struct
// serves all types; which fields a type uses is in docs/event-log.md.
type Request struct {
	V    int         `json:"v"`
	Type RequestType `json:"type"`

	Request string `json:"request,omitempty"` // id of a call: made once, kept over retries
	Made    int64  `json:"made,omitempty"`    // when the call was first made, ms
	Caller  string `json:"caller,omitempty"`  // who makes the call, for the record

	ID      string `json:"id,omitempty"` // instance
	Run     uint64 `json:"run,omitempty"`
	Path    string `json:"path,omitempty"`
	Act     uint64 `json:"act,omitempty"`
	Attempt int    `json:"attempt,omitempty"`

	Definition string          `json:"definition,omitempty"`
	Plan       string          `json:"plan,omitempty"`   // hash; empty = the worker's current one
	Params     json.RawMessage `json:"params,omitempty"` // Start: whole; Result: merge patch
	Base       uint64          `json:"base,omitempty"`   // Result, Evaluated: seq of the parameters that were read
	Keys       []TaskKey       `json:"keys,omitempty"`   // values of all listeners' keys on the new parameters
	HasKeys    bool            `json:"hasKeys,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Trace      *Trace          `json:"trace,omitempty"` // Start: else that of the record's headers
	State      json.RawMessage `json:"state,omitempty"` // Release

	OK         bool              `json:"ok,omitempty"`      // Result: the handler returned nil
	More       bool              `json:"more,omitempty"`    // Result of a listener: wait for another message
	Choice     string            `json:"choice,omitempty"`  // Result of a Decide: the branch; "" = none
	Choices    []string          `json:"choices,omitempty"` // Result of a Dynamic: processes, in order
	Items      []json.RawMessage `json:"items,omitempty"`   // Result of a ForEach: parameters of each run
	Stop       string            `json:"stop,omitempty"`    // Result: the handler stops the instance, and why
	Error      string            `json:"error,omitempty"`
	Stack      string            `json:"stack,omitempty"`
	Terminal   bool              `json:"terminal,omitempty"`   // do not retry
	RetryAfter int64             `json:"retryAfter,omitempty"` // ms; overrides the policy's delay
	Jitter     float64           `json:"jitter,omitempty"`     // in [0,1), made by the worker
	Record     *Record           `json:"record,omitempty"`     // Result of a Command: the message to send

	Source *Source `json:"source,omitempty"` // crossing partitions
	Mark   *Mark   `json:"mark,omitempty"`
	At     int64   `json:"at,omitempty"` // of the event that told it

	Topic   string   `json:"topic,omitempty"`
	Key     string   `json:"key,omitempty"`
	Value   string   `json:"value,omitempty"`
	Msg     uint64   `json:"msg,omitempty"`
	Message *Message `json:"message,omitempty"`
	Expires int64    `json:"expires,omitempty"`
	TTL     int64    `json:"ttl,omitempty"`    // Deliver: how long the message is kept unmatched, ms
	Sole    bool     `json:"sole,omitempty"`   // DeliverTo: only this waiter was chosen; Subscribe: takes messages alone
	Oldest  bool     `json:"oldest,omitempty"` // a held delivery: it counted as taken
	From    int32    `json:"from,omitempty"`   // Ack
	Upto    *Mark    `json:"upto,omitempty"`   // Ack
}

// PartitionKey is what decides the partition of the request.
func (r *Request) PartitionKey() string {
	switch r.Type {
	case Deliver, Subscribe, Unsubscribe, Returned:
		return PartitionKey(r.Value)
	}
	return PartitionKey(r.ID)
}
