package engine

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/scheduler"
)

// ownerRules are switches of the owner's protocol rules, for tests; see machine.Rules.
type ownerRules struct {
	recoverFirst   bool // 4: recover before fence
	unknownIsAbort bool // 4: an unknown commit outcome is taken for an abort
	effectsEarly   bool // 6: effects start before the commit
	foldedForward  bool // 7: at take-over only what the store has not folded is forwarded
	marksFromStore bool // 16: source watermarks as the store has them
	staleReads     bool // 26: reads are not compared with the watermark
	evictDirty     bool // 26: instances that are not projected yet may be evicted
	interruptEarly bool // 10: interruptions are recorded before the inbox is consumed
	projectFrozen  bool // 12: a partition with a frozen instance is projected
}

type phase int

const (
	proving phase = iota
	fencing
	barrierAppend
	barrierCommit
	numbering
	ownAppend
	ownCommit
	acquiring
	dropping
	basing
	recovering // asked for a piece of the log's tail
	fetching   // asked for what that piece touches
	flushing   // asked the store to take what was recovered so far
	indexing
	orphaning // asked for the instances whose handlers ran
	consuming
	ready    // between turns
	scanning // asked for the due index again
	loading  // in a turn, asked for entities that are not in memory
	appending
	committing
	aborting
	failed
)

// ownerConfig is what an owner is told once.
type ownerConfig struct {
	app        string
	partition  int32
	partitions int32
	worker     string
	address    string
	registry   machine.Registry
	rules      ownerRules
	machine    machine.Rules
	inject     func(*eventlog.Event)
	maxEvent   int
	maxMessage func(topic string) int
	horizon    int64 // ms of the due index that are kept in memory
	rescan     int64 // ms between two reads of it
	cacheSize  int64 // bytes
	maxTurn    int   // units in a turn
	maxTimers  int   // timers in a turn
	observed   bool  // events are told
	gatherRows int   // changed rows after which a recovery writes to the store; 0 = gatherRows
	folding    bool  // a folder's: the store may stand behind its epoch

	updatesTopic string // "" = none are made
}

// owner is the step function of one partition: step takes the result of what it asked for
// last and says what it needs next. It has no goroutine, channel or clock. Its phases are in
// the order of protocol rule 4: proof, fence, barrier, recover, consume, loop; any error
// sends it back to the proof with nothing in memory but what callers and the pool wait for.
type owner struct {
	ownerConfig
	phase phase
	now   int64

	epoch    uint64
	barrier  int64 // offset up to which the tail is folded
	owned    *eventlog.Event
	logID    string
	st       *machine.State
	cache    cache
	mark     projection.Watermark // last acknowledged by the store
	flight   *projection.Batch    // given to the store, not acknowledged
	cuts     []*projection.Batch  // to be given to it after that, in order
	cutBytes int64                // of cuts
	// projectDue is set by the driver when the store should be brought up to date.
	projectDue bool
	// leaving is set by the driver when the partition is to be handed over: what has been done is
	// recorded, and nothing new is begun.
	leaving  bool
	looked   bool // the due index was just read
	storeErr error
	lost     bool                // the store said so while at work; it is dropped once it is acquired again
	readable [2]uint64           // watermarks at which the read under way may be answered
	reading  []*projection.Batch // not acknowledged when it was asked for: it may lack what is in there
	last     tailEvent           // where the folded log ends; without the event
	block    block               // of the events at hand

	chunk     []tailEvent // of the tail, not folded yet
	chunkLast bool
	touched   []string // memory of the ids that an event touches
	from      uint64   // event with which the next piece begins
	met       *met     // of a recovery that began with an empty store

	storedMarks map[eventlog.Source]eventlog.Mark // see ownerRules.marksFromStore

	inbox    []unit
	inboxed  int // bytes of inbox
	results  []unit
	calls    []unit
	orphans  []unit
	timers   *scheduler.Scheduler[machine.Due]
	waiters  map[string][]any
	running  map[string][]jobKey
	outbox   []told // not acknowledged by their targets
	inboxEnd int64  // of the requests when they were first consumed
	ackSince int64
	poisoned map[string]string // instance whose decision panicked -> reason
	poison   map[int64]string  // offset of a request that panicked without an instance -> reason

	turn     *machine.Turn
	turnFrom int64 // cache.changed.bytes when it began
	abortErr error
	queue    []unit
	local    *unit // a request of the turn to its own partition
	done     []unit
	offset   int64 // next request after the turn
	term     int32 // of the request before it
	// requestsID is the topic that offset belongs to; the state has it once an event says so.
	requestsID string
	replies    []reply
	mended     []machine.Due
	late       []int64
	effects    effects
	updates    updates
}

