package eventlog

import (
	"context"
	"errors"
	"time"
)

// Errors that a caller can tell apart with errors.Is. A driver wraps them with details.
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
	// ErrTruncated: records that were read are gone, and others may stand in their place.
	ErrTruncated = errors.New("eventlog: records that were read were lost")
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

// RefusedError is returned by Owner.Append when the log refuses one of the messages: it is too
// large, its topic does not exist, or writing to it is not allowed. The transaction must be
// aborted; nothing of it is visible.
type RefusedError struct {
	Index int // in the messages given to Append
	Err   error
}

func (e *RefusedError) Error() string { return "append message: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// PayloadWarning is the size in bytes from which on the engine logs that a payload is large.
const PayloadWarning = 256 << 10

// Header is a record header.
type Header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Record is a record of a topic. What Reader.Next returned belongs to the caller. Who writes records
// must not change their slices until the call has returned.
type Record struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition,omitempty"` // Publish and messages: -1 = by Key (murmur2), or any where Key is nil
	Offset    int64     `json:"offset,omitempty"`    // read only
	Time      time.Time `json:"time,omitzero"`       // read; zero when written = now
	Key       []byte    `json:"key,omitempty"`
	Value     []byte    `json:"value,omitempty"`
	Headers   []Header  `json:"headers,omitempty"`
	Term      int32     `json:"-"` // read: which leader of the partition wrote it, later ones greater; 0 = unknown
}

// Partition describes a partition of a topic, at the time of a call of Log.Topic.
type Partition struct {
	Start int64 // first offset that can be read
	End   int64 // offset of the next record
}

// Topic describes a topic, at the time of a call of Log.Topic.
type Topic struct {
	Name       string
	ID         string // another one after the topic was deleted and created again
	Partitions []Partition
	MaxRecord  int // bytes of key, value and headers that fit
}

// RequestsTopic is the name of the topic in which an application's requests are.
func RequestsTopic(app string) string { return app + ".requests" }

// EventsTopic is the name of the topic in which an application's events are.
func EventsTopic(app string) string { return app + ".events" }

// DefinitionsTopic is the name of the topic in which an application's definitions are.
func DefinitionsTopic(app string) string { return app + ".definitions" }

// DeadLetterTopic is the name of the topic for what nobody could take.
func DeadLetterTopic(app string) string { return app + ".deadletter" }

// Isolation says which records a reader gets.
type Isolation int

const (
	ReadCommitted   Isolation = iota // only records of committed transactions
	ReadUncommitted                  // everything; an open transaction does not stop the reader
)

// Log is an ordered, durable log with topics and partitions. It belongs to one application: opening
// it has made sure that the application's own topics exist with the right settings. Requests and
// events have the same fixed number of partitions; definitions and dead letters have one, and
// definitions are compacted. All methods may be called concurrently. When a context ends, the call
// ends with the context's cause; a write may then have happened or not.
type Log interface {
	// App is the name of the application.
	App() string
	// Partitions is the fixed number of partitions of requests and events.
	Partitions() int32
	// URL is how the log was opened, without secrets.
	URL() string

	// EnsureTopic creates a user's topic if it does not exist. It does not change one that does.
	EnsureTopic(ctx context.Context, name string, partitions int32) error
	// Topic describes a topic. The End of a partition is that for ReadUncommitted. ErrNoTopic.
	// ErrPartitions: the topic is the application's own, and was created again with fewer
	// partitions.
	Topic(ctx context.Context, name string) (Topic, error)
	// OffsetAt returns, for each partition, the offset of the first record that is not older than
	// t, or the end if there is none.
	OffsetAt(ctx context.Context, name string, t time.Time) ([]int64, error)
	// Publish appends records, in order for each partition and each once, and returns when all
	// are durable. ErrTooLarge and ErrNoTopic: nothing was written. After another error, the
	// first records for each partition, or none, may have been written.
	Publish(ctx context.Context, records ...Record) error
	// Publisher makes a producer of its own, for those who must know that nothing is sent any more
	// after an error: relays and forwarders.
	Publisher(ctx context.Context) (Publisher, error)
	// Read reads a partition from an offset on. ErrOffsetGone: the offset is below the start.
	// topicID is the Topic.ID that the offset was taken from; if the topic has another id now, the
	// error is ErrTopicChanged. "" skips that check.
	Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation Isolation) (Reader, error)

	// Join makes this process a member of a consumer group, which divides the partitions of a topic
	// among its members. A process may join several times; each time counts as a member.
	Join(ctx context.Context, group, topic string) (Member, error)
	// Own makes the caller the owner of a partition of the events topic: every earlier owner is
	// shut out, and what it left uncommitted is aborted.
	Own(ctx context.Context, partition int32) (Owner, error)

	// DeleteRecords allows the log to drop the records of a partition below an offset.
	DeleteRecords(ctx context.Context, topic string, partition int32, below int64) error
	// Close ends what the log does, and waits for it.
	Close() error
}

