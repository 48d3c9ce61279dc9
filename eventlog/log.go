package eventlog

import (
	"context"
	"errors"
	"time"
)

// Errors that a caller branches on. A driver wraps them with what it knows.
var (
	// ErrFenced: another owner has taken the partition. The Owner is finished.
	ErrFenced = errors.New("eventlog: fenced by another owner")
	// ErrNotMember: this process is no longer a member of the group.
	ErrNotMember = errors.New("eventlog: no longer a member of the group")
	// ErrNoTopic: the topic does not exist.
	ErrNoTopic = errors.New("eventlog: no such topic")
	// ErrTopicChanged: the topic was deleted and created again since it was opened.
	ErrTopicChanged = errors.New("eventlog: topic was recreated")
	// ErrOffsetGone: the offset lies below the topic's first record.
	ErrOffsetGone = errors.New("eventlog: offset is below the start of the topic")
	// ErrTooLarge: a record does not fit its topic. Nothing was written.
	ErrTooLarge = errors.New("eventlog: record is too large")
	// ErrURL: the URL of a log can't be understood; nothing was opened.
	ErrURL = errors.New("eventlog: wrong URL")
	// ErrPartitions: the application's topics have another partition count.
	ErrPartitions = errors.New("eventlog: partition count differs")
	// ErrSettings: a topic has settings with which events would be lost.
	ErrSettings = errors.New("eventlog: topic settings would lose data")
	// ErrInUse: another process holds the log's directory.
	ErrInUse = errors.New("eventlog: in use by another process")
	// ErrFailed: the log can't be written any more, for example because its disk was full,
	// and has to be opened again. What was being written then is there or not.
	ErrFailed = errors.New("eventlog: the log has failed and must be opened again")
	// ErrClosed: the log, reader, member or owner was closed.
	ErrClosed = errors.New("eventlog: closed")
)

// RefusedError says that the log refused one record of a user's topic (too large, no such
// topic, not authorised). The transaction must be aborted; nothing of it is visible.
type RefusedError struct {
	Index int // in the messages given to Append
	Err   error
}

func (e *RefusedError) Error() string { return "append message: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// PayloadWarning is the size in bytes above which a payload is logged as large.
const PayloadWarning = 256 << 10

// Header is a record header.
type Header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Record is a record of a topic. Readers own what Reader.Next gave them; writers give their
// slices away until the call returns.
type Record struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition,omitempty"` // Publish and messages: -1 = by Key (murmur2), or any where Key is nil
	Offset    int64     `json:"offset,omitempty"`    // read only
	Time      time.Time `json:"time,omitzero"`       // read; zero when written = now
	Key       []byte    `json:"key,omitempty"`
	Value     []byte    `json:"value,omitempty"`
	Headers   []Header  `json:"headers,omitempty"`
}

// Partition is what is known of one partition of a topic.
type Partition struct {
	Start int64 // first offset that can be read
	End   int64 // offset of the next record
}

// Topic is what is known of a topic.
type Topic struct {
	Name       string
	ID         string // another one after the topic was deleted and created again
	Partitions []Partition
	MaxRecord  int // bytes of key, value and headers that fit
}

// Names of an application's own topics.
func RequestsTopic(app string) string    { return app + ".requests" }
func EventsTopic(app string) string      { return app + ".events" }
func DefinitionsTopic(app string) string { return app + ".definitions" }
func DeadLetterTopic(app string) string  { return app + ".deadletter" }

// Isolation of a reader.
type Isolation int

const (
	ReadCommitted   Isolation = iota // only records of committed transactions
	ReadUncommitted                  // everything; an open transaction does not stop the reader
)

