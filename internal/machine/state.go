package machine

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// Status of an instance or a task.
type Status string

const (
	NotStarted Status = "NOT_STARTED"
	Submitted  Status = "SUBMITTED"
	Executing  Status = "EXECUTING"
	Completed  Status = "COMPLETED"
	Failure    Status = "FAILURE"
	Skipped    Status = "SKIPPED"
	Stopped    Status = "STOPPED"
)

// Phase is what an executing task does.
type Phase string

const (
	Waiting  Phase = "waiting"  // for a message
	Running  Phase = "running"  // its handler
	Retrying Phase = "retrying" // for the time of its next attempt
	Inside   Phase = "inside"   // a node of its own: a Parallel, a Decide that has chosen, a process with a deadline
)

// Task is a task that was started.
type Task struct {
	Path        string            `json:"path"`
	Kind        eventlog.Kind     `json:"kind"`
	Status      Status            `json:"status"`
	Phase       Phase             `json:"phase,omitempty"`
	Act         uint64            `json:"act"`
	Attempt     int               `json:"attempt,omitempty"`
	Since       int64             `json:"since"`                 // of the status or phase
	Due         int64             `json:"due,omitempty"`         // of the time-out or of the next attempt
	Tick        int64             `json:"tick,omitempty"`        // of an Every that waits: its next run, if its end is later
	Ran         bool              `json:"ran,omitempty"`         // this start of the handler has run a second
	Cuts        int               `json:"cuts,omitempty"`        // interruptions that count
	Interrupted int               `json:"interrupted,omitempty"` // all interruptions
	Choice      string            `json:"choice,omitempty"`      // of a Decide
	Choices     []string          `json:"choices,omitempty"`     // of a Dynamic
	Items       int               `json:"items,omitempty"`       // of a ForEach: how many
	Collect     bool              `json:"collect,omitempty"`     // of a ForEach: its runs have ended
	Over        bool              `json:"over,omitempty"`        // the flow has gone on behind it: the listener works again
	Error       string            `json:"error,omitempty"`       // of the last attempt
	Msg         uint64            `json:"msg,omitempty"`         // message that the listener works on
	Message     *eventlog.Message `json:"message,omitempty"`
}

// Subscription of an instance to a correlation key.
type Subscription struct {
	eventlog.KeyRef
	Act uint64 `json:"act"`
}

// Buffered is a message kept in the instance.
type Buffered struct {
	eventlog.KeyRef
	Seq     uint64            `json:"seq"` // of its MessageBuffered
	Msg     uint64            `json:"msg"`
	Message *eventlog.Message `json:"message"`
	Expires int64             `json:"expires"`
	Sole    bool              `json:"sole,omitempty"`
}

// Answer is a remembered call.
type Answer struct {
	Request string `json:"request"`
	Made    int64  `json:"made,omitempty"`
	At      int64  `json:"at"`
	Answer  string `json:"answer,omitempty"` // of a refused call
}

// Mailbox is the part of an instance that is folded apart from the rest: it survives
// quarantine and overrides the state in an InstanceReset.
type Mailbox struct {
	Run     uint64             `json:"run,omitempty"`
	Subs    []Subscription     `json:"subs,omitempty"`    // by key
	Buffer  []Buffered         `json:"buffer,omitempty"`  // by Msg
	Applied []Answer           `json:"applied,omitempty"` // oldest first
	Refused []Answer           `json:"refused,omitempty"` // oldest first
	Floor   int64              `json:"floor,omitempty"`   // greatest Made that was forgotten
	Held    []eventlog.Request `json:"held,omitempty"`    // while in quarantine
	Stops   []KeptStop         `json:"stops,omitempty"`   // oldest first
}