// unit is one thing that a turn does.
type unit struct {
	request eventlog.Request
	offset  int64            // in the requests topic; -1 = it came another way
	term    int32            // of its record
	bad     *eventlog.Record // a request that can't be decoded
	reason  string           // why
	size    int              // bytes of a request that came by the log
	token   any              // who is answered
	read    bool             // only reads the instance
	wait    bool             // reads it when its run has ended
	result  *jobKey          // a result of the pool
	events  int              // of the turn, before it
	found   bool             // by the rescan
}

var (
	errRefused    = errors.New("engine: a message was refused; the batch is decided again without it")
	errStoreMoved = errors.New("engine: the store does not stand where this owner left it")
	errPoison     = errors.New("engine: a decision panicked; the batch is decided again without it")
	// ErrForeignStore: the store has folded another log.
	ErrForeignStore = errors.New("engine: the store belongs to another log")
)

func newOwner(c ownerConfig) *owner {
	if c.gatherRows == 0 {
		c.gatherRows = gatherRows
	}
	if c.maxTimers == 0 {
		c.maxTimers = c.maxTurn
	}
	o := &owner{ownerConfig: c, waiters: map[string][]any{}, poisoned: map[string]string{}, poison: map[int64]string{}}
	o.timers = o.newTimers()
	return o
}

// restart begins again at the proof. What is in memory of the partition's state is dropped;
// callers and results of the pool are kept. Who waits for the end of a run asks again: it may
// have ended in what is folded meanwhile.
func (o *owner) restart() op {
	o.calls = append(o.undecided(), o.calls...)
	o.askAgain()
	o.st, o.turn, o.flight, o.queue, o.local, o.done, o.chunk = nil, nil, nil, nil, nil, nil, nil
	o.cuts, o.cutBytes = nil, 0
	o.inboxed = 0
	o.inbox, o.results, o.orphans, o.outbox, o.replies, o.mended = nil, nil, nil, nil, nil, nil
	o.timers, o.running, o.ackSince, o.storeErr = o.newTimers(), nil, 0, nil
	o.effects = effects{replace: o.effects.replace}
	o.phase = proving
	return opProve{}
}

func (o *owner) askAgain() {
	if len(o.waiters) == 0 {
		return
	}
	known := map[any]bool{}
	for _, u := range o.calls {
		known[u.token] = true
	}
	for _, id := range slices.Sorted(maps.Keys(o.waiters)) {
		for _, token := range o.waiters[id] {
			if !known[token] {
				o.calls = append(o.calls, unit{offset: -1, request: eventlog.Request{ID: id}, token: token, read: true, wait: true})
			}
		}
	}
	o.waiters = map[string][]any{}
}

// undecided are the calls and reads of a turn that was not committed.
func (o *owner) undecided() []unit {
	var l []unit
	for _, u := range append(o.done, o.queue...) {
		if u.token != nil {
			l = append(l, u)
		}
	}
	return l
}

// step goes on with the result of the op that was returned last.
func (o *owner) step(now int64, r result) op {
	o.now = now
	if r.err != nil {
		return o.failedOp(r.err)
	}
	switch o.phase {
	case proving:
		if o.rules.recoverFirst {
			o.phase = numbering
			return opLast{before: math.MaxInt64}
		}
		o.phase = fencing
		return opOwn{}
	case fencing:
		if o.rules.recoverFirst {
			return o.own(o.st.N+1, o.st.At)
		}
		o.phase = barrierAppend
		return opAppend{events: [][]byte{eventlog.Barrier}, types: []eventlog.Type{eventlog.BarrierType}}
	case barrierAppend:
		o.barrier, o.phase = r.offset, barrierCommit
		return opCommit{}
	case barrierCommit:
		o.phase = numbering
		return opLast{before: o.barrier}
	case numbering:
		if o.rules.recoverFirst {
			o.epoch, o.barrier, o.phase = r.n+1, math.MaxInt64, acquiring
			return opAcquire{epoch: o.epoch}
		}
		// protocol rule 1: the epoch is the number of PartitionOwned. What stands before the
		// barrier can't grow any more, so the number after it is free.
		o.epoch = r.n + 1
		return o.own(o.epoch, r.time)
	case ownAppend:
		o.barrier, o.phase = r.offset, ownCommit
		return opCommit{}
	case ownCommit:
		if o.rules.recoverFirst {
			return o.ownedLate()
		}
		o.phase = acquiring
		return opAcquire{epoch: o.epoch}
	case dropping:
		o.phase = acquiring
		return opAcquire{epoch: o.epoch}
	case acquiring:
		return o.acquired(r)
	case basing:
		return o.based(r)
	case recovering:
		return o.took(r)
	case fetching:
		return o.fetched(r)
	case flushing:
		o.applied(nil)
		return o.recover()
	case indexing:
		return o.indexed(r)
	case orphaning:
		return o.orphaned(r)
	case consuming:
		o.inboxEnd = r.offset
		if r.lost {
			clear(o.poison) // other requests have these offsets now
		}
		o.requestsID = r.topicID
		if o.rules.recoverFirst {
			o.phase = fencing
			return opOwn{}
		}
		o.phase = ready
		return o.loop()
	case ready:
		return o.loop()
	case scanning:
		o.scanned(r)
		return o.loop()
	case loading:
		return o.loaded(r)
	case appending:
		o.last.offset = r.offset + int64(len(o.turn.Events)) - 1
		o.phase = committing
		return opCommit{}
	case committing:
		return o.committed()
	case aborting:
		return o.fail(o.abortErr)
	}
	return opFail{errors.New("engine: step after the owner failed")}
}

