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
	e := &eventlog.Event{Type: eventlog.InstanceReset, Request: r.Request, Made: r.Made, Reason: r.Reason}
	for _, k := range body.Tasks {
		if k.Status == Executing && k.Phase != Waiting {
			e.Starts = append(e.Starts, t.starts(plan.Task(k.Path))...)
		}
	}
	// The fold may have failed between the end of a task and what follows from it.
	next, between := body.between(plan)
	if between {
		e.Starts = t.starts(next)
	}
	if len(r.State) > 0 && body.Status == Executing { // the keys may be others now
		e.Evaluate = plan.HasListeners()
	}
	state, err := json.Marshal(body)
	if err != nil {
		return t.refuse(r, BadState)
	}
	e.State = state
	t.transitWith(plan, i, e)
	if between && next == nil {
		t.transitWith(plan, i, &eventlog.Event{Type: eventlog.InstanceCompleted})
	}
	t.settle(r.ID)
	for i = t.S.Instances[r.ID]; len(i.Held) > 0 && i.Quarantined == "" && t.S.Frozen[r.ID] == ""; {
		held := i.Held[0]
		t.emit(&eventlog.Event{Type: eventlog.RequestReleased, ID: r.ID})
		t.Decide(&held)
	}
	return OK
}

// fits says whether an instance can go on from the body: its tasks are those of the plan, and
// at most one of them executes, or none when the instance has ended.
func (b *Body) fits(plan *Plan) bool {
	if plan == nil {
		return false
	}
	running := 0
	for _, k := range b.Tasks {
		n := plan.Task(k.Path)
		if n == nil || n.Kind != k.Kind || k.Phase == Waiting && k.Kind != eventlog.Listen {
			return false
		}
		switch k.Status {
		case Executing:
			running++
		case Completed, Failure, Skipped, Stopped:
		default:
			return false
		}
	}
	switch b.Status {
	case Executing:
		return running <= 1
	case Failure: // a retry starts what failed or was stopped
		return running == 0 && slices.ContainsFunc(b.Tasks, func(k Task) bool { return k.Status == Failure || k.Status == Stopped })
	case Completed, Stopped:
		return running == 0
	}
	return false
}

// between says that the instance executes and none of its tasks does, and which comes next;
// nil after the last.
func (b *Body) between(plan *Plan) (next *Node, yes bool) {
	if b.Status != Executing || slices.ContainsFunc(b.Tasks, func(k Task) bool { return k.Status == Executing }) {
		return nil, false
	}
	for _, n := range plan.leaves {
		if !slices.ContainsFunc(b.Tasks, func(k Task) bool { return k.Path == n.Path && (k.Status == Completed || k.Status == Skipped) }) {
			return n, true
		}
	}
	return nil, true
}

// reset replaces the body; the mailbox stays as it is.
func (i *Instance) reset(e *eventlog.Event) {
	var body Body
	if err := json.Unmarshal(e.State, &body); err != nil {
		panic("machine: state of InstanceReset: " + err.Error())
	}
	i.Body, i.Quarantined = body, ""
}