// Body is what user code and operators see of an instance.
type Body struct {
	Definition string             `json:"definition,omitempty"`
	Plan       string             `json:"plan,omitempty"`
	Status     Status             `json:"status,omitempty"`
	Params     json.RawMessage    `json:"params,omitempty"`
	ParamsSeq  uint64             `json:"paramsSeq,omitempty"` // event that changed Params last
	Keys       []eventlog.TaskKey `json:"keys,omitempty"`      // by path
	Items      []Items            `json:"items,omitempty"`     // of each ForEach that runs
	ItemsSeq   uint64             `json:"itemsSeq,omitempty"`  // event that changed parameters of an item last
	Evaluate   uint64             `json:"evaluate,omitempty"`  // seq of the event since which the keys must be computed; 0 = known
	Jumps      []Jump             `json:"jumps,omitempty"`     // by path
	Tasks      []Task             `json:"tasks,omitempty"`     // in the order of their first start
	Created    int64              `json:"created,omitempty"`
	Updated    int64              `json:"updated,omitempty"`
	Ended      int64              `json:"ended,omitempty"`
	Error      string             `json:"error,omitempty"`
	FailedPath string             `json:"failedPath,omitempty"`
	Reason     string             `json:"reason,omitempty"`    // of a stop
	Stopping   bool               `json:"stopping,omitempty"`  // on-stop handlers run
	FlowEnded  bool               `json:"flowEnded,omitempty"` // only listeners that work again are left
	DeleteAt   int64              `json:"deleteAt,omitempty"`  // when the ended instance is deleted; 0 = by a call
	Trace      *eventlog.Trace    `json:"trace,omitempty"`     // that its start came with
}

// Jump counts how often the flow of an instance went elsewhere when a node had failed.
type Jump struct {
	Path  string `json:"path"` // of the node
	Count int    `json:"count"`
}

// Instance is the state of an instance id. Run 0 means that it never ran and only answers
// are remembered.
type Instance struct {
	ID  string `json:"id"`
	N   uint64 `json:"n"` // last event folded
	Seq uint64 `json:"seq,omitempty"`
	Mailbox
	Body
	Quarantined string `json:"quarantined,omitempty"` // the reason

	handed *eventlog.Message // from the buffer to the listener, within the fold of one event
	noted  *noting           // State.noting of the state that has it among its changed rows
}

// Terminal says that the current run has ended.
func (i *Instance) Terminal() bool {
	return i.Status == Completed || i.Status == Failure || i.Status == Stopped
}

// active says that the instance runs and may be decided on.
func (i *Instance) active() bool {
	return i != nil && i.Run > 0 && !i.Terminal() && i.Quarantined == ""
}

// Task returns the state of a started task, or nil.
func (i *Instance) Task(path string) *Task {
	for k := range i.Tasks {
		if i.Tasks[k].Path == path {
			return &i.Tasks[k]
		}
	}
	return nil
}

// KeyValue is the value of a listener's key; "" when there is none.
func (i *Instance) KeyValue(path string) string {
	at, found := slices.BinarySearchFunc(i.Keys, i.keyPath(path), func(k eventlog.TaskKey, path string) int { return strings.Compare(k.Path, path) })
	if !found {
		return ""
	}
	return i.Keys[at].Value
}

func (i *Instance) subscription(k eventlog.KeyRef) uint64 {
	for _, s := range i.Subs {
		if s.KeyRef == k {
			return s.Act
		}
	}
	return 0
}

func (i *Instance) buffered(k eventlog.KeyRef) (n int) {
	for _, b := range i.Buffer {
		if b.KeyRef == k {
			n++
		}
	}
	return n
}

// Waiter is a subscription at its correlation key.
type Waiter struct {
	N     uint64 `json:"n"` // of SubscriptionAdded: the order of waiters
	ID    string `json:"id"`
	Run   uint64 `json:"run"`
	Act   uint64 `json:"act"`
	One   bool   `json:"one,omitempty"`   // a message that it takes goes to nobody else
	Given int    `json:"given,omitempty"` // messages that it was given alone
}

