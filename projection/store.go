package projection

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrFenced: a later epoch has acquired the partition.
	ErrFenced = errors.New("projection: fenced by a later epoch")
	// ErrStateLost: rows are missing or damaged; the partition must be rebuilt.
	ErrStateLost = errors.New("projection: state lost")
	// ErrInUse: another process holds the store.
	ErrInUse = errors.New("projection: in use by another process")
	// ErrForeign: the store belongs to another application or was written by a newer version.
	ErrForeign = errors.New("projection: store belongs to another application")
	// ErrURL: the URL of a store can't be understood; nothing was opened.
	ErrURL = errors.New("projection: wrong URL")
	// ErrTooLarge: a row exceeds the backend's limit; nothing was written.
	ErrTooLarge = errors.New("projection: row is too large")
	// ErrClosed: the store or partition was closed or released.
	ErrClosed = errors.New("projection: closed")
)

// WatermarkError is returned by Apply when the store is not at the event Batch.Expected. It
// matches ErrWatermark.
type WatermarkError struct{ Have, Want uint64 }

func (e *WatermarkError) Error() string {
	return fmt.Sprintf("projection: store stands at event %d, not at %d", e.Have, e.Want)
}

// Is makes errors.Is(err, ErrWatermark) hold.
func (e *WatermarkError) Is(target error) bool { return target == ErrWatermark }

// ErrWatermark is matched by every WatermarkError.
var ErrWatermark = errors.New("projection: store stands at another event")

// Kind is the kind of a row; those below MinKind belong to the backends.
type Kind byte

// Record kinds are read by key; entry kinds are read in key order as well. A backend may
// keep the two differently; in both a key has at most one row.
const (
	KindInstance     Kind = 0x10 // record: instance id -> state
	KindPlan         Kind = 0x11 // entry: plan hash -> plan
	KindPartition    Kind = 0x12 // entry: name -> position, forward cursor
	KindSource       Kind = 0x13 // entry: source -> watermark
	KindAckDue       Kind = 0x14 // entry: partition -> mark
	KindBlock        Kind = 0x15 // entry: number of a block of events -> filter of the ids that they name
	KindSubscription Kind = 0x20 // entry: correlation key, number of SubscriptionAdded -> subscription
	KindKept         Kind = 0x21 // entry: correlation key, message number -> kept message
	KindMatched      Kind = 0x22 // entry: message number -> matched message not yet acknowledged
	KindDue          Kind = 0x30 // entry: due, what -> empty
	KindRun          Kind = 0x31 // entry: instance, path, activation -> empty: a handler runs
	KindList         Kind = 0x40 // entry: status, definition, created, instance -> empty
	KindListAll      Kind = 0x41 // entry: created, instance -> empty
	KindCount        Kind = 0x50 // entry: counter -> decimal number; kept by the store from Batch.Add
)

// Row is one row of a partition.
type Row struct {
	Kind  Kind
	Key   []byte
	Value []byte
}

// Watermark says up to which event of which log a partition of a store is folded.
type Watermark struct {
	N      uint64 // last event folded; 0 = none
	Epoch  uint64 // of the owner that acquired the partition last
	Offset int64  // hint: offset of event N+1 or before it in the log of LogID
	LogID  string // id of the events topic that Offset belongs to
	Sum    uint64 // checksum of event N
}

// Delta adds N to a counter, a row of KindCount. A counter that comes to 0 has no row.
type Delta struct {
	Key []byte
	N   int64
}

// Batch is a change of a partition that is applied as a whole or not at all. Put and Del together
// name each row at most once; see Check.
type Batch struct {
	Expected uint64    // Watermark.N that the store must have
	New      Watermark // New.N >= Expected; New.Epoch must be the acquired epoch
	Put      []Row
	Del      []Row // Value is ignored; deleting what is not there is allowed
	Add      []Delta
}

// Store keeps the partitions of one application. Opening it has connected to the server, if there is
// one, and refused dangerous settings. All methods may be called concurrently.
type Store interface {
	// URL is how the store was opened, without secrets.
	URL() string
	// Acquire opens a partition for its owner, whose epoch it records. ErrFenced: a higher epoch
	// has acquired it before. ErrStateLost: the partition must be emptied with Drop and folded
	// again.
	Acquire(ctx context.Context, partition int32, epoch uint64) (Partition, error)
	// View opens a partition for reading, whoever owns it. ErrInUse: only the process that has it
	// open can read it. A partition that was never acquired reads as empty.
	View(ctx context.Context, partition int32) (View, error)
	// Drop removes all rows of a partition and resets its watermark, but for the epoch. ErrFenced:
	// a higher epoch has acquired it. If the partition is damaged, it is set aside or removed.
	Drop(ctx context.Context, partition int32, epoch uint64) error
	// Partitions lists the partitions of which the store has anything.
	Partitions(ctx context.Context) ([]int32, error)
	Close() error
}

// View reads a partition.
type View interface {
	// Watermark returns how far the partition is folded.
	Watermark(ctx context.Context) (Watermark, error)
	// Get returns the values of rows of one kind, nil for those that do not exist, and the
	// watermark's N, read in the same atomic step.
	Get(ctx context.Context, kind Kind, keys [][]byte) (values [][]byte, at uint64, err error)
	// Scan returns the rows of an entry kind with from <= key < to, in the order of their keys, at
	// most limit of them (0 = 1,000). A nil from or to is no bound. at is as in Get.
	Scan(ctx context.Context, kind Kind, from, to []byte, limit int) (rows []Row, at uint64, err error)
	// Dump calls f with every row, ordered by kind and key: equal states give equal calls on every
	// backend. f must neither keep the slices nor use the partition. If the partition is dropped
	// or released meanwhile, Dump may return ErrClosed.
	Dump(ctx context.Context, f func(Row) error) error
	Close() error
}

// Partition is an acquired partition. One goroutine calls Apply; reads may be concurrent.
type Partition interface {
	View
	// Apply makes the changes of a batch, if the partition is at Batch.Expected and its epoch is
	// still the one that was acquired; see point 2 of the package's contract. ErrFenced,
	// *WatermarkError, ErrTooLarge, ErrStateLost.
	Apply(ctx context.Context, b Batch) error
	// Flush makes what was applied survive a crash of this process as far as the backend can.
	Flush(ctx context.Context) error
}
