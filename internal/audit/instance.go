package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// status of an instance.
type status byte

const (
	none status = iota
	running
	completed
	failed
	stopped
	skipped
)

// instance is what the auditor keeps of an instance: enough to say which event may follow.
type instance struct {
	seq, run  uint64
	status    status
	frozen    bool // in quarantine
	broken    bool // reported once; what follows from it is not
	loose     bool // its state was given by an operator and does not follow from the plan
	plan      *plan
	evaluate  uint64
	expect    eventlog.Type   // the event that must follow
	path      string          // of it
	stopping  bool            // on-stop handlers run
	stop      string          // request of the kept stop that must follow
	flowEnded bool            // only listeners that work again are left
	jumps     map[string]int  // how often the flow went elsewhere when a node had failed
	passed    map[string]bool // nodes that the flow jumped over, or out of
	way       way             // of the flow with the event at hand
	tasks     []task
	keys      []eventlog.TaskKey
	subs      []sub
	buffer    []buffered
	calls     []uint64   // hashes
	dropped   []buffered // that left the buffer; a MessageDropped must follow for each
	held      []buffered // held deliveries; without msg another request
	released  buffered   // the held delivery that is being decided
}

type sub struct {
	eventlog.KeyRef
	act uint64
}

type buffered struct {
	eventlog.KeyRef
	seq     uint64
	msg     uint64
	expires int64
	sole    bool
	origin  uint64
}

const bufferLimit = 100

func (i *instance) applied(call uint64) bool { return slices.Contains(i.calls, call) }

// check reports a broken rule of the instance, once.
func (p *partition) check(i *instance, e *eventlog.Event, ok bool, format string, args ...any) bool {
	if !ok && !i.broken {
		i.broken = true
		p.fail(e, format, args...)
	}
	return ok
}

// about checks events about an instance that are not in its history.
func (p *partition) about(e *eventlog.Event) {
	switch e.Type {
	case eventlog.RequestHeld, eventlog.RequestReleased, eventlog.AnswersForgotten, eventlog.DeliveryRefused, eventlog.MessageDropped,
		eventlog.StopKept, eventlog.StopExpired:
	case eventlog.PartitionOwned, eventlog.PlanUsed, eventlog.Checkpoint, eventlog.SubscriptionAdded, eventlog.SubscriptionRemoved,
		eventlog.MessageKept, eventlog.MessageMatched, eventlog.FanOutPage, eventlog.MessageReturned, eventlog.MessageExpired,
		eventlog.DeliveriesAcked:
		return
	default:
		p.fail(e, "has no seq")
		return
	}
	p.home(e)
	i := p.instances[e.ID]
	switch e.Type {
	case eventlog.RequestHeld:
		if i == nil || !i.frozen {
			p.fail(e, "the instance is not in quarantine")
			return
		}
		held := buffered{}
		if h := e.Held; h != nil && h.Type == eventlog.DeliverTo {
			held.KeyRef, held.msg, held.sole = eventlog.KeyRef{Topic: h.Topic, Key: h.Key, Value: h.Value}, e.Msg, h.Sole
			held.origin = p.a.origin(held.KeyRef, h.Message)
			p.taken(e, h.Value)
		}
		i.held = append(i.held, held)
	case eventlog.RequestReleased:
		if i == nil || i.frozen || len(i.held) == 0 {
			p.fail(e, "nothing is held, or the instance is in quarantine")
			return
		}
		i.released, i.held = i.held[0], i.held[1:]
	case eventlog.DeliveryRefused:
		if p.took(i, e) {
			p.handBack(e, keyOf(e), e.Msg) // it counted as taken when it was held
		}
	case eventlog.MessageDropped:
		p.drop(i, e)
	case eventlog.StopKept:
		p.stopKept(e)
	case eventlog.StopExpired:
		p.stopExpired(e)
	}
}

// drop checks that the message that is dead-lettered was here, and nowhere else to go.
func (p *partition) drop(i *instance, e *eventlog.Event) {
	is := func(b buffered) bool { return b.msg == e.Msg && b.KeyRef == keyOf(e) }
	if i == nil {
		p.fail(e, "the instance has no message")
		return
	}
	if at := slices.IndexFunc(i.dropped, is); at >= 0 {
		p.a.deadLetters.expect(i.dropped[at].origin)
		i.dropped = slices.Delete(i.dropped, at, at+1)
		return
	}
	if !is(i.released) || i.released.sole {
		p.fail(e, "message %d did not leave the instance", e.Msg)
		return
	}
	p.a.deadLetters.expect(i.released.origin)
	i.released = buffered{}
}

