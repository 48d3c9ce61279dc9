package machine

import (
	"encoding/json"

	"github.com/godagger/dagger/eventlog"
)

// quarantine freezes an instance whose fold or decision panicked; protocol rule 12.
func (t *Turn) quarantine(r *eventlog.Request) string {
	i := t.S.Instances[r.ID]
	if i == nil {
		i = &Instance{ID: r.ID}
	}
	if i.Quarantined != "" {
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
	e := &eventlog.Event{Type: eventlog.InstanceReset, Request: r.Request, Made: r.Made, Reason: r.Reason}
	for _, k := range body.Tasks {
		if k.Status != Executing {
			continue
		}
		n := (*Node)(nil)
		if plan != nil {
			n = plan.Task(k.Path)
		}
		if n == nil {
			return t.refuse(r, BadState)
		}
		if k.Phase != Waiting {
			e.Starts = append(e.Starts, t.starts(n)...)
		}
	}
	state, err := json.Marshal(body)
	if err != nil {
		return t.refuse(r, BadState)
	}
	e.State = state
	t.transitWith(plan, i, e)
	t.settle(r.ID)
	for i = t.S.Instances[r.ID]; len(i.Held) > 0 && i.Quarantined == ""; {
		held := i.Held[0]
		t.emit(&eventlog.Event{Type: eventlog.RequestReleased, ID: r.ID})
		t.Decide(&held)
	}
	return OK
}

// reset replaces the body; the mailbox stays as it is.
func (i *Instance) reset(e *eventlog.Event) {
	var body Body
	if err := json.Unmarshal(e.State, &body); err != nil {
		panic("machine: state of InstanceReset: " + err.Error())
	}
	i.Body, i.Quarantined = body, ""
}
