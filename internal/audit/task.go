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
	message bool     // a listener failed or was stopped with it: a retry works on it again
	choice  string   // of a Decide
	choices []string // of a Dynamic
	items   []status // of the runs of a ForEach
	collect bool     // the handler of a ForEach gets its items
	over    bool     // the flow has gone on behind it: the listener works again
	late    status   // of a node whose deadline has passed
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
	if i.plan != nil && i.plan.known {
		n := i.plan.node(s.Path)
		if !p.check(i, e, n != nil && n.Kind == s.Kind && (n.Kind != eventlog.Process || n.tracked()), "starts %s %s, which is not in the plan", s.Kind, s.Path) {
			return
		}
		p.check(i, e, s.Kind != eventlog.OnStop || i.stopping || e.Type == eventlog.InstanceStopping, "starts %s, and nothing is stopped", s.Path)
		p.check(i, e, !s.Collect || n.Collect, "starts the handler of the items of %s, which has none", s.Path)
	}
	if !p.reach(i, s.Path, e) {
		return
	}
	t := i.task(s.Path)
	if t == nil {
		i.tasks = append(i.tasks, task{path: s.Path, kind: s.Kind})
		t = &i.tasks[len(i.tasks)-1]
	} else {
		into := slices.Contains(i.way.enters, s.Path) // it failed or had completed, and the flow goes back into it
		goes := s.Collect && t.phase == inside && t.kind == eventlog.ForEach || into
		p.check(i, e, t.status != running || goes || e.Type == eventlog.InstanceReset, "starts task %s, which runs", s.Path)
		again := s.Collect || s.Kind == eventlog.Monitor || s.Kind == eventlog.OnStop || into || i.loose && s.Kind == eventlog.Process
		p.check(i, e, t.status != completed || again, "starts task %s, which has completed", s.Path)
	}
	t.status, t.act, t.due, t.ran, t.choice = running, e.Seq, s.Due, false, ""
	t.choices, t.collect, t.late = nil, s.Collect, none
	switch {
	case s.Kind == eventlog.Parallel, s.Kind == eventlog.Process:
		t.phase, t.attempt = inside, 0
	case s.Kind == eventlog.At, s.Kind == eventlog.Monitor, s.Kind == eventlog.Listen && !t.message:
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
		eventlog.TaskCompleted, eventlog.TaskFailed, eventlog.ListenContinued, eventlog.EveryContinued, eventlog.MessageReceived, eventlog.DeadlinePassed:
	default:
		return
	}
	t := i.task(e.Path)
	if !p.check(i, e, t != nil, "task %s was never started", e.Path) {
		return
	}
	if e.Type == eventlog.MessageReceived && t.status == completed && i.plan != nil {
		n := i.plan.node(e.Path)
		p.check(i, e, n != nil && (n.Reprocess || !i.plan.known), "task %s does not run", e.Path)
		t.over, t.phase = true, waiting
		p.received(i, t, e)
		return
	}
	if !p.check(i, e, t.status == running, "task %s does not run", e.Path) {
		return
	}
	if e.Type == eventlog.MessageReceived {
		p.received(i, t, e)
		return
	}
	p.check(i, e, !i.stopping || t.kind == eventlog.OnStop, "the instance is being stopped")
	if e.Type == eventlog.DeadlinePassed {
		p.deadline(i, t, e)
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
		*t = task{path: t.path, kind: t.kind, status: failed, message: t.message, items: t.items, collect: t.collect, over: t.over}
		p.jumped(i, e)
		return
	}
	if e.Type == eventlog.TaskCompleted && t.phase == waiting {
		p.over(i, t, e)
		*t = task{path: t.path, kind: t.kind, status: completed}
		p.jumped(i, e)
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
		p.check(i, e, t.kind == eventlog.Every || t.kind == eventlog.Monitor, "task %s is no Every", e.Path)
		p.check(i, e, e.Due == 0 || e.Due >= e.At, "the next run of task %s is at %d, before the event", e.Path, e.Due)
		t.phase, t.act, t.attempt, t.due = waiting, e.Seq, 0, e.Due
	case eventlog.TaskCompleted:
		p.check(i, e, e.Sent == nil || t.kind == eventlog.Command, "task %s is no Command", e.Path)
		collected := t.collect && t.kind == eventlog.ForEach
		*t = task{path: t.path, kind: t.kind, status: completed, items: t.items, collect: t.collect, over: t.over}
		switch {
		case e.Choice != "" && e.Reason != "": // a join failed with it
		case e.Choice != "":
			p.chosen(i, t, e)
		case len(e.Choices) > 0:
			p.choices(i, t, e)
		case len(e.Items) > 0:
			p.items(i, t, e)
		}
		if collected {
			i.forgetItems(e.Path)
		}
		p.jumped(i, e)
	}
}