// took counts a delivery, unless it counted when it was held.
func (p *partition) took(i *instance, e *eventlog.Event) (held bool) {
	if i != nil && i.released.msg == e.Msg && i.released.KeyRef == keyOf(e) && e.Msg != 0 {
		i.released = buffered{}
		return true
	}
	p.taken(e, e.Value)
	return false
}

func (p *partition) home(e *eventlog.Event) {
	if to := eventlog.PartitionOf(e.ID, p.a.count); to != p.index {
		p.fail(e, "the instance belongs to partition %d", to)
	}
}

// instance checks one event of an instance's history.
func (p *partition) instance(e *eventlog.Event) {
	i := p.instances[e.ID]
	if i == nil {
		i = &instance{}
		p.instances[strings.Clone(e.ID)] = i
		p.home(e)
	}
	p.check(i, e, e.Seq == i.seq+1, "seq %d follows seq %d", e.Seq, i.seq)
	i.seq = e.Seq
	p.call(i, e)
	p.overtaken(i, e)
	if e.Type == eventlog.InstanceStarted {
		p.check(i, e, i.run == 0, "the instance was started before, by event %d", i.run)
		p.check(i, e, e.Run == e.N, "run %d is not the number of the event", e.Run)
		i.run = e.Run
	}
	p.check(i, e, e.Run == i.run, "run %d, the instance is in run %d", e.Run, i.run)
	if !i.broken {
		p.follows(i, e)
	}
	if !i.broken {
		p.transition(i, e)
	}
	p.mailbox(i, e)
	if !i.broken {
		p.after(i, e)
	}
	if e.Type == eventlog.InstanceDeleted { // another history may begin
		*i = instance{calls: i.calls}
	}
}

// call checks that the call that the event answers was not answered before.
func (p *partition) call(i *instance, e *eventlog.Event) {
	if e.Request == "" {
		return
	}
	h := p.a.hash(e.Request)
	if i.applied(h) {
		p.fail(e, "call %s is applied a second time", e.Request)
		return
	}
	if r, ok := p.refused[p.a.hash(e.ID, e.Request)]; ok && r.made && e.At-r.at < 24*3600_000 {
		p.fail(e, "call %s had been refused", e.Request)
	}
	i.calls = append(i.calls, h)
}

// follows checks that the type may come now.
func (p *partition) follows(i *instance, e *eventlog.Event) {
	if e.Type == eventlog.InstanceQuarantined {
		p.check(i, e, !i.frozen, "the instance is in quarantine")
		return
	}
	if i.frozen {
		p.check(i, e, e.Type == eventlog.InstanceReset, "the instance is in quarantine")
		return
	}
	if i.expect != "" {
		p.check(i, e, e.Type == i.expect && (e.Path == i.path || i.path == anyPath && e.Path != ""), "%s of %q must come first", i.expect, i.path)
	}
	switch e.Type {
	case eventlog.InstanceCompleted:
		p.check(i, e, i.expect == e.Type || i.loose || i.plan == nil || !i.plan.known || i.status != running, "the flow has not come to its end")
	case eventlog.InstanceStarted:
		p.check(i, e, i.status == none, "the instance runs or has ended")
	case eventlog.InstanceRetried:
		p.check(i, e, i.status == failed, "the instance has not failed")
	case eventlog.InstanceReset:
		p.check(i, e, false, "the instance is not in quarantine")
	case eventlog.InstanceDeleted:
		p.check(i, e, i.status == completed || i.status == failed || i.status == stopped, "the instance has not ended")
	}
	switch e.Type {
	case eventlog.InstanceStarted, eventlog.InstanceRetried, eventlog.InstanceReset, eventlog.InstanceDeleted:
	default:
		p.check(i, e, i.status != none, "the instance was never started")
		p.check(i, e, i.status == running, "the instance has ended")
	}
}

