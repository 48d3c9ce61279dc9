package machine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// call decides a call: first whether it was decided before, protocol rule 8.
func (t *Turn) call(r *eventlog.Request) string {
	s := t.S
	i := s.Instances[r.ID]
	if answer, seen := t.remembered(i, r); seen {
		return answer
	}
	if i != nil && i.Quarantined != "" && r.Type != eventlog.ReleaseInstance {
		return t.refuse(r, InQuarantine)
	}
	switch r.Type {
	case eventlog.StartInstance:
		return t.start(i, r)
	case eventlog.StopInstance:
		switch {
		case i == nil || i.Run == 0:
			return t.keepStop(i, r)
		case r.Definition != "" && r.Definition != i.Definition:
			return t.refuse(r, NotFound)
		case i.Terminal():
			return t.refuse(r, Terminal)
		}
		t.stop(i, &eventlog.Event{Reason: r.Reason, Request: r.Request, Made: r.Made})
		return OK
	case eventlog.RetryInstance:
		return t.retry(i, r)
	case eventlog.DeleteInstance:
		switch {
		case i == nil || i.Run == 0:
			return t.refuse(r, NotFound)
		case !i.Terminal():
			return t.refuse(r, NotEnded)
		}
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceDeleted, Reason: r.Reason, Request: r.Request, Made: r.Made})
		return OK
	}
	return t.release(i, r)
}

// remembered answers a call whose id was seen, or that is too old or too new to be judged.
func (t *Turn) remembered(i *Instance, r *eventlog.Request) (answer string, seen bool) {
	if r.Request == "" {
		return "", false
	}
	s := t.S
	now := max(t.Now, s.At)
	if i != nil && !s.Rules.NoRequestIDs {
		if slices.ContainsFunc(i.Applied, func(a Answer) bool { return a.Request == r.Request }) ||
			slices.ContainsFunc(i.Stops, func(s KeptStop) bool { return s.Request == r.Request }) {
			return OK, true
		}
	}
	if !s.Rules.NoRefusedIDs {
		if a, ok := t.answers[[2]string{r.ID, r.Request}]; ok {
			return a, true
		}
		if i != nil {
			for _, a := range i.Refused {
				if a.Request == r.Request {
					return a.Answer, true
				}
			}
		}
	}
	if s.Rules.NoFloor || r.Made == 0 {
		return "", false
	}
	switch {
	case r.Made > now+aheadLimit:
		return Ahead, true // not remembered: its time will come
	case r.Made <= now-callMemory, i != nil && r.Made <= i.Floor:
		return Expired, true
	}
	return "", false
}

func (t *Turn) start(i *Instance, r *eventlog.Request) string {
	s := t.S
	if i != nil && i.Run > 0 {
		return t.refuse(r, Exists)
	}
	var plan *Plan
	if r.Plan != "" {
		if plan = s.Plans[r.Plan]; plan == nil {
			plan = t.Registry.Plan(r.Plan)
		}
	} else {
		plan = t.Registry.Current(r.Definition)
	}
	if plan == nil {
		return t.refuse(r, UnknownPlan)
	}
	params := r.Params
	if len(params) == 0 {
		params = json.RawMessage("{}")
	}
	if !isObject(params) {
		return t.refuse(r, BadParams)
	}
	if t.tooLarge(params) {
		return t.refuse(r, TooLarge)
	}
	if s.Plans[plan.Hash()] == nil { // protocol rule 13
		t.emit(&eventlog.Event{Type: eventlog.PlanUsed, Plan: plan.Hash(), PlanData: plan.Recorded()})
	}
	e := &eventlog.Event{Type: eventlog.InstanceStarted, Definition: plan.Name, Plan: plan.Hash(), Params: MergePatch(nil, params), Request: r.Request, Made: r.Made, Trace: r.Trace}
	if r.HasKeys {
		e.Keys = sortedKeys(r.Keys)
	} else {
		e.Evaluate = plan.Computes()
	}
	if i == nil {
		i = &Instance{ID: r.ID}
	}
	t.flow(plan, &Instance{}, e).begin(place{n: &plan.root})
	t.transitWith(plan, i, e)
	t.settle(r.ID)
	t.overtaken(r.ID)
	return OK
}

