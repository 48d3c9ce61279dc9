package machine

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sort"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// ErrGap says that an event does not follow what was folded: an event is missing, twice, or
// the state is not the one that the event was decided on.
var ErrGap = errors.New("machine: gap in the events")

const (
	rememberedAnswers = 128
	// answerMemory is how long refused ids are remembered: a day, and a little for clocks.
	answerMemory = 25 * 3600_000
)

// Touches names what an event changes beside the partition's own part: at most one instance
// of its own (id), those of refusals, and one correlation key.
func Touches(e *eventlog.Event) (ids []string, key eventlog.KeyRef, hasKey bool) {
	return AppendTouched(nil, e)
}

// AppendTouched is Touches with the memory of an earlier list of ids.
func AppendTouched(ids []string, e *eventlog.Event) (_ []string, key eventlog.KeyRef, hasKey bool) {
	if e.ID != "" && instancePart(e) {
		ids = append(ids, e.ID)
	}
	if e.Pos != nil {
		for _, r := range e.Pos.Refused {
			ids = append(ids, r.ID)
		}
	}
	switch e.Type {
	case eventlog.SubscriptionAdded, eventlog.SubscriptionRemoved, eventlog.MessageKept,
		eventlog.MessageMatched, eventlog.MessageReturned, eventlog.MessageExpired:
		return ids, keyOf(e), true
	}
	return ids, key, false
}

// forgotten says that nothing is left of an instance, nor of the calls to it.
func (i *Instance) forgotten(at int64) bool {
	return i.Run == 0 && i.Seq == 0 && len(i.Refused) == 0 && len(i.Applied) == 0 && len(i.Stops) == 0 && i.Floor <= at-answerMemory
}

func keyOf(e *eventlog.Event) eventlog.KeyRef {
	return eventlog.KeyRef{Topic: e.Topic, Key: e.Key, Value: e.Value}
}

// instancePart says whether the event changes the instance ID.
func instancePart(e *eventlog.Event) bool {
	switch e.Type {
	case eventlog.RequestHeld, eventlog.RequestReleased, eventlog.AnswersForgotten, eventlog.StopKept, eventlog.StopExpired:
		return true
	}
	return e.Seq > 0
}

// Before is the number of the event before e that changed the instance of e: its Prev.
func (s *State) Before(e *eventlog.Event) uint64 {
	if e.ID != "" && instancePart(e) {
		if i := s.Instances[e.ID]; i != nil {
			return i.N
		}
	}
	return 0
}

// Evolve folds an event. What it touches must be loaded. A panic in the instance's part
// freezes that instance and nothing else; an error says that the event does not belong here
// and nothing of it was folded.
func (s *State) Evolve(e *eventlog.Event) error {
	if e.N != s.N+1 {
		return fmt.Errorf("%w: event %d follows event %d in partition %d", ErrGap, e.N, s.N, s.Partition)
	}
	var i *Instance
	if e.ID != "" && instancePart(e) {
		i = s.Instances[e.ID]
		if e.Seq > 0 {
			have := uint64(0)
			if i != nil {
				have = i.Seq
			}
			if e.Seq != have+1 {
				return fmt.Errorf("%w: event %d of partition %d has seq %d of instance %q after %d", ErrGap, e.N, s.Partition, e.Seq, e.ID, have)
			}
		}
		if i == nil {
			i = &Instance{ID: e.ID}
			s.Instances[e.ID] = i
		}
	}
	// protocol rule 12: positions and watermarks first and apart from the instance.
	s.N, s.At = e.N, max(s.At, e.At)
	if s.moved != s.noting {
		s.moved = s.noting
		s.changed(Row{Kind: RowPosition}) // it has At
	}
	s.position(e)
	switch e.Type {
	case eventlog.PartitionOwned:
		s.Epoch = e.N
	case eventlog.PlanUsed:
		if err := s.AddPlan(e.Plan, e.PlanData); err != nil {
			return fmt.Errorf("event %d of partition %d: %w", e.N, s.Partition, err)
		}
		s.changed(Row{Kind: RowPlan, ID: e.Plan})
	}
	if i != nil {
		s.changes(i)
		i.N = e.N
		s.mailbox(i, e)
		s.body(i, e)
		if (e.Type == eventlog.AnswersForgotten || e.Type == eventlog.StopExpired || e.Type == eventlog.InstanceDeleted) && i.forgotten(e.At) {
			s.Instances[e.ID] = nil
		}
	}
	s.correlation(e)
	return nil
}

