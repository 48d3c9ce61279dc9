package machine

import (
	"slices"

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
		t.stop(i, &eventlog.Event{Reason: r.Reason, Request: r.Request, Made: r.Made, Caller: r.Caller})
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
		t.transit(i, &eventlog.Event{Type: eventlog.InstanceDeleted, Reason: r.Reason, Request: r.Request, Made: r.Made, Caller: r.Caller})
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

func (t *Turn) retry(i *Instance, r *eventlog.Request) string {
	switch {
	case i == nil || i.Run == 0:
		return t.refuse(r, NotFound)
	case i.Status != Failure:
		return t.refuse(r, NotFailed)
	}
	plan := t.S.Plans[i.Plan]
	e := &eventlog.Event{Type: eventlog.InstanceRetried, Request: r.Request, Made: r.Made, Caller: r.Caller, Reason: r.Reason}
	t.flow(plan, i, e).reopen()
	// A key that was being computed when the instance failed is still unknown.
	e.Evaluate = plan.Computes()
	t.transit(i, e)
	t.settle(r.ID)
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
