package machine

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// Requests that only the owner itself makes; they never stand in a topic.
const (
	Timer        eventlog.RequestType = "Timer"        // a due entry of a task: ID, Run, Path, Act, Attempt, Expires = due
	Interrupted  eventlog.RequestType = "Interrupted"  // a handler was found running after a take-over
	HasRun       eventlog.RequestType = "HasRun"       // a handler has run for a second
	Quarantine   eventlog.RequestType = "Quarantine"   // ID, Reason
	FanOut       eventlog.RequestType = "FanOut"       // Msg: the next page
	ExpireKept   eventlog.RequestType = "ExpireKept"   // Topic, Key, Value, Msg
	ExpireBuffer eventlog.RequestType = "ExpireBuffer" // ID, Act: seq of its MessageBuffered
	Forget       eventlog.RequestType = "Forget"       // ID: answers past their time
	ExpireStop   eventlog.RequestType = "ExpireStop"   // ID, Msg: number of its StopKept
	Outlived     eventlog.RequestType = "Outlived"     // ID, Run, Expires: an ended instance past its time
)

// Answers of calls and results.
const (
	OK              = "ok"
	Exists          = "exists"     // Start: the id has run already
	Terminal        = "terminal"   // the instance has ended
	NotFailed       = "not failed" // Retry of an instance that did not fail
	NotEnded        = "not ended"  // Delete of an instance that runs
	NotFound        = "not found"
	Expired         = "expired" // too old to know whether it was applied; not applied now
	Ahead           = "ahead"   // made more than a minute in the future
	InQuarantine    = "quarantined"
	NotInQuarantine = "not quarantined"
	UnknownPlan     = "unknown definition"
	BadParams       = "parameters are no JSON object"
	BadState        = "state can't be read"
	TooLarge        = "parameters are too large for the log"
	Superseded      = "superseded" // a result that is not wanted any more
	Held            = "held"       // decided when the quarantine ends
	Forwarded       = "forwarded"  // to the partition it belongs to
	Ignored         = "ignored"    // counted before, or not wanted any more
)

const (
	aheadLimit     = 60_000 // ms that a call may be made ahead of the partition's time
	callMemory     = 24 * 3600_000
	fanOutPage     = 256
	bufferLimit    = 100 // messages of one key that an instance keeps
	maxCuts        = 3   // interruptions that count
	maxInterrupted = 12
)

// Registry knows the definitions of this worker.
type Registry interface {
	// Current is the plan that new instances of a definition use, or nil.
	Current(definition string) *Plan
	// Plan is the plan with the hash, or nil.
	Plan(hash string) *Plan
}

// Sending is a record that goes out in the transaction of an event.
type Sending struct {
	Event  int // index in Turn.Events
	Record eventlog.Record
	Path   string // of the Command task; "" for a dead letter
}

// Turn decides a batch of requests on a state. Every event that it emits is folded at once;
// if the batch is not committed the state must be thrown away.
type Turn struct {
	S        *State
	Registry Registry
	App      string
	Now      int64 // the owner's clock, ms
	// MaxEvent and MaxMessage are the bytes that fit the events topic and a user's topic.
	MaxEvent   int
	MaxMessage func(topic string) int
	// Folded, if set, is called with each event right after it was folded.
	Folded func(*eventlog.Event)

	Events   []*eventlog.Event
	Sendings []Sending
	// Touched has the instances that Events changed, in order, for timers and handlers.
	Touched []string

	local   []eventlog.Request // protocol rule 3: first in, first out after the current one
	marks   []eventlog.SourceMark
	refused []eventlog.Refusal
	answers map[[2]string]string // of refused, by instance and request
	cause   int64                // at of the event behind the request
	dropped []Buffered
}

// Needs names the entity that must be loaded before the request is decided: an instance, or
// a correlation key.
func (t *Turn) Needs(r *eventlog.Request) (id string, key eventlog.KeyRef, isKey bool) {
	switch r.Type {
	case eventlog.Deliver, eventlog.Subscribe, eventlog.Unsubscribe, eventlog.Returned, ExpireKept:
		return "", eventlog.KeyRef{Topic: r.Topic, Key: r.Key, Value: r.Value}, true
	case FanOut:
		if m := t.S.Matched[r.Msg]; m != nil {
			return "", m.Key, true
		}
		return "", key, false
	case eventlog.Ack:
		return "", key, false
	}
	return r.ID, key, false
}

