package machine

import "github.com/godagger/dagger/eventlog"

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