func (s *State) position(e *eventlog.Event) {
	p := e.Pos
	if p == nil {
		return
	}
	if p.TopicID != s.RequestsID { // the log was copied: its requests count anew
		s.Offset, s.Term = 0, 0
	}
	s.RequestsID = p.TopicID
	if p.Offset >= s.Offset {
		s.Offset, s.Term = p.Offset, p.Term
	}
	s.Forwarded = max(s.Forwarded, p.Forwarded)
	for _, m := range p.Sources {
		s.Sources[m.Source] = m.Mark
		s.changed(Row{Kind: RowSource, Source: m.Source})
		if m.Delivery {
			s.AckDue[m.Source.Partition] = m.Mark
			s.changed(Row{Kind: RowAckDue, Partition: m.Source.Partition})
		}
	}
	// The Acks of this very event were decided with these deliveries in view.
	for _, o := range e.Out {
		if o.Request.Type == eventlog.Ack {
			delete(s.AckDue, o.To)
			s.changed(Row{Kind: RowAckDue, Partition: o.To})
		}
	}
	for _, r := range p.Refused {
		s.refused(r, e)
	}
}

func (s *State) refused(r eventlog.Refusal, e *eventlog.Event) {
	i := s.Instances[r.ID]
	if i == nil {
		i = &Instance{ID: r.ID}
		s.Instances[r.ID] = i
	}
	for _, a := range i.Refused {
		if a.Request == r.Request {
			return // Decide remembered it already
		}
	}
	s.changes(i)
	i.N = e.N
	i.Refused = append(i.Refused, Answer{Request: r.Request, Made: r.Made, At: e.At, Answer: r.Answer})
	i.Refused = i.forget(i.Refused, s.Rules.Limits.answers())
}

// forget drops what exceeds the memory of answers; protocol rule 8: the greatest Made that
// was forgotten is remembered.
func (i *Instance) forget(l []Answer, limit int) []Answer {
	for len(l) > limit {
		i.Floor = max(i.Floor, l[0].Made)
		l = slices.Delete(l, 0, 1)
	}
	return l
}

// mailbox folds what survives a quarantine. It must not panic.
func (s *State) mailbox(i *Instance, e *eventlog.Event) {
	if e.Seq > 0 {
		i.Seq = e.Seq
	}
	if e.Request != "" && e.Seq > 0 {
		i.Applied = i.forget(append(i.Applied, Answer{Request: e.Request, Made: e.Made, At: e.At}), s.Rules.Limits.answers())
	}
	i.foldStops(e)
	for _, k := range e.Unsubs {
		i.Subs = slices.DeleteFunc(i.Subs, func(x Subscription) bool { return x.KeyRef == k })
	}
	for _, k := range e.Subs {
		i.Subs = append(i.Subs, Subscription{KeyRef: k, Act: e.Seq})
	}
	if len(e.Subs) > 0 {
		sort.Slice(i.Subs, func(a, b int) bool { return compareKeys(i.Subs[a].KeyRef, i.Subs[b].KeyRef) < 0 })
	}
	if len(e.Back) > 0 {
		i.Buffer = slices.DeleteFunc(i.Buffer, func(b Buffered) bool { return slices.Contains(e.Back, b.Seq) })
	}
	switch e.Type {
	case eventlog.InstanceStarted:
		i.Run = e.N
	case eventlog.InstanceDeleted:
		i.Run, i.Seq, i.Subs, i.Buffer, i.Held = 0, 0, nil, nil, nil // another history may begin
	case eventlog.MessageReceived, eventlog.BufferExpired:
		i.handed = i.unbuffer(keyOf(e), e.Msg)
	case eventlog.MessageBuffered:
		i.Buffer = append(i.Buffer, Buffered{KeyRef: keyOf(e), Seq: e.Seq, Msg: e.Msg, Message: e.Message, Expires: e.Expires, Sole: e.Sole})
		sort.SliceStable(i.Buffer, func(a, b int) bool { return i.Buffer[a].Msg < i.Buffer[b].Msg })
	case eventlog.RequestHeld:
		i.Held = append(i.Held, *e.Held)
	case eventlog.RequestReleased:
		i.Held = slices.Delete(i.Held, 0, 1)
	case eventlog.AnswersForgotten:
		old := func(a Answer) bool { return a.At <= e.At-answerMemory }
		i.Refused = slices.DeleteFunc(i.Refused, old)
		if i.Run == 0 { // deleted
			i.Applied = slices.DeleteFunc(i.Applied, old)
		}
	}
}

// unbuffer takes a message out of the buffer. Its number counts in the partition of its key:
// alone it names no message.
func (i *Instance) unbuffer(key eventlog.KeyRef, msg uint64) (m *eventlog.Message) {
	i.Buffer = slices.DeleteFunc(i.Buffer, func(b Buffered) bool {
		if b.Msg != msg || b.KeyRef != key {
			return false
		}
		m = b.Message
		return true
	})
	return m
}

