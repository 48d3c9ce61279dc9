package audit

import (
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// phase of a running task.
type phase byte

const (
	works    phase = iota // its handler runs
	waiting               // for a message or a time
	retrying              // for the time of its next attempt
	inside                // a node of its own does
)

type task struct {
	path    string
	kind    eventlog.Kind
	status  status
	phase   phase
	act     uint64
	attempt int
	due     int64
	ran     bool
	message bool   // a listener failed or was stopped with it: a retry works on it again
	choice  string // of a Decide
}

func (i *instance) task(path string) *task {
	for k := range i.tasks {
		if i.tasks[k].path == path {
			return &i.tasks[k]
		}
	}
	return nil
}

// start arms a task.
func (p *partition) start(i *instance, s eventlog.Start, e *eventlog.Event) {
	t := i.task(s.Path)
	if i.plan != nil && i.plan.known {
		n := i.plan.nodes[s.Path]
		if !p.check(i, e, n != nil && n.Kind == s.Kind && n.Kind != eventlog.Process, "starts %s %s, which is not in the plan", s.Kind, s.Path) {
			return
		}
	}
	if t == nil {
		i.tasks = append(i.tasks, task{path: s.Path, kind: s.Kind})
		t = &i.tasks[len(i.tasks)-1]
	} else {
		p.check(i, e, t.status != running || e.Type == eventlog.InstanceReset, "starts task %s, which runs", s.Path)
		p.check(i, e, t.status != completed, "starts task %s, which has completed", s.Path)
	}
	t.status, t.act, t.due, t.ran, t.choice = running, e.Seq, s.Due, false, ""
	switch {
	case s.Kind == eventlog.Parallel:
		t.phase, t.attempt = inside, 0
	case s.Kind == eventlog.At, s.Kind == eventlog.Listen && !t.message:
		t.phase, t.attempt = waiting, 0
	default:
		t.phase, t.attempt = works, 1
	}
}

// task checks an event of a task: it must be about the live attempt, in the right phase, and
// not before its time.
func (p *partition) task(i *instance, e *eventlog.Event) {
	switch e.Type {
	case eventlog.KeysEvaluated:
		p.check(i, e, i.evaluate != 0 && i.evaluate == e.Act, "keys were asked for by seq %d, not by %d", i.evaluate, e.Act)
		return
	case eventlog.AttemptStarted, eventlog.AttemptRunning, eventlog.AttemptInterrupted, eventlog.AttemptFailed, eventlog.AttemptTimedOut,
		eventlog.TaskCompleted, eventlog.TaskFailed, eventlog.ListenContinued, eventlog.EveryContinued, eventlog.MessageReceived:
	default:
		return
	}
	t := i.task(e.Path)
	if !p.check(i, e, t != nil, "task %s was never started", e.Path) {
		return
	}
	if !p.check(i, e, t.status == running, "task %s does not run", e.Path) {
		return
	}
	if e.Type == eventlog.MessageReceived {
		p.received(i, t, e)
		return
	}
	p.check(i, e, e.Act == t.act, "activation %d of task %s, the live one is %d", e.Act, e.Path, t.act)
	attempt := t.attempt
	if e.Type == eventlog.AttemptStarted {
		attempt++
	}
	p.check(i, e, e.Attempt == attempt, "attempt %d of task %s, the live one is %d", e.Attempt, e.Path, t.attempt)
	switch e.Type {
	case eventlog.AttemptStarted:
		if t.phase == waiting {
			p.woken(i, t, e)
		} else {
			p.check(i, e, t.phase == retrying, "task %s has no attempt to come", e.Path)
			p.check(i, e, e.At >= t.due, "task %s: attempt %d started at %d, its time is %d", e.Path, e.Attempt, e.At, t.due)
		}
		t.phase, t.attempt, t.due, t.ran = works, e.Attempt, e.Due, false
		return
	case eventlog.TaskFailed:
		p.check(i, e, t.phase == works || t.phase == waiting && t.kind == eventlog.Listen, "the handler of task %s does not run", e.Path)
		p.check(i, e, t.phase != waiting || t.due > 0 && e.At >= t.due, "the wait of task %s ended at %d, its time is %d", e.Path, e.At, t.due)
		*t = task{path: t.path, kind: t.kind, status: failed, message: t.message}
		return
	}
	if e.Type == eventlog.TaskCompleted && t.phase == waiting {
		p.over(i, t, e)
		*t = task{path: t.path, kind: t.kind, status: completed}
		return
	}
	p.check(i, e, t.phase == works, "the handler of task %s does not run", e.Path)
	switch e.Type {
	case eventlog.AttemptRunning:
		p.check(i, e, !t.ran, "task %s: it was said before", e.Path)
		t.ran = true
	case eventlog.AttemptInterrupted:
		t.ran, t.due = false, e.Due
	case eventlog.AttemptFailed, eventlog.AttemptTimedOut:
		if e.Type == eventlog.AttemptTimedOut {
			p.check(i, e, t.due > 0 && e.At >= t.due, "task %s timed out at %d, its time is %d", e.Path, e.At, t.due)
		}
		p.check(i, e, e.Due >= e.At, "the next attempt of task %s is due at %d, before the event", e.Path, e.Due)
		t.phase, t.due, t.ran = retrying, e.Due, false
	case eventlog.ListenContinued:
		p.check(i, e, t.kind == eventlog.Listen, "task %s is no listener", e.Path)
		t.phase, t.act, t.attempt, t.due, t.message = waiting, e.Seq, 0, e.Due, false
	case eventlog.EveryContinued:
		p.check(i, e, t.kind == eventlog.Every, "task %s is no Every", e.Path)
		p.check(i, e, e.Due == 0 || e.Due >= e.At, "the next run of task %s is at %d, before the event", e.Path, e.Due)
		t.phase, t.act, t.attempt, t.due = waiting, e.Seq, 0, e.Due
	case eventlog.TaskCompleted:
		p.check(i, e, e.Sent == nil || t.kind == eventlog.Command, "task %s is no Command", e.Path)
		*t = task{path: t.path, kind: t.kind, status: completed}
		if e.Choice != "" {
			p.chosen(i, t, e)
		}
	}
}

// chosen checks that a Decide names one of its branches; it ends with the branch.
func (p *partition) chosen(i *instance, t *task, e *eventlog.Event) {
	t.status, t.phase, t.choice = running, inside, e.Choice
	if p.check(i, e, t.kind == eventlog.Decide, "task %s has no branches", e.Path) && i.plan != nil && i.plan.known {
		n := i.plan.nodes[e.Path]
		p.check(i, e, n != nil && slices.ContainsFunc(n.Nodes, func(b node) bool { return b.name() == e.Choice }), "task %s has no branch %q", e.Path, e.Choice)
	}
}

// woken checks that a task that waits for a time does not run before it.
func (p *partition) woken(i *instance, t *task, e *eventlog.Event) {
	at := t.due
	if t.kind == eventlog.At {
		at = number(i.key(t.path))
		p.check(i, e, at > 0, "task %s runs without a time", t.path)
	}
	p.check(i, e, t.kind == eventlog.At || t.kind == eventlog.Every, "task %s has no attempt to come", t.path)
	p.check(i, e, e.At >= at, "task %s runs at %d, its time is %d", t.path, e.At, at)
}

// over checks that the end of an Every has come.
func (p *partition) over(i *instance, t *task, e *eventlog.Event) {
	_, until, _ := strings.Cut(i.key(t.path), "/")
	p.check(i, e, t.kind == eventlog.Every && until != "" && e.At >= number(until), "task %s ends while it waits, and its end %q has not come", t.path, until)
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// received checks that a listener takes a message that it waits for.
func (p *partition) received(i *instance, t *task, e *eventlog.Event) {
	p.check(i, e, t.kind == eventlog.Listen && t.phase == waiting, "task %s does not wait", e.Path)
	p.check(i, e, i.evaluate == 0, "task %s takes a message while its key is being computed", e.Path)
	p.check(i, e, i.key(e.Path) == e.Value, "task %s takes a message of %q, its key is %q", e.Path, e.Value, i.key(e.Path))
	t.phase, t.act, t.attempt, t.due, t.ran, t.message = works, e.Seq, 1, e.Due, false, true
}
