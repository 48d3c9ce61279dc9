package machine

import "github.com/godagger/dagger/eventlog"

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