func sortedKeys(keys []eventlog.TaskKey) []eventlog.TaskKey {
	l := slices.Clone(keys)
	slices.SortFunc(l, func(a, b eventlog.TaskKey) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return l
}

// eventOverhead is what an event has beside the parameters, generously.
const eventOverhead = 16 << 10

func (t *Turn) tooLarge(params json.RawMessage) bool {
	return t.MaxEvent > 0 && len(params) > t.MaxEvent-eventOverhead
}

// due is when an attempt or a wait that starts now times out.
func (t *Turn) due(n *Node) int64 {
	if n.Timeout <= 0 {
		return 0
	}
	return max(t.Now, t.S.At) + n.Timeout
}

// attemptDue is when a handler that starts now times out. A listener's time-out is that of
// its wait.
func (t *Turn) attemptDue(n *Node) int64 {
	if n.Kind == eventlog.Listen {
		return 0
	}
	return t.due(n)
}

func (t *Turn) retry(i *Instance, r *eventlog.Request) string {
	switch {
	case i == nil || i.Run == 0:
		return t.refuse(r, NotFound)
	case i.Status != Failure:
		return t.refuse(r, NotFailed)
	}
	plan := t.S.Plans[i.Plan]
	e := &eventlog.Event{Type: eventlog.InstanceRetried, Request: r.Request, Made: r.Made, Reason: r.Reason}
	t.flow(plan, i, e).reopen()
	// A key that was being computed when the instance failed is still unknown.
	e.Evaluate = plan.Computes()
	t.transit(i, e)
	t.settle(r.ID)
	return OK
}

// live is the running task that a result, timer or interruption must prove to be about.
// Protocol rule 10.
func (t *Turn) live(i *Instance, r *eventlog.Request, phase Phase) *Task {
	rules := t.S.Rules
	if !i.active() || i.Run != r.Run && !rules.AnyRun {
		return nil
	}
	k := i.Task(r.Path)
	if k == nil || k.Status != Executing {
		return nil
	}
	if rules.AnyAttempt && r.Type == eventlog.Result {
		return k
	}
	if k.Phase != phase || k.Act != r.Act && !rules.AnyRun || k.Attempt != r.Attempt {
		return nil
	}
	return k
}

func (t *Turn) result(i *Instance, r *eventlog.Request) string {
	k := t.live(i, r, Running)
	if k == nil {
		return Superseded
	}
	plan := t.S.Plans[i.Plan]
	node := plan.Task(r.Path)
	t.checkResult(node, k, r)
	if r.Stop != "" {
		t.stop(i, &eventlog.Event{Reason: r.Stop})
		return OK
	}
	if !r.OK {
		t.failAttempt(i, k, node, r, eventlog.AttemptFailed, r.Error)
		return OK
	}
	e := &eventlog.Event{Type: eventlog.TaskCompleted, Path: r.Path, Act: r.Act, Attempt: r.Attempt, Params: r.Params}
	if len(r.Params) == 2 { // {}
		e.Params = nil
	}
	if k.Kind == eventlog.ForEach && !k.Collect {
		e.Items = r.Items
	}
	t.newKeys(plan, i, e, r)
	if t.continued(plan, i, k, e, r) {
		return OK
	}
	f := t.flow(plan, i, e)
	switch pl := (place{node, r.Path}); {
	case k.Over || node.attached:
	case k.Kind == eventlog.Decide:
		e.Choice = r.Choice
		f.choose(pl, r.Choice)
	case k.Kind == eventlog.Dynamic:
		e.Choices = r.Choices
		f.run(pl)
	case k.Kind == eventlog.ForEach && !k.Collect:
		f.run(pl)
	default:
		f.now[pl.path] = Completed
		f.ended(pl, Completed)
	}
	if k.Kind == eventlog.Command && r.Record != nil {
		e.Sent = &eventlog.Sent{Topic: r.Record.Topic, Key: string(r.Record.Key), NoKey: r.Record.Key == nil, Size: len(r.Record.Value)}
		t.Sendings = append(t.Sendings, Sending{Event: len(t.Events), Record: *r.Record, Path: r.Path})
	}
	t.transit(i, e)
	t.conclude(i, f, "", "")
	return OK
}

// continued lets a task that has not done all of its work go on: a listener waits for another
// message, an Every or a monitor for its next time.
func (t *Turn) continued(plan *Plan, i *Instance, k *Task, e *eventlog.Event, r *eventlog.Request) bool {
	now := max(t.Now, t.S.At)
	switch k.Kind {
	case eventlog.Listen:
		if !r.More || k.Over {
			return false
		}
		e.Type, e.Due = eventlog.ListenContinued, t.due(plan.Task(k.Path))
	case eventlog.Every:
		if !r.More || over(e, i, r.Path, now) {
			return false
		}
		e.Type, e.Due = eventlog.EveryContinued, nextTick(keyAfter(e, i, r.Path), k.Since, now)
	case eventlog.Monitor:
		next := nextAlarm(keyAfter(e, i, r.Path), now)
		if next == 0 {
			return false
		}
		e.Type, e.Due = eventlog.EveryContinued, next
	default:
		return false
	}
	t.transit(i, e)
	t.settle(r.ID)
	return true
}

// checkResult makes a result that can't be recorded a failure.
func (t *Turn) checkResult(node *Node, k *Task, r *eventlog.Request) {
	if !r.OK {
		return
	}
	why := ""
	size := len(r.Params)
	for _, item := range r.Items {
		size += len(item) + 1
		if !isObject(item) {
			why = "an item is no JSON object"
		}
	}
	switch {
	case len(r.Params) > 0 && !isObject(r.Params):
		why = "the handler's change of the parameters is no JSON object"
	case t.MaxEvent > 0 && size > t.MaxEvent-eventOverhead:
		why = fmt.Sprintf("the change of the parameters has %d bytes; an event takes %d: keep large data elsewhere and refer to it", size, t.MaxEvent)
	case r.Record != nil && t.MaxMessage != nil:
		record := len(r.Record.Key) + len(r.Record.Value)
		for _, h := range r.Record.Headers {
			record += len(h.Key) + len(h.Value)
		}
		// The key stands in the event too, where a byte may take six.
		if t.MaxEvent > 0 && size+6*len(r.Record.Key) > t.MaxEvent-eventOverhead {
			why = fmt.Sprintf("the key of the message has %d bytes: keys must be short", len(r.Record.Key))
		} else if size, limit := record, t.MaxMessage(r.Record.Topic); size > limit {
			why = fmt.Sprintf("the message has %d bytes; topic %s takes %d", size, r.Record.Topic, limit)
		}
	case r.Choice != "" && node.Kind == eventlog.Decide && !node.has(r.Choice):
		why = fmt.Sprintf("there is no branch %q; there are %s", r.Choice, branches(node))
	case node.Kind == eventlog.Dynamic:
		for _, choice := range r.Choices {
			if !node.Nodes[0].has(choice) {
				why = fmt.Sprintf("there is no process %q; there are %s", choice, branches(&node.Nodes[0]))
				break
			}
		}
	}
	if why != "" {
		r.OK, r.Error, r.Terminal = false, why, true
	}
}

// has says whether a node of the name is inside.
func (n *Node) has(name string) bool {
	return slices.ContainsFunc(n.Nodes, func(b Node) bool { return b.name() == name })
}

// conclude follows up an event after which the flow may have come to its end.
func (t *Turn) conclude(i *Instance, f *flow, path, why string) {
	switch {
	case i.Stopping:
		if !slices.ContainsFunc(i.Tasks, func(k Task) bool { return k.Status == Executing }) {
			t.transit(i, t.ending(i, &eventlog.Event{Type: eventlog.InstanceStopped}))
		}
	case f.done && i.unfinishedOver():
		t.transit(i, &eventlog.Event{Type: eventlog.FlowEnded})
	case f.done, i.FlowEnded && !f.failed && !i.unfinishedOver():
		t.transit(i, t.ending(i, &eventlog.Event{Type: eventlog.InstanceCompleted}))
	case f.failed:
		// The end of another task may have shown it: one that may fail, or of a run of a ForEach
		// that has ended.
		if k := i.Task(path); k == nil || f.leftBehind(place{f.plan.Node(path), path}, k) {
			path, why = f.culprit()
		}
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceFailed, Path: path, Error: why})
	default:
		t.settle(i.ID)
	}
}

