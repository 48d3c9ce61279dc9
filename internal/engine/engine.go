// Package engine runs instances: it drives the pure machine with a log, a store and user code.
//
// Each partition has one owner, a step function that alone changes the partition's state. The
// order of what it does is the order of its phases (owner.go, owner_recover.go, owner_turn.go):
//
//  0. proof: still a member of the group
//  1. fence: the partition's producer; an earlier owner's appends and commits fail from here on
//  2. barrier: what came before is final; PartitionOwned gives the epoch
//  3. recover: the store's rows, and the events after its watermark
//  4. consume: requests, from the position that the events name
//  5. loop: decide in memory, commit events and messages as one transaction, fold, and only then
//     start handlers, arm timers and answer callers
//  6. forward: what the committed events tell other partitions, to their requests
//  7. project: changed rows and the watermark, as one atomic unit, behind the loop
//
// A runner drives an owner with a goroutine; a relay brings the messages of a listener's topic
// to the owners of their keys; the pool runs user code. Tests drive all of them with one
// goroutine and a seed.
package engine

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Config is what an engine is made of. Log and Store are opened and closed by the caller.
type Config struct {
	Log     eventlog.Log
	Store   projection.Store
	Logger  *slog.Logger // nil: slog.Default()
	Worker  string       // name of this worker in PartitionOwned; "" = host and process id
	Address string       // URL where this worker can be asked, see Peers; may be ""

	PeerClient *http.Client // asks other workers; nil: a plain one

	Slots           int           // handlers at once; 0 = 256
	TriggerInterval time.Duration // rescan of the due index; 0 = 60 s
	MaxPerTrigger   int           // due entries a turn; 0 = 1,000
	ProjectInterval time.Duration // how long changes may wait before they are written to the store; 0 = 200 ms
	CacheBytes      int64         // instances in memory for all partitions; 0 = 64 MiB
	ShutdownTimeout time.Duration // how long running handlers may go on at shutdown; 0 = 25 s

	Observer Observer // of what happens, for metrics

	Snapshots      Snapshots     // zero: none are taken or used
	VerifyInterval time.Duration // of a walk that compares all instances with the log; 0 = none

	// UpdatesTopic gets the whole instance after each of its events; "" = nothing is told.
	UpdatesTopic string

	Rules machine.Rules    // zero in production
	Now   func() time.Time // the clock; nil: time.Now
}

// Answer is what a call was told.
type Answer struct {
	Answer string // machine.OK or one of the other answers; "" = durable in the requests topic, not decided yet
	Run    uint64 // of the instance after the call
}

// Filter chooses instances of List and Count. Empty fields choose all.
type Filter struct {
	Definition string
	Status     string // a machine.Status or "QUARANTINED"
	IDPrefix   string
	Limit      int    // 0 = 100, at most 1,000
	Cursor     string // of the page before; "" = the first
	// AtLeast waits until the store has folded these event numbers, by partition.
	AtLeast map[int32]uint64
}

// Page is a page of List, oldest instances first within a partition.
type Page struct {
	Instances []*machine.Instance
	Cursor    string           // "" = the last page
	AsOf      map[int32]uint64 // event number up to which each partition was folded
}