// Kept is a message that nobody took yet.
type Kept struct {
	Msg     uint64            `json:"msg"`
	Message *eventlog.Message `json:"message"`
	Expires int64             `json:"expires"`
}

// KeyState is what a correlation key's owner knows of one key.
type KeyState struct {
	Waiters []Waiter // by N
	Kept    []Kept   // by Msg
}

// Waiter is the waiter with the number, or nil.
func (k *KeyState) Waiter(n uint64) *Waiter {
	if k == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(k.Waiters, n, func(w Waiter, n uint64) int { return cmp.Compare(w.N, n) })
	if !ok {
		return nil
	}
	return &k.Waiters[i]
}

// Message is the kept message with the number, or nil.
func (k *KeyState) Message(msg uint64) *Kept {
	if k == nil {
		return nil
	}
	for i := range k.Kept {
		if k.Kept[i].Msg == msg {
			return &k.Kept[i]
		}
	}
	return nil
}

// Matched is a message given to waiters and not yet acknowledged by all of them.
type Matched struct {
	Msg     uint64            `json:"msg"`
	Key     eventlog.KeyRef   `json:"key"`
	Message *eventlog.Message `json:"message"`
	Expires int64             `json:"expires"`
	Chosen  int               `json:"chosen"`          // waiters so far
	Back    int               `json:"back,omitempty"`  // of these, returned
	Local   int               `json:"local,omitempty"` // local deliveries not yet decided
	Waits   []Wait            `json:"waits,omitempty"` // by partition
	After   uint64            `json:"after,omitempty"` // fan-out: last waiter served
	Until   uint64            `json:"until,omitempty"` // fan-out: last waiter to serve; 0 = finished
}

// Wait is the last delivery to a partition that has not been acknowledged.
type Wait struct {
	Partition int32         `json:"partition"`
	Mark      eventlog.Mark `json:"mark"`
}

// Row names a stored row that an event changed.
type Row struct {
	Kind      RowKind
	ID        string          // instance, plan
	Key       eventlog.KeyRef // waiter, kept message
	N         uint64          // waiter, kept and matched message
	Expires   int64           // kept message
	Source    eventlog.Source
	Partition int32 // ack due
}

// RowKind is a kind of stored row.
type RowKind byte

const (
	RowInstance RowKind = iota + 1
	RowPlan
	RowPosition
	RowSource
	RowAckDue
	RowWaiter
	RowKept
	RowMatched
)

// State is what an owner holds of its partition. The partition's own part is complete;
// Instances and Keys are caches of whole entities: a request or event may only be decided
// or folded when what Needs or Touches names is there (a nil entry says that it is known
// not to exist).
type State struct {
	Partition  int32
	Partitions int32
	Rules      Rules

	N          uint64
	At         int64
	Epoch      uint64
	RequestsID string // topic id that Offset belongs to
	Offset     int64  // next request
	Term       int32  // of the request before it
	Forwarded  uint64 // every event up to here has reached its targets
	Plans      map[string]*Plan
	Sources    map[eventlog.Source]eventlog.Mark
	AckDue     map[int32]eventlog.Mark
	Matched    map[uint64]*Matched

	// Derived from Matched: fan-outs that are not finished, and for each partition the
	// deliveries that it has not acknowledged, in order.
	fans    map[uint64]*Matched
	unacked map[int32][]delivery

	Instances map[string]*Instance
	Keys      map[eventlog.KeyRef]*KeyState

	// Changed collects the rows that events changed since it was last emptied, which
	// TakeChanged and ForgetChanged alone do.
	Changed map[Row]struct{}
	// BeforeChange, if set, is called with an instance as it was before the first change
	// since Changed was emptied.
	BeforeChange func(*Instance)
	// Frozen has the instances whose fold panicked, with the reason, until their
	// InstanceQuarantined is in the log. Protocol rule 12.
	Frozen map[string]string
	// Inject is called before the instance's part of an event is folded; tests panic in it.
	Inject func(*eventlog.Event)

	// noting is another one each time Changed is emptied: an instance that bears it is in there,
	// and so is the position when moved is it. Rows are slow to look up.
	noting *noting
	moved  *noting

	before undo // memory of the fold of one event
}