// ending gives an event that ends an instance the time at which that is forgotten.
func (t *Turn) ending(i *Instance, e *eventlog.Event) *eventlog.Event {
	if plan := t.S.Plans[i.Plan]; plan != nil && plan.Retain > 0 {
		e.Due = max(t.Now, t.S.At) + plan.Retain
	}
	return e
}

// stop ends an instance. Where nodes that it is in have on-stop handlers these run first; a
// second stop does not wait for them.
func (t *Turn) stop(i *Instance, e *eventlog.Event) {
	e.Type = eventlog.InstanceStopped
	plan := t.S.Plans[i.Plan]
	if !i.Stopping && plan != nil {
		f := t.flow(plan, i, e)
		for _, k := range i.Tasks {
			pl, ok := plan.place(k.Path)
			if !ok || k.Status != Executing {
				continue
			}
			for n := range pl.n.Attached {
				if pl.n.Attached[n].Kind == eventlog.OnStop {
					f.start(pl.attachment(n))
				}
			}
		}
		if len(e.Starts) > 0 {
			e.Type = eventlog.InstanceStopping
			for _, k := range i.Tasks {
				if k.Status == Executing {
					f.noteAt(k.Path, k.Kind, Stopped)
				}
			}
			t.transit(i, e)
			return
		}
	}
	t.transit(i, t.ending(i, e))
}

