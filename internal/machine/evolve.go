package machine

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
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

func keyOf(e *eventlog.Event) eventlog.KeyRef {
	return eventlog.KeyRef{Topic: e.Topic, Key: e.Key, Value: e.Value}
}

// instancePart says whether the event changes the instance ID.
func instancePart(e *eventlog.Event) bool {
	switch e.Type {
	case eventlog.RequestHeld, eventlog.RequestReleased, eventlog.AnswersForgotten:
		return true
	}
	return e.Seq > 0
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
	s.changed(Row{Kind: RowPosition}) // it has At
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
		if e.Type == eventlog.AnswersForgotten && i.Run == 0 && len(i.Refused) == 0 && i.Floor <= e.At-answerMemory {
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
	s.RequestsID, s.Offset = p.TopicID, max(s.Offset, p.Offset)
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
		i.Refused = slices.DeleteFunc(i.Refused, func(a Answer) bool { return a.At <= e.At-answerMemory })
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
	case eventlog.InstanceReset:
		delete(s.Frozen, i.ID)
	}
	if e.Seq == 0 || s.Frozen[i.ID] != "" {
		return
	}
	good := i.Body
	good.Tasks, good.Keys = slices.Clone(i.Tasks), slices.Clone(i.Keys)
	defer func() {
		if r := recover(); r != nil {
			i.Body = good
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
		i.Body = Body{Definition: e.Definition, Plan: e.Plan, Status: Executing, Params: e.Params, ParamsSeq: e.Seq, Created: e.At, Updated: e.At}
	case eventlog.InstanceReset:
		i.reset(e)
	default:
		if len(e.Params) > 0 {
			i.Params, i.ParamsSeq = MergePatch(i.Params, e.Params), e.Seq
		}
	}
	i.foldKeys(e)
	i.foldTask(e)
	for _, st := range e.Starts {
		i.start(st, e)
	}
	for _, x := range e.Ends {
		i.note(x, e)
	}
	switch e.Type {
	case eventlog.InstanceCompleted:
		i.end(Completed, e)
	case eventlog.InstanceFailed:
		i.end(Failure, e)
		i.Error, i.FailedPath = e.Error, e.Path
	case eventlog.InstanceStopped:
		i.end(Stopped, e)
		i.Reason = e.Reason
	case eventlog.InstanceRetried:
		i.Status, i.Ended, i.Error, i.FailedPath = Executing, 0, "", ""
	}
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

// rearm gives a task that waits for a time the one that was computed now.
func (i *Instance) rearm(k eventlog.TaskKey) {
	t := i.Task(k.Path)
	if t == nil || t.Status != Executing || t.Phase != Waiting {
		return
	}
	switch t.Kind {
	case eventlog.At:
		t.Due = parseTime(k.Value)
	case eventlog.Every:
		if _, until := parseEvery(k.Value); until > 0 {
			t.Due = min(t.Due, until)
		}
	}
}

// foldTask changes the task that the event is about.
func (i *Instance) foldTask(e *eventlog.Event) {
	if e.Path == "" {
		return
	}
	t := i.Task(e.Path)
	if t == nil {
		panic(fmt.Sprintf("machine: %s of task %q that was never started", e.Type, e.Path))
	}
	switch e.Type {
	case eventlog.AttemptRunning, eventlog.InstanceFailed:
	default:
		t.Since = e.At
	}
	switch e.Type {
	case eventlog.AttemptStarted:
		t.run(e.Attempt, e)
	case eventlog.AttemptRunning:
		t.Ran = true
	case eventlog.AttemptInterrupted:
		t.Interrupted++
		if t.Ran || e.Again {
			t.Cuts++
		}
		t.Ran, t.Due = false, e.Due
	case eventlog.AttemptFailed, eventlog.AttemptTimedOut:
		t.Phase, t.Due, t.Error, t.Ran, t.Cuts, t.Interrupted = Retrying, e.Due, e.Error, false, 0, 0
	case eventlog.TaskCompleted:
		t.finish(Completed)
		t.Error = ""
		if e.Choice != "" { // it ends with the branch
			t.Status, t.Phase, t.Choice = Executing, Inside, e.Choice
		}
	case eventlog.TaskFailed:
		message, msg := t.Message, t.Msg // a retry of the instance hands it over again
		t.finish(Failure)
		t.Error, t.Message, t.Msg = e.Error, message, msg
	case eventlog.MessageReceived:
		t.Act, t.Msg, t.Message = e.Seq, e.Msg, e.Message
		if t.Message == nil { // it was buffered; the mailbox has handed it over
			t.Message = i.handed
		}
		i.handed = nil
		t.run(1, e)
	case eventlog.EveryContinued:
		t.Phase, t.Act, t.Attempt, t.Due, t.Error, t.Ran, t.Cuts, t.Interrupted = Waiting, e.Seq, 0, e.Due, "", false, 0, 0
	case eventlog.ListenContinued:
		t.Phase, t.Act, t.Attempt, t.Due, t.Msg, t.Message = Waiting, e.Seq, 0, e.Due, 0, nil
	}
}

func (t *Task) run(attempt int, e *eventlog.Event) {
	t.Status, t.Phase, t.Attempt, t.Due = Executing, Running, attempt, e.Due
	t.Ran, t.Cuts, t.Interrupted = false, 0, 0
}

func (t *Task) finish(s Status) {
	t.Status, t.Phase, t.Due, t.Msg, t.Message = s, "", 0, 0, nil
	t.Ran, t.Cuts, t.Interrupted = false, 0, 0
}

// start arms a task: a handler runs, or a listener waits (or works again on the message
// that it had when it failed).
func (i *Instance) start(st eventlog.Start, e *eventlog.Event) {
	t := i.Task(st.Path)
	if t == nil {
		if i.Tasks == nil {
			i.Tasks = make([]Task, 0, 4) // most have a few
		}
		i.Tasks = append(i.Tasks, Task{Path: st.Path, Kind: st.Kind})
		t = &i.Tasks[len(i.Tasks)-1]
	}
	t.Status, t.Act, t.Since, t.Due, t.Error = Executing, e.Seq, e.At, st.Due, ""
	t.Ran, t.Cuts, t.Interrupted, t.Choice = false, 0, 0, ""
	switch {
	case st.Kind == eventlog.Parallel:
		t.Phase, t.Attempt = Inside, 0
	case st.Kind == eventlog.At:
		t.Phase, t.Attempt, t.Due = Waiting, 0, parseTime(i.KeyValue(st.Path))
	case st.Kind == eventlog.Listen && t.Message == nil:
		t.Phase, t.Attempt = Waiting, 0
	default:
		t.Phase, t.Attempt = Running, 1
	}
}

// note gives a node the status that the event says.
func (i *Instance) note(x eventlog.End, e *eventlog.Event) {
	t := i.Task(x.Path)
	if t == nil {
		i.Tasks = append(i.Tasks, Task{Path: x.Path, Kind: x.Kind})
		t = &i.Tasks[len(i.Tasks)-1]
	}
	choice := t.Choice
	t.finish(Status(x.Status))
	t.Since = e.At
	if t.Status == Executing {
		t.Phase, t.Choice = Inside, choice
	}
}

// parseTime is a computed time, or 0 while it is not known.
func parseTime(value string) int64 {
	ms, _ := strconv.ParseInt(value, 10, 64)
	return ms
}

func (i *Instance) end(s Status, e *eventlog.Event) {
	i.Status, i.Ended, i.Evaluate = s, e.At, 0
	for k := range i.Tasks {
		if t := &i.Tasks[k]; t.Status == Executing || t.Status == Submitted {
			t.finish(Stopped)
			t.Since = e.At
		}
	}
}

// correlation folds the part of a correlation key's owner.
func (s *State) correlation(e *eventlog.Event) {
	// protocol rule 21: a local delivery is outstanding until its instance decided it.
	if e.Local {
		switch e.Type {
		case eventlog.MessageReceived, eventlog.MessageBuffered, eventlog.RequestHeld:
			if m := s.Matched[e.Msg]; m != nil {
				m.Local--
				s.settleMatched(m)
			}
		}
	}
	switch e.Type {
	case eventlog.SubscriptionAdded:
		k := s.key(keyOf(e))
		k.Waiters = append(k.Waiters, Waiter{N: e.N, ID: e.ID, Run: e.Run, Act: e.Act})
		s.changed(Row{Kind: RowWaiter, Key: keyOf(e), N: e.N})
	case eventlog.SubscriptionRemoved:
		s.removeWaiter(e)
	case eventlog.MessageKept:
		s.unkeep(keyOf(e), e.Msg)
		k := s.key(keyOf(e))
		k.Kept = append(k.Kept, Kept{Msg: e.Msg, Message: e.Message, Expires: e.Expires})
		sort.SliceStable(k.Kept, func(a, b int) bool { return k.Kept[a].Msg < k.Kept[b].Msg })
		s.changed(Row{Kind: RowKept, Key: keyOf(e), N: e.Msg, Expires: e.Expires})
		s.dropMatched(e.Msg)
	case eventlog.MessageMatched:
		s.unkeep(keyOf(e), e.Msg)
		m := &Matched{Msg: e.Msg, Key: keyOf(e), Message: e.Message, Expires: e.Expires}
		s.Matched[e.Msg] = m
		s.page(m, e)
		s.changed(Row{Kind: RowMatched, N: e.Msg})
	case eventlog.FanOutPage:
		if m := s.Matched[e.Msg]; m != nil {
			s.page(m, e)
			s.settleMatched(m)
		}
	case eventlog.DeliveriesAcked:
		s.acked(e)
	case eventlog.MessageReturned:
		s.removeWaiter(e)
		if m := s.Matched[e.Msg]; m != nil {
			m.Back++
			if e.Local {
				m.Local--
			}
			s.settleMatched(m)
		}
	case eventlog.MessageExpired:
		s.unkeep(keyOf(e), e.Msg)
		s.dropMatched(e.Msg)
	}
}

func (s *State) key(ref eventlog.KeyRef) *KeyState {
	k := s.Keys[ref]
	if k == nil {
		k = &KeyState{}
		s.Keys[ref] = k
	}
	return k
}

func (s *State) unkeep(ref eventlog.KeyRef, msg uint64) {
	if k := s.Keys[ref]; k != nil {
		k.Kept = slices.DeleteFunc(k.Kept, func(x Kept) bool {
			if x.Msg == msg {
				s.changed(Row{Kind: RowKept, Key: ref, N: msg, Expires: x.Expires})
			}
			return x.Msg == msg
		})
	}
}

// removeWaiter ends subscriptions by activation, never by path or instance alone; protocol
// rule 20.
func (s *State) removeWaiter(e *eventlog.Event) {
	ref := keyOf(e)
	k := s.Keys[ref]
	if k == nil {
		return
	}
	k.Waiters = slices.DeleteFunc(k.Waiters, func(w Waiter) bool {
		gone := w.ID == e.ID && (w.Run == e.Run && w.Act == e.Act || s.Rules.RemoveByInstance)
		if gone {
			s.changed(Row{Kind: RowWaiter, Key: ref, N: w.N})
		}
		return gone
	})
}

func (s *State) dropMatched(msg uint64) {
	if s.Matched[msg] != nil {
		delete(s.Matched, msg)
		delete(s.fans, msg)
		s.changed(Row{Kind: RowMatched, N: msg})
	}
}

// page adds the waiters that the event chose.
func (s *State) page(m *Matched, e *eventlog.Event) {
	m.Chosen += e.Chosen
	m.Local += e.Kept
	m.After, m.Until = e.After, e.Until
	for index, o := range e.Out {
		if o.Request.Type == eventlog.DeliverTo {
			m.wait(o.To, eventlog.Mark{Pos: int64(e.N), Index: index})
		}
	}
	for _, w := range m.Waits {
		if w.Mark.Pos == int64(e.N) {
			s.unacked[w.Partition] = append(s.unacked[w.Partition], delivery{w.Mark, m.Msg})
		}
	}
	if m.Until > 0 {
		s.fans[m.Msg] = m
	} else {
		delete(s.fans, m.Msg)
	}
}

func (m *Matched) wait(partition int32, mark eventlog.Mark) {
	at, found := slices.BinarySearchFunc(m.Waits, partition, func(w Wait, p int32) int { return int(w.Partition) - int(p) })
	if found {
		m.Waits[at].Mark = mark
	} else {
		m.Waits = slices.Insert(m.Waits, at, Wait{partition, mark})
	}
}

// acked ends the waits for deliveries that their partition has decided.
func (s *State) acked(e *eventlog.Event) {
	l := s.unacked[e.From]
	for len(l) > 0 && l[0].mark.Compare(*e.Upto) <= 0 {
		m := s.Matched[l[0].msg]
		l = l[1:]
		if m == nil {
			continue
		}
		before := len(m.Waits)
		m.Waits = slices.DeleteFunc(m.Waits, func(w Wait) bool {
			return w.Partition == e.From && w.Mark.Compare(*e.Upto) <= 0
		})
		if len(m.Waits) < before {
			s.settleMatched(m)
		}
	}
	if len(l) == 0 {
		delete(s.unacked, e.From)
	} else {
		s.unacked[e.From] = l
	}
}

// settleMatched drops the body when nobody can return it any more and somebody took it.
func (s *State) settleMatched(m *Matched) {
	s.changed(Row{Kind: RowMatched, N: m.Msg})
	if len(m.Waits) == 0 && m.Local == 0 && m.Back < m.Chosen && m.Until == 0 {
		delete(s.Matched, m.Msg)
	}
}
