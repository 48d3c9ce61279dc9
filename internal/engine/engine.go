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