// outlived deletes an instance whose time after its end is over.
func (t *Turn) outlived(i *Instance, r *eventlog.Request) string {
	if i == nil || i.Run != r.Run || !i.Terminal() || i.DeleteAt != r.Expires || i.DeleteAt > max(t.Now, t.S.At) {
		return Ignored
	}
	t.transit(i, &eventlog.Event{Type: eventlog.InstanceDeleted})
	return OK
}

// branches names the branches of a Decide.
func branches(n *Node) string {
	names := make([]string, len(n.Nodes))
	for k := range n.Nodes {
		names[k] = n.Nodes[k].name()
	}
	return strings.Join(names, ", ")
}

// keyAfter is a computed value as the event leaves it.
func keyAfter(e *eventlog.Event, i *Instance, path string) string {
	at := i.keyPath(path)
	for _, k := range e.Keys {
		if k.Path == at {
			return k.Value
		}
	}
	return i.KeyValue(path)
}

// newKeys records the keys that came with a result, or that they must be computed again
// because the parameters changed under the handler. Nothing needs them while the instance is
// being stopped.
func (t *Turn) newKeys(plan *Plan, i *Instance, e *eventlog.Event, r *eventlog.Request) {
	if !plan.Computes() || i.Stopping {
		return
	}
	if _, base := i.ParamsAt(r.Path); !r.HasKeys || r.Base != base || i.Evaluate != 0 {
		e.Evaluate = len(e.Params) > 0 || len(e.Items) > 0 || i.Evaluate != 0
		return
	}
	for _, k := range sortedKeys(r.Keys) {
		if i.KeyValue(k.Path) != k.Value {
			e.Keys = append(e.Keys, k)
		}
	}
}

func (t *Turn) evaluated(i *Instance, r *eventlog.Request) string {
	if !i.active() || i.Run != r.Run || i.Evaluate == 0 || i.Evaluate != r.Act {
		return Superseded
	}
	if r.Error != "" && !i.Stopping {
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceFailed, Error: r.Error, Stack: r.Stack})
		return OK
	}
	e := &eventlog.Event{Type: eventlog.KeysEvaluated, Act: r.Act}
	if i.LastParams() != r.Base {
		e.Type, e.Evaluate = eventlog.KeysEvaluated, true // the parameters changed meanwhile
	}
	for _, k := range sortedKeys(r.Keys) {
		if i.KeyValue(k.Path) != k.Value {
			e.Keys = append(e.Keys, k)
		}
	}
	t.transit(i, e)
	t.settle(r.ID)
	return OK
}

// failAttempt ends an attempt without a result: another one later, or the task has failed.
func (t *Turn) failAttempt(i *Instance, k *Task, n *Node, r *eventlog.Request, typ eventlog.Type, why string) {
	e := &eventlog.Event{Type: typ, Path: k.Path, Act: k.Act, Attempt: k.Attempt, Error: why, Stack: r.Stack}
	if n.Retry != nil && k.Attempt < n.Retry.Attempts && !r.Terminal {
		delay := n.Retry.delay(k.Attempt, r.Jitter)
		if r.RetryAfter > 0 {
			delay = r.RetryAfter
		}
		e.Due = max(t.Now, t.S.At) + delay
		t.transit(i, e)
		return
	}
	e.Type = eventlog.TaskFailed
	f := t.flow(t.S.Plans[i.Plan], i, e)
	path := k.Path
	f.now[path] = Failure
	switch {
	case n.attached: // says nothing about the node
	case k.Over:
		f.failed = !n.Continue
	default:
		f.fail(place{n, path})
	}
	t.transit(i, e)
	t.conclude(i, f, path, why)
}

