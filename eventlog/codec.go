package eventlog

import (
	"errors"
	"fmt"
	"hash/crc64"
	"unicode"
	"unicode/utf8"
)

// ErrUnknownVersion: an event or request is of a type, or of a version of its type, that
// this code does not know. A partition that holds such an event must not be folded.
var ErrUnknownVersion = errors.New("eventlog: needs a newer version")

// Limits of what a request may carry. Correlation values and paths are made by user code
// and definitions: who makes requests of them checks them before.
const (
	MaxID    = 512      // bytes of an instance id, request id or correlation value; DecodeRequest cuts a longer caller
	MaxName  = 1 << 10  // bytes of a definition's name, a plan's hash, a path
	MaxError = 16 << 10 // bytes of an error or reason; DecodeRequest cuts what is longer
	MaxStack = 64 << 10 // bytes of a stack; DecodeRequest cuts what is longer
)

// eventTypes are the known types and their newest versions.
var eventTypes = []struct {
	typ Type
	v   int
}{
	{PartitionOwned, 1}, {PlanUsed, 1}, {Checkpoint, 1},

	{InstanceStarted, 1}, {KeysEvaluated, 1}, {AttemptStarted, 1}, {AttemptRunning, 1},
	{AttemptInterrupted, 1}, {AttemptFailed, 1}, {AttemptTimedOut, 1}, {TaskCompleted, 1},
	{TaskFailed, 1}, {MessageReceived, 1}, {ListenContinued, 1}, {EveryContinued, 1},
	{DeadlinePassed, 1}, {SkippedTo, 1}, {FlowEnded, 1}, {MessageBuffered, 1},
	{BufferExpired, 1}, {ListenerFull, 1}, {InstanceCompleted, 1}, {InstanceFailed, 1},
	{InstanceStopping, 1}, {InstanceStopped, 1}, {InstanceRetried, 1}, {InstanceQuarantined, 1},
	{InstanceReset, 1}, {InstanceDeleted, 1},

	{RequestHeld, 1}, {RequestReleased, 1}, {StopKept, 1}, {StopExpired, 1}, {AnswersForgotten, 1}, {DeliveryRefused, 1},
	{MessageDropped, 1},

	{SubscriptionAdded, 1}, {SubscriptionRemoved, 1}, {MessageKept, 1}, {MessageMatched, 1},
	{FanOutPage, 1}, {MessageReturned, 1}, {MessageExpired, 1}, {DeliveriesAcked, 1},
}

// requestTypes are the known types of requests and their newest versions.
var requestTypes = []struct {
	typ RequestType
	v   int
}{
	{StartInstance, 1}, {StopInstance, 1}, {RetryInstance, 1}, {ReleaseInstance, 1}, {DeleteInstance, 1},
	{Result, 1}, {Evaluated, 1}, {Deliver, 1}, {Subscribe, 1}, {Unsubscribe, 1},
	{DeliverTo, 1}, {Returned, 1}, {Ack, 1},
}

// What a decoder looks up by the bytes of a name, and a writer by type.
var (
	knownEvents   = map[string]knownEvent{}
	knownRequests = map[RequestType]knownRequest{}
)

type knownRequest struct {
	typ RequestType
	v   int
}

type knownEvent struct {
	typ     Type
	v       int
	headers []Header
}

func init() {
	for _, t := range eventTypes {
		knownEvents[string(t.typ)] = knownEvent{t.typ, t.v, headersOf(t.typ)}
	}
	for _, t := range requestTypes {
		knownRequests[t.typ] = knownRequest{t.typ, t.v}
	}
}

func headersOf(t Type) []Header {
	return []Header{
		{Key: "content-type", Value: []byte("application/json")},
		{Key: "type", Value: []byte(t)},
	}
}

// EventHeaders are the headers of the record of an event. They are shared: a caller does
// not change them.
func EventHeaders(t Type) []Header {
	if k, ok := knownEvents[string(t)]; ok {
		return k.headers
	}
	return headersOf(t)
}

// MaxVersion is the newest version of an event type that this code knows, 0 for an unknown
// type.
func MaxVersion(t Type) int { return knownEvents[string(t)].v }

// IsCall says whether requests of the type are calls: made by a client, with a request id,
// and answered.
func (t RequestType) IsCall() bool {
	switch t {
	case StartInstance, StopInstance, RetryInstance, ReleaseInstance, DeleteInstance:
		return true
	}
	return false
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// Checksum is that of an encoded event. A store keeps it to know its log again.
func Checksum(data []byte) uint64 { return crc64.Checksum(data, crcTable) }

// ValidateID says why a string can't be an instance id (nor a request id): it is empty,
// longer than MaxID bytes, no UTF-8, or has control characters.
func ValidateID(id string) error {
	switch {
	case id == "":
		return errors.New("the id is empty")
	case len(id) > MaxID:
		return fmt.Errorf("the id has %d bytes; at most %d fit", len(id), MaxID)
	case !utf8.ValidString(id):
		return errors.New("the id is not valid UTF-8")
	}
	for i, r := range id {
		if unicode.IsControl(r) {
			return fmt.Errorf("the id has the control character %U at byte %d", r, i)
		}
	}
	return nil
}