// transition folds what the event changes of the instance itself.
func (p *partition) transition(i *instance, e *eventlog.Event) {
	i.expect, i.path, i.way = "", "", way{}
	switch e.Type {
	case eventlog.InstanceStarted:
		i.status, i.plan = running, p.plans[e.Plan]
		if p.check(i, e, i.plan != nil, "plan %s was not recorded before", e.Plan) {
			p.check(i, e, i.plan.name == e.Definition, "plan %s is of definition %q", e.Plan, i.plan.name)
		}
	case eventlog.InstanceRetried:
		i.status = running
		for _, s := range e.Starts {
			t := i.task(s.Path)
			p.check(i, e, t != nil && (t.status == failed || t.status == stopped || t.status == skipped && s.Kind == eventlog.Monitor), "task %s did not fail", s.Path)
		}
	case eventlog.InstanceQuarantined:
		p.check(i, e, e.Act < e.Seq, "the last good event %d is not before it", e.Act)
		i.frozen = true
		return
	case eventlog.InstanceReset:
		p.reset(i, e)
	}
	for _, k := range e.Keys {
		i.setKey(k)
	}
	p.task(i, e)
	if e.Type == eventlog.SkippedTo {
		p.skippedTo(i, e)
	}
	switch {
	case e.Evaluate:
		i.evaluate = e.Seq
	case e.Type == eventlog.KeysEvaluated:
		i.evaluate = 0
	}
	if e.Type == eventlog.InstanceStopping {
		p.check(i, e, !i.stopping, "the instance is being stopped")
		p.check(i, e, len(e.Starts) > 0, "without an on-stop handler")
		i.stopping, i.evaluate = true, 0
	}
	p.forgets(i, e) // before anything starts again in this event
	for _, s := range e.Starts {
		p.start(i, s, e)
	}
	for _, x := range e.Ends {
		p.end(i, x, e)
	}
	p.flow(i, e)
	switch e.Type {
	case eventlog.InstanceCompleted:
		p.completed(i, e)
		i.end(completed)
	case eventlog.InstanceFailed:
		t := i.task(e.Path)
		p.check(i, e, !i.stopping, "fails, and it is being stopped")
		if e.Path == "" {
			p.check(i, e, i.evaluate != 0 || i.loose, "no task failed, and no key was to be computed")
		} else {
			p.check(i, e, t != nil && t.status == failed, "task %s has not failed", e.Path)
			n := i.planned(e.Path)
			p.check(i, e, n == nil || !n.Continue, "names %s, which may fail", e.Path)
		}
		i.end(failed)
	case eventlog.InstanceStopped:
		i.end(stopped)
	case eventlog.FlowEnded:
		p.check(i, e, !i.flowEnded, "the flow has ended before")
		over := false
		for _, t := range i.tasks {
			over = over || t.status == running && t.over
			p.check(i, e, t.status != running || t.over, "task %s executes", t.path)
		}
		p.check(i, e, over, "no listener works")
		i.flowEnded = true
	}
}

func (i *instance) end(s status) {
	i.status, i.evaluate, i.stopping, i.expect = s, 0, false, ""
	if s != failed { // nothing more can happen to its tasks
		i.tasks, i.keys = nil, nil
		return
	}
	for k := range i.tasks {
		if t := &i.tasks[k]; t.status == running {
			*t = task{path: t.path, kind: t.kind, status: stopped, choice: t.choice, message: t.message,
				choices: t.choices, items: t.items, collect: t.collect, over: t.over}
		}
	}
}

func (i *instance) setKey(k eventlog.TaskKey) {
	for j := range i.keys {
		if i.keys[j].Path == k.Path {
			i.keys[j].Value = k.Value
			return
		}
	}
	i.keys = append(i.keys, k)
}

func (i *instance) key(path string) string {
	for _, k := range i.keys {
		if k.Path == path {
			return k.Value
		}
	}
	return ""
}

