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
		case i == nil || i.Run == 0, r.Definition != "" && r.Definition != i.Definition:
			return t.refuse(r, NotFound)
		case i.Terminal():
			return t.refuse(r, Terminal)
		}
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceStopped, Reason: r.Reason, Request: r.Request, Made: r.Made})
		return OK
	case eventlog.RetryInstance:
		return t.retry(i, r)
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
		if slices.ContainsFunc(i.Applied, func(a Answer) bool { return a.Request == r.Request }) {
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
	e := &eventlog.Event{Type: eventlog.InstanceStarted, Definition: plan.Name, Plan: plan.Hash(), Params: MergePatch(nil, params), Request: r.Request, Made: r.Made}
	if r.HasKeys {
		e.Keys = sortedKeys(r.Keys)
	} else {
		e.Evaluate = plan.Computes()
	}
	if i == nil {
		i = &Instance{ID: r.ID}
	}
	t.flow(plan, &Instance{}, e).begin(&plan.root)
	t.transitWith(plan, i, e)
	t.settle(r.ID)
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
	if r.OK && len(r.Params) > 0 && !isObject(r.Params) {
		r.OK, r.Error, r.Terminal = false, "the handler's change of the parameters is no JSON object", true
	}
	if r.OK && t.tooLarge(r.Params) {
		r.OK, r.Error, r.Terminal = false, fmt.Sprintf("the change of the parameters has %d bytes; an event takes %d: keep large data elsewhere and refer to it", len(r.Params), t.MaxEvent), true
	}
	if r.OK && r.Record != nil && t.MaxMessage != nil {
		if size, limit := len(r.Record.Key)+len(r.Record.Value), t.MaxMessage(r.Record.Topic); size > limit {
			r.OK, r.Error, r.Terminal = false, fmt.Sprintf("the message has %d bytes; topic %s takes %d", size, r.Record.Topic, limit), true
		}
	}
	if r.OK && r.Choice != "" && node.Kind == eventlog.Decide && !slices.ContainsFunc(node.Nodes, func(b Node) bool { return b.name() == r.Choice }) {
		r.OK, r.Error, r.Terminal = false, fmt.Sprintf("there is no branch %q; there are %s", r.Choice, branches(node)), true
	}
	if !r.OK {
		t.failAttempt(i, k, node, r, eventlog.AttemptFailed, r.Error)
		return OK
	}
	e := &eventlog.Event{Type: eventlog.TaskCompleted, Path: r.Path, Act: r.Act, Attempt: r.Attempt, Params: r.Params}
	if len(r.Params) == 2 { // {}
		e.Params = nil
	}
	t.newKeys(plan, i, e, r)
	if r.More && k.Kind == eventlog.Listen {
		e.Type, e.Due = eventlog.ListenContinued, t.due(node)
		t.transit(i, e)
		t.settle(r.ID)
		return OK
	}
	if r.More && k.Kind == eventlog.Every && !over(e, i, r.Path, max(t.Now, t.S.At)) {
		e.Type, e.Due = eventlog.EveryContinued, nextTick(keyAfter(e, i, r.Path), k.Since, max(t.Now, t.S.At))
		t.transit(i, e)
		t.settle(r.ID)
		return OK
	}
	f := t.flow(plan, i, e)
	if k.Kind == eventlog.Decide {
		e.Choice = r.Choice
		f.choose(node, r.Choice)
	} else {
		f.ended(node, Completed)
	}
	if k.Kind == eventlog.Command && r.Record != nil {
		e.Sent = &eventlog.Sent{Topic: r.Record.Topic, Key: string(r.Record.Key), NoKey: r.Record.Key == nil, Size: len(r.Record.Value)}
		t.Sendings = append(t.Sendings, Sending{Event: len(t.Events), Record: *r.Record, Path: r.Path})
	}
	t.transit(i, e)
	t.conclude(i, f, "", "")
	return OK
}

// conclude follows up an event after which the flow may have come to its end.
func (t *Turn) conclude(i *Instance, f *flow, path, why string) {
	switch {
	case f.done:
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceCompleted})
	case f.failed:
		if path == "" { // the end of another task showed it
			path, why = f.culprit()
		}
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceFailed, Path: path, Error: why})
	default:
		t.settle(i.ID)
	}
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
	for _, k := range e.Keys {
		if k.Path == path {
			return k.Value
		}
	}
	return i.KeyValue(path)
}

// over says that an Every has come to its end.
func over(e *eventlog.Event, i *Instance, path string, now int64) bool {
	_, until := parseEvery(keyAfter(e, i, path))
	return until > 0 && now >= until
}

// newKeys records the keys that came with a result, or that they must be computed again
// because the parameters changed under the handler.
func (t *Turn) newKeys(plan *Plan, i *Instance, e *eventlog.Event, r *eventlog.Request) {
	if !plan.Computes() {
		return
	}
	if !r.HasKeys || r.Base != i.ParamsSeq || i.Evaluate != 0 {
		e.Evaluate = len(e.Params) > 0 || i.Evaluate != 0
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
	if r.Error != "" {
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceFailed, Error: r.Error, Stack: r.Stack})
		return OK
	}
	e := &eventlog.Event{Type: eventlog.KeysEvaluated, Act: r.Act}
	if i.ParamsSeq != r.Base {
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
	f.now[n.Path] = Failure
	f.fail(n)
	path := k.Path
	t.transit(i, e)
	t.conclude(i, f, path, why)
}

func (t *Turn) timer(i *Instance, r *eventlog.Request) string {
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
			f.ended(n, Completed)
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
	if i := t.S.Instances[r.ID]; i == nil || len(i.Refused) == 0 || i.Refused[0].At > max(t.Now, t.S.At)-answerMemory {
		return Ignored
	}
	t.emit(&eventlog.Event{Type: eventlog.AnswersForgotten, ID: r.ID})
	return OK
}