// own appends the event of the take-over.
func (o *owner) own(n uint64, after int64) op {
	e := &eventlog.Event{V: 1, N: n, Type: eventlog.PartitionOwned, At: max(o.now, after), Worker: o.worker, Address: o.address}
	o.phase, o.owned = ownAppend, e
	return opAppend{events: [][]byte{eventlog.AppendEvent(nil, e)}, types: []eventlog.Type{e.Type}}
}

// ownedLate goes on after a fence that came behind the recovery, where protocol rule 4 is
// left out: what others committed in between is missed.
func (o *owner) ownedLate() op {
	if err := o.st.Evolve(o.owned); err != nil {
		return o.fail(err)
	}
	o.last = tailEvent{offset: o.barrier, value: eventlog.AppendEvent(nil, o.owned)}
	o.block.note(o.owned)
	o.phase = ready
	return o.loop()
}

// failedOp decides what an error means. Protocol rule 4: an unknown outcome drops
// everything, and so does every error that has no better answer.
func (o *owner) failedOp(err error) op {
	var refused *eventlog.RefusedError
	switch {
	case o.phase == appending && errors.As(err, &refused):
		o.abortErr = err // to be tried again, slowly: nothing is lost meanwhile
		if o.refusedUpdate(refused) || o.refusedMessage(refused) {
			o.abortErr = fmt.Errorf("%w: %w", errRefused, refused)
		}
		o.phase = aborting
		return opAbort{}
	case o.phase == aborting:
		return o.fail(o.abortErr)
	case errors.Is(err, projection.ErrStateLost) && o.phase >= ready:
		o.lost = true // what was under way is asked again, see restart
	case errors.Is(err, projection.ErrStateLost) && o.phase >= acquiring && o.phase != dropping:
		return o.drop() // this partition is rebuilt while the others work on
	case o.phase == committing && o.rules.unknownIsAbort && !errors.Is(err, eventlog.ErrFenced):
		o.phase = ready
		return o.loop()
	}
	return o.fail(err)
}

func (o *owner) drop() op {
	o.phase, o.lost = dropping, false
	return opDrop{epoch: o.epoch}
}

func (o *owner) fail(err error) op {
	o.phase = failed
	return opFail{err}
}

// refusedMessage makes failed attempts of the tasks whose messages the log refuses; protocol
// rule 9. The pool offers those results instead of the handlers' from now on. What is refused
// for its topic is refused for every message to that topic. false: nothing could be done.
func (o *owner) refusedMessage(refused *eventlog.RefusedError) (replaced bool) {
	for k, s := range o.turn.Sendings {
		same := s.Record.Topic == o.turn.Sendings[refused.Index].Record.Topic && !errors.Is(refused, eventlog.ErrTooLarge)
		if s.Path == "" || k != refused.Index && !same {
			continue
		}
		id := o.turn.Events[s.Event].ID
		for _, u := range o.done {
			if u.result == nil || u.request.Record == nil || u.request.ID != id || u.request.Path != s.Path {
				continue
			}
			r := u.request
			r.OK, r.Record, r.Params, r.HasKeys = false, nil, nil, false
			r.Error = fmt.Sprintf("send message to %s: %v", s.Record.Topic, refused.Err)
			o.effects.replace = append(o.effects.replace, replacement{*u.result, r})
			replaced = true
		}
	}
	return replaced
}

// takeEffects hands over what follows from the turns that were committed.
func (o *owner) takeEffects() effects {
	e := o.effects
	o.effects = effects{}
	return e
}