// reset takes the state that replaces the frozen one.
func (p *partition) reset(i *instance, e *eventlog.Event) {
	var s struct {
		Plan     string             `json:"plan"`
		Status   string             `json:"status"`
		Evaluate uint64             `json:"evaluate"`
		Keys     []eventlog.TaskKey `json:"keys"`
		Items    []struct {
			Path   string `json:"path"`
			States string `json:"states"`
		} `json:"items"`
		Jumps []struct {
			Path  string `json:"path"`
			Count int    `json:"count"`
		} `json:"jumps"`
		Stopping  bool `json:"stopping"`
		FlowEnded bool `json:"flowEnded"`
		Tasks     []struct {
			Path    string          `json:"path"`
			Kind    eventlog.Kind   `json:"kind"`
			Status  string          `json:"status"`
			Phase   string          `json:"phase"`
			Act     uint64          `json:"act"`
			Attempt int             `json:"attempt"`
			Due     int64           `json:"due"`
			Tick    int64           `json:"tick"`
			Ran     bool            `json:"ran"`
			Choice  string          `json:"choice"`
			Choices []string        `json:"choices"`
			Collect bool            `json:"collect"`
			Over    bool            `json:"over"`
			Message json.RawMessage `json:"message"`
		} `json:"tasks"`
	}
	if err := json.Unmarshal(e.State, &s); err != nil {
		p.check(i, e, false, "its state can't be read: %v", err)
		return
	}
	i.frozen, i.broken, i.passed = false, false, nil // it stays loose: the state may be one after a jump
	i.loose = i.loose || len(s.Jumps) > 0
	i.plan, i.status, i.evaluate, i.keys, i.tasks = p.plans[s.Plan], statusOf(s.Status), s.Evaluate, s.Keys, nil
	p.check(i, e, s.Plan == "" || i.plan != nil, "plan %s was not recorded before", s.Plan)
	for _, t := range s.Tasks {
		i.tasks = append(i.tasks, task{path: t.Path, kind: t.Kind, status: statusOf(t.Status), phase: phaseOf(t.Phase), act: t.Act, attempt: t.Attempt,
			due: max(t.Due, t.Tick), ran: t.Ran, choice: t.Choice, choices: t.Choices, collect: t.Collect, over: t.Over, message: len(t.Message) > 0 && string(t.Message) != "null"})
		i.loose = i.loose || t.Over
	}
	i.stopping, i.flowEnded, i.jumps = s.Stopping, s.FlowEnded, map[string]int{}
	for _, j := range s.Jumps {
		i.jumps[j.Path] = j.Count
	}
	for _, x := range s.Items {
		if t := i.task(x.Path); t != nil {
			t.items = make([]status, len(x.States))
			for k, c := range []byte(x.States) {
				t.items[k] = map[byte]status{'E': running, 'C': completed, 'F': failed, 'S': skipped, 'T': stopped}[c]
			}
		}
	}
}

func statusOf(name string) status {
	switch name {
	case "EXECUTING", "SUBMITTED":
		return running
	case "COMPLETED":
		return completed
	case "SKIPPED":
		return skipped
	case "FAILURE":
		return failed
	case "STOPPED":
		return stopped
	}
	return none
}

func phaseOf(name string) phase {
	switch name {
	case "waiting":
		return waiting
	case "retrying":
		return retrying
	case "inside":
		return inside
	}
	return works
}

