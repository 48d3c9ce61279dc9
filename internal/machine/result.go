package machine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

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

// branches names the branches of a Decide.
func branches(n *Node) string {
	names := make([]string, len(n.Nodes))
	for k := range n.Nodes {
		names[k] = n.Nodes[k].name()
	}
	return strings.Join(names, ", ")
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