// Decide decides one request and says what its sender is told. What Needs names must be
// loaded. Requests to the same partition that follow from it are taken with NextLocal.
func (t *Turn) Decide(r *eventlog.Request) (answer string) {
	s := t.S
	t.cause = r.At
	if r.Source != nil && r.Mark != nil && !s.Rules.NoSourceMarks {
		if !t.count(r) {
			return Ignored
		}
	}
	// protocol rule 2: a request of another partition is forwarded and never decided here.
	if key := r.PartitionKey(); key != "" && !s.Rules.NoForeign && r.Type != eventlog.Ack && r.Type != FanOut {
		if to := eventlog.PartitionOfKey(key, s.Partitions); to != s.Partition {
			f := *r
			f.Source, f.Mark = nil, nil
			t.emit(&eventlog.Event{Type: eventlog.Checkpoint, Out: []eventlog.Out{{To: to, Request: f}}})
			return Forwarded
		}
	}
	switch r.Type {
	case eventlog.StartInstance, eventlog.StopInstance, eventlog.RetryInstance, eventlog.ReleaseInstance, eventlog.DeleteInstance:
		return t.call(r)
	case eventlog.Deliver, eventlog.Subscribe, eventlog.Unsubscribe, eventlog.Returned, eventlog.Ack, FanOut, ExpireKept:
		return t.correlate(r)
	case Quarantine:
		return t.quarantine(r)
	case Forget:
		return t.forget(r)
	}
	i := s.Instances[r.ID]
	if i != nil && i.Quarantined != "" {
		return t.hold(i, r)
	}
	switch r.Type {
	case eventlog.Result:
		return t.result(i, r)
	case eventlog.Evaluated:
		return t.evaluated(i, r)
	case eventlog.DeliverTo:
		return t.deliverTo(i, r)
	case Timer:
		return t.timer(i, r)
	case Interrupted:
		return t.interrupted(i, r)
	case HasRun:
		return t.hasRun(i, r)
	case ExpireBuffer:
		return t.expireBuffer(i, r)
	case ExpireStop:
		return t.expireStop(i, r)
	case Outlived:
		return t.outlived(i, r)
	}
	return Ignored
}

// NextLocal takes the next request that decisions of this turn made to their own partition.
func (t *Turn) NextLocal() (r eventlog.Request, ok bool) {
	if len(t.local) == 0 {
		return r, false
	}
	r, t.local = t.local[0], t.local[1:]
	return r, true
}

// count keeps protocol rule 16: what crosses partitions counts once.
func (t *Turn) count(r *eventlog.Request) bool {
	s := t.S
	source, mark := *r.Source, *r.Mark
	if s.Rules.NoIndex {
		mark.Index = 0
	}
	if s.Rules.NoTopicID && source.TopicID != "" {
		source.TopicID = "user"
	}
	if s.Rules.NoKeyName {
		source.Key = ""
	}
	if have, ok := s.Sources[source]; ok && mark.Compare(have) <= 0 {
		return false
	}
	s.Sources[source] = mark
	delivery := source.TopicID == "" && r.Type == eventlog.DeliverTo
	if delivery {
		s.AckDue[source.Partition] = mark
	}
	t.marks = append(t.marks, eventlog.SourceMark{Source: source, Mark: mark, Delivery: delivery})
	return true
}

// emit numbers the event, folds it and keeps it. Requests to other partitions stay in it,
// those to this partition are queued.
func (t *Turn) emit(e *eventlog.Event) {
	s := t.S
	e.V, e.N = 1, s.N+1
	e.At = max(t.Now, s.At, t.cause) // protocol rule 11
	var local []eventlog.Request
	if len(e.Out) > 0 {
		remote := e.Out[:0:0]
		for _, o := range e.Out {
			if o.To == s.Partition {
				local = append(local, complete(o.Request, e))
			} else {
				remote = append(remote, o)
			}
		}
		e.Out = remote
	}
	e.Prev = s.Before(e)
	if err := s.Evolve(e); err != nil {
		panic(err) // the machine contradicts itself; the owner's recover handles it
	}
	t.Events = append(t.Events, e)
	if t.Folded != nil {
		t.Folded(e)
	}
	if s.Rules.NoLocalQueue {
		for k := range local {
			t.Decide(&local[k])
		}
	} else {
		t.local = append(t.local, local...)
	}
	if e.ID != "" && (e.Seq > 0 || e.Type == eventlog.StopKept) && (len(t.Touched) == 0 || t.Touched[len(t.Touched)-1] != e.ID) {
		t.Touched = append(t.Touched, e.ID)
	}
}