// deadline ends a process whose time is over.
func (t *Turn) deadline(i *Instance, k *Task) string {
	plan := t.S.Plans[i.Plan]
	pl, ok := plan.place(k.Path)
	if !ok {
		return Ignored
	}
	e := &eventlog.Event{Type: eventlog.DeadlinePassed, Path: k.Path, Act: k.Act}
	f := t.flow(plan, i, e)
	if pl.n.DeadlineFails {
		e.Error = "its deadline has passed"
		f.fail(pl)
	} else {
		f.now[pl.path] = Completed
		f.endInside(pl, Skipped)
		f.ended(pl, Completed)
	}
	path := k.Path
	if e.Error == "" {
		path = "" // if the instance failed, then by something else
	}
	t.transit(i, e)
	t.conclude(i, f, path, e.Error)
	return OK
}

func (t *Turn) timer(i *Instance, r *eventlog.Request) string {
	if k := t.live(i, r, Inside); k != nil && k.Due == r.Expires && k.Due > 0 {
		return t.deadline(i, k)
	}
	if k := t.live(i, r, Retrying); k != nil && k.Due == r.Expires {
		n := t.S.Plans[i.Plan].Task(k.Path)
		t.transit(i, &eventlog.Event{Type: eventlog.AttemptStarted, Path: k.Path, Act: k.Act, Attempt: k.Attempt + 1, Due: t.attemptDue(n)})
		return OK
	}
	if k := t.live(i, r, Waiting); k != nil && k.Due == r.Expires && k.Kind != eventlog.Listen {
		n := t.S.Plans[i.Plan].Task(k.Path)
		if k.Kind == eventlog.Every && over(&eventlog.Event{}, i, k.Path, max(t.Now, t.S.At)) {
			e := &eventlog.Event{Type: eventlog.TaskCompleted, Path: k.Path, Act: k.Act, Reason: "its end has come"}
			f := t.flow(t.S.Plans[i.Plan], i, e)
			f.now[k.Path] = Completed
			f.ended(place{n, k.Path}, Completed)
			t.transit(i, e)
			t.conclude(i, f, "", "")
			return OK
		}
		t.transit(i, &eventlog.Event{Type: eventlog.AttemptStarted, Path: k.Path, Act: k.Act, Attempt: 1, Due: t.attemptDue(n)})
		return OK
	}
	if k := t.live(i, r, Waiting); k != nil && k.Due == r.Expires {
		r.Terminal = true
		t.failAttempt(i, k, t.S.Plans[i.Plan].Task(k.Path), r, eventlog.AttemptTimedOut, "timed out waiting for a message")
		return OK
	}
	if k := t.live(i, r, Running); k != nil && (k.Due == r.Expires || t.S.Rules.TimeoutAnyDue) && k.Due > 0 {
		t.failAttempt(i, k, t.S.Plans[i.Plan].Task(k.Path), r, eventlog.AttemptTimedOut, "timed out")
		return OK
	}
	return Ignored
}

// interrupted starts a handler again that a dead worker left running; protocol rule 10.
func (t *Turn) interrupted(i *Instance, r *eventlog.Request) string {
	k := t.live(i, r, Running)
	if k == nil || t.S.Rules.NoInterrupted {
		return Ignored
	}
	n := t.S.Plans[i.Plan].Task(k.Path)
	counts := k.Ran || t.S.Rules.CutCountsAll
	cuts := k.Cuts
	if counts {
		cuts++
	}
	if cuts >= maxCuts || k.Interrupted+1 >= maxInterrupted {
		t.failAttempt(i, k, n, r, eventlog.AttemptFailed, "interrupted: the worker died each time that the handler ran")
		return OK
	}
	t.transit(i, &eventlog.Event{Type: eventlog.AttemptInterrupted, Path: k.Path, Act: k.Act, Attempt: k.Attempt, Due: t.attemptDue(n), Again: counts && !k.Ran})
	return OK
}

func (t *Turn) hasRun(i *Instance, r *eventlog.Request) string {
	k := t.live(i, r, Running)
	if k == nil || k.Ran {
		return Ignored
	}
	t.transit(i, &eventlog.Event{Type: eventlog.AttemptRunning, Path: k.Path, Act: k.Act, Attempt: k.Attempt})
	return OK
}

func (t *Turn) forget(r *eventlog.Request) string {
	i := t.S.Instances[r.ID]
	if i == nil || i.forgetAt() == 0 || i.forgetAt() > max(t.Now, t.S.At) {
		return Ignored
	}
	t.emit(&eventlog.Event{Type: eventlog.AnswersForgotten, ID: r.ID})
	return OK
}
