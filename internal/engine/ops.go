package engine

import (
	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// An op is the one thing that an owner waits for. Its driver does it and gives the result to
// the next step.
type (
	opProve  struct{} // commit an offset: still a member of the group?
	opOwn    struct{} // fence the partition
	opAppend struct { // to the open transaction
		events   [][]byte
		types    []eventlog.Type
		messages []eventlog.Record
	}
	opCommit  struct{}
	opAbort   struct{}
	opLast    struct{ before int64 } // the last event below the offset -> result.n (0 = none), result.time
	opAcquire struct{ epoch uint64 } // -> result.watermark
	opDrop    struct{ epoch uint64 }
	opBase    struct{} // read the partition's own rows -> result.base, result.at
	// opTail reads the next events from event number from on (hint: an offset near it), up
	// to the offset until -> result.tail, result.done. Where the log still has them it begins with
	// the events from number early on; 0 = from.
	opTail struct {
		from  uint64
		early uint64
		hint  int64
		until int64
	}
	opApply struct{ batch *projection.Batch }
	// opIndex reads what is due up to then -> result.dues; and at recovery what user code
	// ran -> result.works, result.adopted, result.results; else, now and then, rows of the blocks'
	// index of which the log has nothing any more -> result.dropped
	opIndex struct {
		due      int64
		recovery bool
	}
	opRead struct { // -> result.instances, result.keys, result.at
		ids  []string
		keys []eventlog.KeyRef

		asksID  map[string]bool          // what is in ids
		asksKey map[eventlog.KeyRef]bool // and in keys
	}
	// opConsume begins to read requests -> result.offset (their end now), result.topicID,
	// result.lost
	opConsume struct {
		from    int64
		term    int32  // of the request before it
		topicID string // that the offset belongs to; "" = none yet
	}
	opIdle struct{ until int64 } // wait for input, or for the time; 0 = input only
	// opAwait lets the effects of the turn begin before the next one is decided, and waits a moment
	// for the results of so many handlers that it starts.
	opAwait struct{ started int }
	opFail  struct{ err error } // the owner is finished
)

type op any

// result answers an op.
type result struct {
	err       error
	offset    int64 // opAppend: of the first event; opConsume: end of the requests at the moment
	n         uint64
	time      int64 // opLast: at of the event
	maxEvent  int   // opLast: bytes that fit the events topic
	watermark projection.Watermark
	base      map[projection.Kind][]projection.Row
	at        uint64
	parts     []uint64 // opRead: at of each atomic part but the last
	tail      []tailEvent
	done      bool
	works     []projection.Row
	adopted   []jobKey // opIndex: what the pool still runs of this partition
	results   []unit   // opIndex: what it has finished and nobody has seen in the log
	dues      []projection.Row
	dropped   []projection.Row
	ids       []string // opRead: as asked
	keys      []eventlog.KeyRef
	instances [][]byte
	waiters   [][]projection.Row
	kept      [][]projection.Row
	lost      bool   // opConsume: requests that were consumed are gone, and others in their place
	topicID   string // opConsume: of the requests topic; opAcquire: of the events topic
}

// tailEvent is an event that was read from the log. What the event points to is good until the
// next piece is asked for; the fold keeps nothing of it but strings and raw JSON.
type tailEvent struct {
	event  *eventlog.Event
	offset int64
	value  []byte // as recorded
	sum    uint64 // its checksum, when value is nil
}

// checksum is that of the value: of most events nobody wants to know it.
func (t *tailEvent) checksum() uint64 {
	if t.value != nil {
		t.sum, t.value = eventlog.Checksum(t.value), nil
	}
	return t.sum
}

// jobKey names a run of user code.
type jobKey struct {
	instance string
	run      uint64
	work     machine.Work
}

// job is user code to run.
type job struct {
	key        jobKey
	definition string
	plan       string
	params     []byte
	base       uint64          // seq of the parameters
	scope      string          // path of the item whose parameters these are
	items      []machine.Items // of a ForEach whose items have ended; to compute keys: all
	collect    bool            // the items of a ForEach have ended
	message    *eventlog.Message
	due        int64           // when the attempt times out; 0 = never
	trace      *eventlog.Trace // of the instance's start
}

// told is a request for another partition's inbox.
type told struct {
	n       uint64 // event that tells it
	to      int32
	request eventlog.Request
}

// reply answers somebody outside: a call, a read or a wait. token is the asker's.
type reply struct {
	token    any
	answer   Answer
	instance *machine.Instance
	err      error
}

// effects are what follows from a committed turn. They start only after the commit is known
// to have succeeded; protocol rule 6.
type effects struct {
	start   []job
	cancel  []jobKey
	settled []jobKey // their results are in the log, or not wanted
	forward []told
	replies []reply
	mended  []machine.Due // overdue entries that only the rescan found
	replace []replacement
	apply   *projection.Batch
	events  []observed
	late    []int64 // ms after their time at which timers fired
	letters int     // dead letters
}

// observed is an event as an Observer is told.
type observed struct {
	typ        eventlog.Type
	definition string
}

// replacement is the result that the pool offers from now on instead of the one it has.
type replacement struct {
	key    jobKey
	result eventlog.Request
}