// complete gives a delivery the message that its event has once for all.
func complete(r eventlog.Request, e *eventlog.Event) eventlog.Request {
	if r.Type == eventlog.DeliverTo && r.Message == nil {
		r.Message = e.Message
	}
	return r
}

// Told is the request that the event tells another partition at an index of Event.Out, as it
// is appended there: with its source position, protocol rule 16.
func Told(e *eventlog.Event, index int, from int32) eventlog.Request {
	r := complete(e.Out[index].Request, e)
	r.Source = &eventlog.Source{Partition: from}
	r.Mark = &eventlog.Mark{Pos: int64(e.N), Index: index}
	r.At = e.At
	return r
}

// Position is what the owner knows when a turn ends.
type Position struct {
	TopicID   string // of the requests topic
	Offset    int64
	Term      int32 // of the request before it
	Forwarded uint64
	AckNow    bool // an acknowledgement has waited long enough
}

// Close ends the turn with its position event, if there is anything to say. Protocol rules
// 5, 7 and 21: the position stands in the last event; a moved forward cursor rides along but
// causes no event; what is owed to other partitions is acknowledged behind every Returned.
func (t *Turn) Close(p Position) {
	s := t.S
	t.cause = 0
	moved := p.Offset > s.Offset || p.TopicID != s.RequestsID
	owed := len(s.AckDue) > 0 && p.AckNow && !s.Rules.NoAck
	if len(t.Events) == 0 {
		if !owed && (!moved && len(t.marks) == 0 && len(t.refused) == 0 || s.Rules.NoPosition) {
			return
		}
	}
	if p.Offset <= s.Offset && p.TopicID == s.RequestsID { // requests were read again
		p.Offset, p.Term = s.Offset, s.Term
	}
	pos := &eventlog.Position{TopicID: p.TopicID, Offset: max(p.Offset, s.Offset), Term: p.Term, Forwarded: max(p.Forwarded, s.Forwarded), Sources: t.marks, Refused: t.refused}
	if s.Rules.RefusalInMemory {
		pos.Refused = nil
	}
	for k := range pos.Refused {
		r := &pos.Refused[k]
		// An event of the instance that is the turn's last says itself what was before it.
		if i := s.Instances[r.ID]; i != nil && (i.N < s.N || !t.carriesPosition()) {
			r.Prev = i.N
		}
	}
	var acks []eventlog.Out
	if len(s.AckDue) > 0 && !s.Rules.NoAck {
		for _, to := range s.acksInOrder() {
			upto := s.AckDue[to]
			acks = append(acks, eventlog.Out{To: to, Request: eventlog.Request{V: 1, Type: eventlog.Ack, From: s.Partition, Upto: &upto}})
		}
	}
	if t.carriesPosition() {
		// The event was folded without its position; folding that now comes to the same.
		e := t.Events[len(t.Events)-1]
		e.Pos, e.Out = pos, append(e.Out, acks...)
		s.position(e)
		return
	}
	t.emit(&eventlog.Event{Type: eventlog.Checkpoint, Pos: pos, Out: acks})
}

// carriesPosition says whether the turn's last event may have the position: not where what the
// position adds would be forgotten with the rest, or keep the rest from being forgotten.
func (t *Turn) carriesPosition() bool {
	if len(t.Events) == 0 {
		return false
	}
	switch e := t.Events[len(t.Events)-1]; e.Type {
	case eventlog.AnswersForgotten, eventlog.StopExpired:
		return false
	case eventlog.InstanceDeleted:
		return t.S.Instances[e.ID] != nil || !slices.ContainsFunc(t.refused, func(r eventlog.Refusal) bool { return r.ID == e.ID })
	}
	return true
}

func (s *State) acksInOrder() []int32 {
	var l []int32
	for p := range s.AckDue {
		l = append(l, p)
	}
	slices.Sort(l)
	return l
}

// refuse answers a call that changes nothing, in-band; protocol rule 8.
func (t *Turn) refuse(r *eventlog.Request, answer string) string {
	t.refusedLetter(r, answer)
	if r.Request == "" {
		return answer
	}
	t.refused = append(t.refused, eventlog.Refusal{ID: r.ID, Request: r.Request, Made: r.Made, Answer: answer})
	if t.answers == nil {
		t.answers = map[[2]string]string{}
	}
	t.answers[[2]string{r.ID, r.Request}] = answer // for a retry in the same batch
	return answer
}