// Peeker is implemented by a Log whose Read fetches more at once than somebody needs who wants only
// a few records. Without it, use Read.
type Peeker interface {
	// Peek is Read in small pieces.
	Peek(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation Isolation) (Reader, error)
}

// Stabler is a Log in which an open transaction stops readers of committed records.
type Stabler interface {
	// Stable is up to where a partition can be read committed. Where that is not its end, since is
	// the time of the first record beyond.
	Stable(ctx context.Context, topic string, partition int32) (upto int64, since time.Time, err error)
}

// Terms is a Log that can lose records which were read: by a leader that did not have them, or
// disks that lost them. Later ones get their offsets then.
type Terms interface {
	// Kept says which of the records below offset, the last of which had this term, are still
	// those that were read: the ones below upto, which is offset if none was lost.
	Kept(ctx context.Context, topic string, partition int32, offset int64, term int32) (upto int64, err error)
}

// TermMember is a Member of a log with Terms. Its Committed says ErrTruncated where records below
// the offset were lost.
type TermMember interface {
	// CommitTerm is Commit with the term of the record before the offset.
	CommitTerm(ctx context.Context, partition int32, offset int64, term int32) error
}

// Publisher appends records in order. After its first error it sends nothing more: close it, and
// take a new one.
type Publisher interface {
	Publish(ctx context.Context, records ...Record) error
	Close() error
}

// Reader reads one partition in order.
type Reader interface {
	// Next waits for records, and returns them and the offset at which a later reader would go on.
	// It may return none, when it has passed only transaction markers or aborted records.
	Next(ctx context.Context) (records []Record, next int64, err error)
	Close() error
}

// Member is a membership in a consumer group. The group only assigns partitions; it does not keep
// others from using them. See Owner for that.
type Member interface {
	// Assigned waits until the assigned partitions differ from those that the last call returned,
	// and returns them. Calling it again says that the caller has stopped using partitions that
	// were taken away; a rebalance waits for that, but no longer than two seconds.
	Assigned(ctx context.Context) ([]int32, error)
	// Commit stores an offset for a partition. ErrNotMember: another member may have it.
	Commit(ctx context.Context, partition int32, offset int64) error
	// Committed returns the stored offset, or -1.
	Committed(ctx context.Context, partition int32) (int64, error)
	// Close leaves the group at once.
	Close() error
}

// Owner appends to one partition of the events topic, and is fenced: once there is another Owner of
// the partition, Append and Commit of this one fail with ErrFenced, and nothing of its open
// transaction ever becomes visible. One goroutine uses it. After any error but a *RefusedError the
// Owner is useless: close it, and call Own again.
type Owner interface {
	// Append adds encoded events to the partition, in order, and messages to users' topics and the
	// dead-letter topic, all in the open transaction. types are those of the events. It returns the
	// offset of the first event when the log has everything; it is not visible before Commit.
	Append(ctx context.Context, events [][]byte, types []Type, messages []Record) (first int64, err error)
	// Commit makes everything that was appended since the last Commit visible and durable, as one.
	// After nil it is; after ErrFenced it never will be; after any other error it may be or not.
	Commit(ctx context.Context) error
	// Abort drops what was appended since the last Commit.
	Abort(ctx context.Context) error
	Close() error
}