// noting is known by its address.
type noting struct{ _ byte }

// delivery of a message to a partition.
type delivery struct {
	mark eventlog.Mark
	msg  uint64
}

// Restore puts the matched messages that a store had into an empty state.
func (s *State) Restore(matched []*Matched) {
	for _, m := range matched {
		s.Matched[m.Msg] = m
		if m.Until > 0 {
			s.fans[m.Msg] = m
		}
		for _, w := range m.Waits {
			s.unacked[w.Partition] = append(s.unacked[w.Partition], delivery{w.Mark, m.Msg})
		}
	}
	for _, l := range s.unacked {
		slices.SortFunc(l, func(a, b delivery) int { return a.mark.Compare(b.mark) })
	}
}

// FanOut is the oldest fan-out that is not finished.
func (s *State) FanOut() (msg uint64, ok bool) {
	for n := range s.fans {
		if !ok || n < msg {
			msg, ok = n, true
		}
	}
	return msg, ok
}

// NewState is the empty state of a partition.
func NewState(partition, partitions int32) *State {
	return &State{
		Partition: partition, Partitions: partitions,
		Plans: map[string]*Plan{}, Sources: map[eventlog.Source]eventlog.Mark{},
		AckDue: map[int32]eventlog.Mark{}, Matched: map[uint64]*Matched{},
		fans: map[uint64]*Matched{}, unacked: map[int32][]delivery{},
		Instances: map[string]*Instance{}, Keys: map[eventlog.KeyRef]*KeyState{},
		Changed: map[Row]struct{}{}, Frozen: map[string]string{}, noting: new(noting),
	}
}

// TakeChanged gives the caller what is in Changed, which begins anew.
func (s *State) TakeChanged() map[Row]struct{} {
	taken := s.Changed
	s.Changed, s.noting = make(map[Row]struct{}, len(taken)), new(noting)
	return taken
}

// ForgetChanged empties Changed.
func (s *State) ForgetChanged() {
	clear(s.Changed)
	s.noting = new(noting)
}

func (s *State) changed(r Row) { s.Changed[r] = struct{}{} }

// changes notes that the instance is about to change.
func (s *State) changes(i *Instance) {
	if i.noted == s.noting {
		return
	}
	i.noted = s.noting
	r := Row{Kind: RowInstance, ID: i.ID}
	if s.BeforeChange != nil {
		if _, already := s.Changed[r]; !already {
			s.BeforeChange(i)
		}
	}
	s.Changed[r] = struct{}{}
}

// IsChanged says that the instance is in Changed; nil is not.
func (s *State) IsChanged(i *Instance) bool { return i != nil && i.noted == s.noting }

func (s *State) local(value string) bool {
	return eventlog.PartitionOf(value, s.Partitions) == s.Partition
}

// AddPlan keeps a plan as it was recorded under its hash.
func (s *State) AddPlan(hash string, recorded json.RawMessage) error {
	p, err := DecodePlan(recorded)
	if err != nil {
		return err
	}
	p.hash, p.recorded = hash, recorded
	s.Plans[hash] = p
	return nil
}

// Clone is a copy that shares nothing which changes.
func (i *Instance) Clone() *Instance {
	c := *i
	c.Subs, c.Buffer = slices.Clone(i.Subs), slices.Clone(i.Buffer)
	c.Applied, c.Refused, c.Held = slices.Clone(i.Applied), slices.Clone(i.Refused), slices.Clone(i.Held)
	c.Stops = slices.Clone(i.Stops)
	c.Keys, c.Tasks = slices.Clone(i.Keys), slices.Clone(i.Tasks)
	return &c
}
