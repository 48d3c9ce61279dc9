package machine

import (
	"encoding/json"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// quarantine freezes an instance whose fold or decision panicked; protocol rule 12.
func (t *Turn) quarantine(r *eventlog.Request) string {
	i := t.S.Instances[r.ID]
	if i == nil {
		i = &Instance{ID: r.ID}
	}
	if i.Quarantined != "" && t.S.Frozen[r.ID] == "" { // the fold of its reset may fail, too
		return Ignored
	}
	t.emit(&eventlog.Event{Type: eventlog.InstanceQuarantined, ID: r.ID, Seq: i.Seq + 1, Run: i.Run, Act: i.Seq, Reason: r.Reason})
	return OK
}

// hold keeps what a quarantined instance is still owed; calls and timers are not.
func (t *Turn) hold(i *Instance, r *eventlog.Request) string {
	switch r.Type {
	case eventlog.DeliverTo, eventlog.Result:
		if t.S.Rules.NoHold {
			return Ignored
		}
		held := *r
		held.Source, held.Mark = nil, nil
		held.Oldest = true // a held delivery counts as taken
		t.emit(&eventlog.Event{Type: eventlog.RequestHeld, ID: i.ID, Msg: r.Msg, Held: &held, Local: r.Type == eventlog.DeliverTo && t.S.local(r.Value)})
		return Held
	}
	return Ignored
}

// release lets a quarantined instance go on from a whole state: the one given, or the last
// good one. Running handlers start under a new activation.
func (t *Turn) release(i *Instance, r *eventlog.Request) string {
	switch {
	case i == nil:
		return t.refuse(r, NotFound)
	case i.Quarantined == "":
		return t.refuse(r, NotInQuarantine)
	}
	body := i.Body
	if len(r.State) > 0 {
		body = Body{}
		if json.Unmarshal(r.State, &body) != nil || body.Definition == "" || len(body.Params) > 0 && !isObject(body.Params) {
			return t.refuse(r, BadState)
		}
	}
	plan := t.S.Plans[body.Plan]
	if i.Run > 0 && !body.fits(plan) || i.Run == 0 && len(r.State) > 0 {
		return t.refuse(r, BadState)
	}
	e := &eventlog.Event{Type: eventlog.InstanceReset, Request: r.Request, Made: r.Made, Caller: r.Caller, Reason: r.Reason}
	f := t.flow(plan, &Instance{Body: body}, e)
	executing := false
	for _, k := range body.Tasks {
		if k.Status != Executing || k.Phase == Inside {
			continue
		}
		pl, _ := plan.place(k.Path)
		executing = executing || body.Stopping || !pl.n.attached && !k.Over
		if k.Phase != Waiting {
			f.restart(pl, &k)
		}
	}
	if body.Status == Executing && !body.Stopping && f.again() {
		executing = true
	}
	if body.Status == Executing && !body.Stopping && !executing {
		// The fold failed between the end of a task and what follows from it.
		f.done = f.resume(place{n: &plan.root})
	}
	if len(r.State) > 0 && body.Status == Executing { // the keys may be others now
		e.Evaluate = plan.Computes()
	}
	state, err := json.Marshal(body)
	if err != nil {
		return t.refuse(r, BadState)
	}
	e.State = state
	t.transitWith(plan, i, e)
	switch {
	case t.overtaken(r.ID): // protocol rule 19: by a stop that was kept before it started
	case body.Status == Executing && body.Stopping && !executing:
		t.transitWith(plan, i, t.ending(i, &eventlog.Event{Type: eventlog.InstanceStopped}))
	case f.done && body.FlowEnded && i.unfinishedOver():
	case f.done && i.unfinishedOver():
		t.transitWith(plan, i, &eventlog.Event{Type: eventlog.FlowEnded})
	case f.done:
		t.transitWith(plan, i, t.ending(i, &eventlog.Event{Type: eventlog.InstanceCompleted}))
	}
	t.settle(r.ID)
	for i = t.S.Instances[r.ID]; len(i.Held) > 0 && i.Quarantined == "" && t.S.Frozen[r.ID] == ""; {
		held := i.Held[0]
		t.emit(&eventlog.Event{Type: eventlog.RequestReleased, ID: r.ID})
		t.Decide(&held)
	}
	return OK
}

// fits says whether an instance can go on from the body: its tasks are those of the plan, in
// states that their kinds have, and none executes when the instance has ended.
func (b *Body) fits(plan *Plan) bool {
	if plan == nil || plan.Name != b.Definition {
		return false
	}
	executing := false
	for _, k := range b.Tasks {
		n := plan.Node(k.Path)
		if n == nil || n.Kind != k.Kind {
			return false
		}
		switch k.Status {
		case Executing:
			executing = true
			if !n.can(k.Phase) {
				return false
			}
		case Completed, Failure, Skipped, Stopped:
		default:
			return false
		}
	}
	switch b.Status {
	case Executing:
		return true
	case Failure: // a retry starts what failed or was stopped
		return !executing && slices.ContainsFunc(b.Tasks, func(k Task) bool { return k.Status == Failure || k.Status == Stopped })
	case Completed, Stopped:
		return !executing
	}
	return false
}

// can says whether an executing node of the kind may be in the phase.
func (n *Node) can(p Phase) bool {
	switch p {
	case Waiting:
		return n.Kind == eventlog.Listen || n.Kind == eventlog.At || n.Kind == eventlog.Every || n.Kind == eventlog.Monitor
	case Inside:
		return n.isComposite() // a process only where it is tracked
	}
	return n.Kind != eventlog.Process && n.Kind != eventlog.Parallel
}

// reset replaces the body; the mailbox stays as it is.
func (i *Instance) reset(e *eventlog.Event) {
	var body Body
	if err := json.Unmarshal(e.State, &body); err != nil {
		panic("machine: state of InstanceReset: " + err.Error())
	}
	i.Body, i.Quarantined = body, ""
}