// Log is an ordered, durable log with topics and partitions: Kafka, or the embedded one.
// A Log belongs to one application; opening it made sure that the application's own topics
// exist with the right settings (requests and events: the same fixed partition count;
// definitions: compacted, one partition; deadletter: one partition). All methods may be
// called concurrently. Cancelling a context ends the call with the context's cause; a write
// may then have happened or not.
type Log interface {
	App() string
	// Partitions is the fixed count of partitions of requests and events.
	Partitions() int32
	// URL is how the log was opened, without secrets.
	URL() string

	// EnsureTopic creates a user's topic unless it exists. It does not change an existing one.
	EnsureTopic(ctx context.Context, name string, partitions int32) error
	// Topic describes a topic, or ErrNoTopic. End is that of isolation ReadUncommitted.
	// ErrPartitions: it is the application's own, and was created again with fewer partitions.
	Topic(ctx context.Context, name string) (Topic, error)
	// OffsetAt is the first offset of each partition whose record is not older than t; the
	// end where there is none.
	OffsetAt(ctx context.Context, name string, t time.Time) ([]int64, error)
	// Publish appends records, idempotently and in order for each partition, and returns
	// when all are durable. After an error any prefix for each partition may have been
	// written. ErrTooLarge and ErrNoTopic: nothing was written.
	Publish(ctx context.Context, records ...Record) error
	// Publisher is Publish with a producer of its own, for a relay or forwarder: after an
	// error it sends nothing more; close it and take a new one.
	Publisher(ctx context.Context) (Publisher, error)
	// Read reads one partition from an offset on. ErrOffsetGone below the start. topicID is
	// the Topic.ID that the offset belongs to; if the topic has another, ErrTopicChanged.
	// An empty topicID skips that check.
	Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation Isolation) (Reader, error)

	// Join makes this process a member of a consumer group that shares out the partitions of
	// a topic. Members of one process count as several.
	Join(ctx context.Context, group, topic string) (Member, error)
	// Own shuts out every earlier owner of the partition and aborts what it left open.
	Own(ctx context.Context, partition int32) (Owner, error)

	// DeleteRecords lets the log drop the records of a partition below an offset.
	DeleteRecords(ctx context.Context, topic string, partition int32, below int64) error
	// Close waits until nothing of the log runs any more.
	Close() error
}

// Peeker is a Log whose Read fetches more at once than somebody needs who looks for a record by
// its place. Read does it for a Log that is none.
type Peeker interface {
	// Peek is Read by small pieces.
	Peek(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation Isolation) (Reader, error)
}

// Publisher appends records in order; it stops for good at the first error.
type Publisher interface {
	Publish(ctx context.Context, records ...Record) error
	Close() error
}

// Reader reads one partition in order.
type Reader interface {
	// Next waits until there is something and returns the next records and the offset from
	// which a later reader goes on. There may be none when only transaction markers or
	// aborted records were passed.
	Next(ctx context.Context) (records []Record, next int64, err error)
	Close() error
}

// Member is a membership of a consumer group. The group only assigns: it protects nothing.
type Member interface {
	// Assigned waits until the assignment differs from what the last call returned, and
	// returns it. The next call says that the change is in force: partitions that were
	// taken away are no longer used. A rebalance waits for it, for two seconds at most.
	Assigned(ctx context.Context) ([]int32, error)
	// Commit stores the offset for a partition. ErrNotMember when another may have it.
	Commit(ctx context.Context, partition int32, offset int64) error
	// Committed is the stored offset, or -1.
	Committed(ctx context.Context, partition int32) (int64, error)
	// Close leaves the group at once.
	Close() error
}

// Owner appends to one partition of the events topic, fenced: once another Owner of the
// partition exists, Append and Commit of this one fail with ErrFenced and nothing of its
// open transaction ever becomes visible. One goroutine uses it. After any error but a
// RefusedError the Owner is finished: Close it and Own again.
type Owner interface {
	// Append adds encoded events (in order, to this partition) and messages (to users'
	// topics and the dead-letter topic) to the open transaction and returns the offset of
	// the first event. It returns when the log has them; they are not visible yet.
	Append(ctx context.Context, events [][]byte, types []Type, messages []Record) (first int64, err error)
	// Commit makes everything appended since the last Commit visible and durable, as one.
	// nil: it is. Any error but ErrFenced: the outcome is unknown.
	Commit(ctx context.Context) error
	// Abort drops what was appended since the last Commit.
	Abort(ctx context.Context) error
	Close() error
}