// choices checks that a Dynamic names processes that it has; it ends with the last of them.
func (p *partition) choices(i *instance, t *task, e *eventlog.Event) {
	t.status, t.phase, t.choices = running, inside, slices.Clone(e.Choices)
	if !p.check(i, e, t.kind == eventlog.Dynamic, "task %s has no processes to choose", e.Path) || i.plan == nil || !i.plan.known {
		return
	}
	n := i.plan.node(e.Path)
	for _, c := range e.Choices {
		p.check(i, e, n != nil && n.chosen(c) != nil, "task %s has no process %q", e.Path, c)
	}
}

// items takes the runs of a ForEach.
func (p *partition) items(i *instance, t *task, e *eventlog.Event) {
	if p.check(i, e, t.kind == eventlog.ForEach, "task %s has no runs", e.Path) {
		i.forgetItems(e.Path) // of an earlier try
		t = i.task(e.Path)
		t.status, t.phase, t.items = running, inside, make([]status, len(e.Items))
	}
}

// deadline checks that the time of a process is over.
func (p *partition) deadline(i *instance, t *task, e *eventlog.Event) {
	p.check(i, e, t.phase == inside, "task %s has no deadline", e.Path)
	p.check(i, e, e.Act == t.act, "activation %d of %s, the live one is %d", e.Act, e.Path, t.act)
	if i.plan != nil && i.plan.known {
		n := i.plan.node(e.Path)
		if p.check(i, e, n != nil && (n.Deadline > 0 || n.DeadlineAt), "%s has no deadline", e.Path) {
			due := t.due
			if n.DeadlineAt {
				due = number(i.value(e.Path))
			}
			p.check(i, e, n.DeadlineAt && n.Deadline > 0 || due > 0 && e.At >= due, "the deadline of %s passed at %d, its time is %d", e.Path, e.At, due)
			p.check(i, e, (e.Error != "") == n.DeadlineFails, "%s does not end with its deadline as it should", e.Path)
		}
	}
	s := completed
	if e.Error != "" {
		s = failed
	}
	*t = task{path: t.path, kind: t.kind, status: s, late: s}
	p.jumped(i, e)
}

// chosen checks that a Decide names one of its branches; it ends with the branch.
func (p *partition) chosen(i *instance, t *task, e *eventlog.Event) {
	t.status, t.phase, t.choice = running, inside, e.Choice
	if p.check(i, e, t.kind == eventlog.Decide, "task %s has no branches", e.Path) && i.plan != nil && i.plan.known {
		n := i.plan.node(e.Path)
		p.check(i, e, n != nil && slices.ContainsFunc(n.Nodes, func(b node) bool { return b.name() == e.Choice }), "task %s has no branch %q", e.Path, e.Choice)
	}
}

// woken checks that a task that waits for a time does not run before it.
func (p *partition) woken(i *instance, t *task, e *eventlog.Event) {
	at := t.due
	if t.kind == eventlog.At || t.kind == eventlog.Monitor && at == 0 {
		first, _, _ := strings.Cut(i.value(t.path), "/")
		at = number(first)
		p.check(i, e, at > 0, "task %s runs without a time", t.path)
	}
	p.check(i, e, t.kind == eventlog.At || t.kind == eventlog.Monitor || t.kind == eventlog.Every, "task %s has no attempt to come", t.path)
	p.check(i, e, e.At >= at, "task %s runs at %d, its time is %d", t.path, e.At, at)
}

// over checks that the end of an Every has come.
func (p *partition) over(i *instance, t *task, e *eventlog.Event) {
	_, until, _ := strings.Cut(i.value(t.path), "/")
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
	p.check(i, e, i.value(e.Path) == e.Value, "task %s takes a message of %q, its key is %q", e.Path, e.Value, i.value(e.Path))
	p.check(i, e, !i.stopping && !i.flowEnded, "the instance takes no more messages")
	t.status, t.phase, t.act, t.attempt, t.due, t.ran, t.message = running, works, e.Seq, 1, e.Due, false, true
}