// mailbox folds subscriptions and buffered messages; a quarantine does not touch them.
func (p *partition) mailbox(i *instance, e *eventlog.Event) {
	for _, k := range e.Unsubs {
		at := slices.IndexFunc(i.subs, func(s sub) bool { return s.KeyRef == k })
		if !p.check(i, e, at >= 0, "ends a subscription to %s that it does not have", name(k)) {
			continue
		}
		p.a.note(e.ID, e.Run, i.subs[at].act, k, func(s *subscription) { s.ended = true })
		i.subs = slices.Delete(i.subs, at, at+1)
	}
	for _, k := range e.Subs {
		p.check(i, e, !slices.ContainsFunc(i.subs, func(s sub) bool { return s.KeyRef == k }), "subscribes to %s a second time", name(k))
		p.check(i, e, i.mayWait(k), "subscribes to %s, and no listener that takes messages alone was reached", name(k))
		i.subs = append(i.subs, sub{k, e.Seq})
		p.a.note(e.ID, e.Run, e.Seq, k, func(s *subscription) { s.wanted, s.partition, s.n = true, p.index, e.N })
	}
	for _, m := range e.Back {
		at := slices.IndexFunc(i.buffer, func(b buffered) bool { return b.seq == m })
		if p.check(i, e, at >= 0, "message %d leaves, but it was not buffered", m) {
			if b := i.buffer[at]; b.sole {
				p.handBack(e, b.KeyRef, b.msg)
			} else {
				i.dropped = append(i.dropped, b)
			}
			i.buffer = slices.Delete(i.buffer, at, at+1)
		}
	}
	k := keyOf(e)
	switch e.Type {
	case eventlog.MessageReceived:
		was := i.unbuffer(k, e.Msg)
		p.check(i, e, was || e.Message != nil, "message %d was not buffered, and it is not here", e.Msg)
		if !was {
			p.took(i, e)
		}
	case eventlog.MessageBuffered:
		p.took(i, e)
		p.check(i, e, !slices.ContainsFunc(i.buffer, func(b buffered) bool { return b.msg == e.Msg && b.KeyRef == k }), "message %d is buffered a second time", e.Msg)
		i.buffer = append(i.buffer, buffered{k, e.Seq, e.Msg, e.Expires, e.Sole, p.a.origin(k, e.Message)})
		n := 0
		for _, b := range i.buffer {
			if b.KeyRef == k {
				n++
			}
		}
		p.check(i, e, n <= p.a.o.Buffered, "%d messages of one key are buffered", n)
	case eventlog.BufferExpired:
		at := slices.IndexFunc(i.buffer, func(b buffered) bool { return b.msg == e.Msg && b.KeyRef == k })
		if p.check(i, e, at >= 0, "message %d is not buffered", e.Msg) {
			p.check(i, e, e.At >= i.buffer[at].expires, "message %d expired at %d, its time is %d", e.Msg, e.At, i.buffer[at].expires)
			p.a.deadLetters.expect(i.buffer[at].origin)
			i.unbuffer(k, e.Msg)
		}
	case eventlog.ListenerFull:
		p.took(i, e)
		p.check(i, e, slices.Contains(e.Unsubs, k), "its subscription goes on")
	}
}

// mayWait says that a listener of the key takes part before it is reached, or was reached.
func (i *instance) mayWait(k eventlog.KeyRef) bool {
	if i.plan == nil || !i.plan.known {
		return true
	}
	is := func(n *node) bool {
		return n != nil && n.Kind == eventlog.Listen && n.Topic == k.Topic && n.Key == k.Key
	}
	for _, n := range i.plan.nodes {
		if is(n) && (!n.One || n.SkipTo != "") {
			return true
		}
	}
	for _, t := range i.tasks {
		if n := i.plan.node(t.path); is(n) && (t.status == running || t.status == completed && n.Reprocess) {
			return true
		}
	}
	return false
}

func (i *instance) unbuffer(k eventlog.KeyRef, msg uint64) bool {
	n := len(i.buffer)
	i.buffer = slices.DeleteFunc(i.buffer, func(b buffered) bool { return b.msg == msg && b.KeyRef == k })
	return len(i.buffer) < n
}

func name(k eventlog.KeyRef) string { return fmt.Sprintf("%s %s=%s", k.Topic, k.Key, k.Value) }

func (a *Auditor) note(id string, run, act uint64, k eventlog.KeyRef, f func(*subscription)) {
	h := a.activation(id, run, act, k)
	s := a.subs[h]
	f(&s)
	a.subs[h] = s
}

// after checks what must hold between events: an ended instance has no subscription and no
// message, a waiting listener is subscribed to its key.
func (p *partition) after(i *instance, e *eventlog.Event) {
	if i.frozen {
		return
	}
	if i.status != running {
		p.check(i, e, len(i.subs) == 0, "the instance has ended and is subscribed to %d keys", len(i.subs))
		p.check(i, e, len(i.buffer) == 0, "the instance has ended and keeps %d messages", len(i.buffer))
		return
	}
	for _, t := range i.tasks {
		if t.status != running || t.phase != waiting || t.kind != eventlog.Listen || i.plan == nil {
			continue
		}
		n := i.plan.node(t.path)
		if n == nil {
			continue
		}
		k := eventlog.KeyRef{Topic: n.Topic, Key: n.Key, Value: i.value(t.path)}
		if k.Value == "" {
			continue
		}
		has := slices.ContainsFunc(i.subs, func(s sub) bool { return s.KeyRef == k })
		full := 0
		for _, b := range i.buffer {
			if b.KeyRef == k {
				full++
			}
		}
		p.check(i, e, has || full >= p.a.o.Buffered, "task %s waits for %s and is not subscribed", t.path, name(k))
	}
}