func compareKeys(a, b eventlog.KeyRef) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return strings.Compare(a.Value, b.Value)
}

// body folds the rest of the instance; a panic freezes it.
func (s *State) body(i *Instance, e *eventlog.Event) {
	switch e.Type {
	case eventlog.InstanceQuarantined:
		i.Quarantined, i.Updated = e.Reason, e.At
		delete(s.Frozen, i.ID)
		return
	case eventlog.InstanceDeleted: // nothing of it is left that could be frozen
		i.Body = Body{Updated: e.At}
		delete(s.Frozen, i.ID)
		return
	case eventlog.InstanceReset:
		delete(s.Frozen, i.ID)
	}
	if e.Seq == 0 || s.Frozen[i.ID] != "" {
		return
	}
	s.before.remember(i, e)
	defer func() {
		if r := recover(); r != nil {
			i.Body = s.before.body()
			s.Frozen[i.ID] = fmt.Sprintf("fold %s: %v\n%s", e.Type, r, debug.Stack())
		}
	}()
	if s.Inject != nil {
		s.Inject(e)
	}
	i.fold(e)
}

func (i *Instance) fold(e *eventlog.Event) {
	i.Updated = e.At
	switch e.Type {
	case eventlog.InstanceStarted:
		i.Body = Body{Definition: e.Definition, Plan: e.Plan, Status: Executing, Params: e.Params, ParamsSeq: e.Seq, Created: e.At, Updated: e.At, Trace: e.Trace}
	case eventlog.InstanceReset:
		i.reset(e)
	default:
		if len(e.Params) > 0 {
			i.merge(e)
		}
	}
	i.foldKeys(e)
	i.foldTask(e)
	// What the flow went back before is forgotten first: it may start again in this event.
	for _, x := range e.Ends {
		if x.Status == string(NotStarted) {
			i.notStarted(x.Path)
		}
	}
	for _, st := range e.Starts {
		i.start(st, e)
	}
	for _, x := range e.Ends {
		if x.Status != string(NotStarted) {
			i.note(x, e)
		}
	}
	switch e.Type {
	case eventlog.InstanceCompleted:
		i.end(Completed, e)
	case eventlog.InstanceFailed:
		i.end(Failure, e)
		i.Error, i.FailedPath = e.Error, e.Path
	case eventlog.InstanceStopped:
		i.end(Stopped, e)
		if e.Reason != "" {
			i.Reason = e.Reason
		}
		i.Stopping = false
	case eventlog.InstanceStopping:
		i.Stopping, i.Reason, i.Evaluate = true, e.Reason, 0
	case eventlog.InstanceRetried:
		i.Status, i.Ended, i.Error, i.FailedPath, i.DeleteAt = Executing, 0, "", "", 0
	case eventlog.FlowEnded:
		i.FlowEnded = true
	}
}

// merge changes the parameters that the event's task reads.
func (i *Instance) merge(e *eventlog.Event) {
	items, k := i.scope(e.Path)
	if items == nil {
		i.Params, i.ParamsSeq = MergePatch(i.Params, e.Params), e.Seq
		return
	}
	i.ItemsSeq = e.Seq
	i.changeItems(items.Path, func(x *Items) {
		x.Values, x.Seqs = slices.Clone(x.Values), slices.Clone(x.Seqs)
		x.Values[k], x.Seqs[k] = MergePatch(x.Values[k], e.Params), e.Seq
	})
}

func (i *Instance) foldKeys(e *eventlog.Event) {
	for _, k := range e.Keys {
		at, found := slices.BinarySearchFunc(i.Keys, k, func(a, b eventlog.TaskKey) int { return strings.Compare(a.Path, b.Path) })
		if found {
			i.Keys[at] = k
		} else {
			i.Keys = slices.Insert(i.Keys, at, k)
		}
		i.rearm(k)
	}
	if e.Evaluate {
		i.Evaluate = e.Seq
	} else if e.Type == eventlog.KeysEvaluated {
		i.Evaluate = 0
	}
}

func (i *Instance) end(s Status, e *eventlog.Event) {
	i.Status, i.Ended, i.Evaluate, i.DeleteAt = s, e.At, 0, e.Due
	for k := range i.Tasks {
		if t := &i.Tasks[k]; t.Status == Executing || t.Status == Submitted {
			t.finish(Stopped)
			t.Since = e.At
			if s != Failure { // for good
				t.Msg, t.Message = 0, nil
			}
		}
	}
}
