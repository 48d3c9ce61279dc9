package machine

import (
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// flow works out what follows when a node ends, and writes it into the event: what starts
// (Event.Starts) and which other nodes change their status with it (Event.Ends). The plan is
// a tree; an ended node tells its parent, which begins the next one, waits for the others, or
// ends itself.
type flow struct {
	t      *Turn
	plan   *Plan
	i      *Instance
	e      *eventlog.Event
	now    map[string]Status // of nodes, as this event leaves them
	done   bool              // the last node has ended
	failed bool              // a failure that nothing absorbs
}

func (t *Turn) flow(plan *Plan, i *Instance, e *eventlog.Event) *flow {
	return &flow{t: t, plan: plan, i: i, e: e, now: map[string]Status{}}
}

// status of a node; "" when it was not reached.
func (f *flow) status(n *Node) Status {
	if s, ok := f.now[n.Path]; ok {
		return s
	}
	if k := f.i.Task(n.Path); k != nil {
		return k.Status
	}
	return ""
}

// finished says that a node of a Parallel has ended, one way or the other.
func (f *flow) finished(n *Node) bool {
	switch f.status(n) {
	case Completed, Skipped, Failure:
		return true
	}
	return false
}

func (f *flow) begin(n *Node) {
	switch n.Kind {
	case eventlog.Process:
		if s := f.status(n); s != "" && s != Executing { // it ended in an earlier try
			f.note(n, Executing)
		}
		f.begin(&n.Nodes[0])
	case eventlog.Parallel:
		f.start(n)
		for k := range n.Nodes {
			f.begin(&n.Nodes[k])
		}
	default:
		f.start(n)
	}
}

func (f *flow) start(n *Node) {
	due := int64(0)
	if n.Kind != eventlog.Parallel && n.Kind != eventlog.At {
		due = f.t.due(n)
	}
	f.e.Starts = append(f.e.Starts, eventlog.Start{Path: n.Path, Kind: n.Kind, Due: due})
	f.now[n.Path] = Executing
}

// note records the status of a node that the event is not itself about.
func (f *flow) note(n *Node, s Status) {
	f.now[n.Path] = s
	for k := range f.e.Ends {
		if f.e.Ends[k].Path == n.Path {
			f.e.Ends[k].Status = string(s)
			return
		}
	}
	f.e.Ends = append(f.e.Ends, eventlog.End{Path: n.Path, Kind: n.Kind, Status: string(s)})
}

// ended goes on after a node that completed, was skipped, or failed where that is allowed.
func (f *flow) ended(n *Node, s Status) {
	p := n.parent
	switch p.Kind {
	case eventlog.Process:
		for k := range p.Nodes {
			if &p.Nodes[k] == n && k+1 < len(p.Nodes) {
				f.begin(&p.Nodes[k+1])
				return
			}
		}
		if p.parent == nil {
			f.done = true
			return
		}
		f.ended(p, Completed)
	case eventlog.Decide:
		f.note(p, Completed)
		f.ended(p, Completed)
	case eventlog.Parallel:
		if n.isComposite() && f.status(n) != s {
			f.note(n, s)
		}
		f.now[n.Path] = s
		f.join(p, s)
	}
}

// join looks whether a Parallel has ended with one of its nodes.
func (f *flow) join(p *Node, s Status) {
	if p.Any && s == Completed {
		for k := range p.Nodes {
			f.skip(&p.Nodes[k])
		}
		f.note(p, Completed)
		f.ended(p, Completed)
		return
	}
	failures := false
	for k := range p.Nodes {
		if !f.finished(&p.Nodes[k]) {
			return
		}
		failures = failures || f.status(&p.Nodes[k]) == Failure && !p.Nodes[k].Continue
	}
	if failures {
		f.note(p, Failure)
		f.fail(p)
		return
	}
	f.note(p, Completed)
	f.ended(p, Completed)
}

// fail goes on after a node that failed for good: behind the nearest node around it that may
// fail; or the nearest Parallel that can do without the branch goes on with its others; else
// the instance has failed, and what runs beside is stopped so that a retry goes on with it.
func (f *flow) fail(n *Node) {
	for b := n; b.parent != nil; b = b.parent {
		if b.Continue {
			f.failUpTo(n, b, Skipped)
			f.ended(b, Failure)
			return
		}
		if p := b.parent; p.Kind == eventlog.Parallel && (p.Any || p.WaitAll) && f.others(p, b) {
			f.failUpTo(n, b, Stopped) // a retry of the instance goes on with what was stopped
			f.join(p, Failure)
			return
		}
	}
	f.failed = true
}

// failUpTo lets the nodes from n up to b fail; what executes inside them gets the status s,
// what was not reached is skipped.
func (f *flow) failUpTo(n, b *Node, s Status) {
	f.now[n.Path] = Failure
	for c := n; ; c = c.parent {
		f.endInside(c, s)
		if c != n && (c.Kind != eventlog.Process || c.Continue || c.parent.Kind == eventlog.Parallel) {
			f.note(c, Failure)
		}
		if c == b {
			return
		}
	}
}

// others says whether a Parallel has nodes beside b that have not ended.
func (f *flow) others(p, b *Node) bool {
	for k := range p.Nodes {
		if n := &p.Nodes[k]; n != b && !f.finished(n) {
			return true
		}
	}
	return false
}

// skip ends everything below and at a node that has not ended.
func (f *flow) skip(n *Node) { f.end(n, Skipped) }

// end gives what executes below and at a node the status s; what was not reached is skipped.
func (f *flow) end(n *Node, s Status) {
	if f.finished(n) {
		return
	}
	f.endInside(n, s)
	has := f.status(n)
	switch {
	case n.Kind == eventlog.Process && has == "" && n.parent.Kind != eventlog.Parallel:
		// it has no status of its own
	case has == Stopped:
	case has == Executing, n.Kind == eventlog.Process && f.status(n.parent) == Executing:
		f.note(n, s)
	default:
		f.note(n, Skipped)
	}
}

func (f *flow) endInside(n *Node, s Status) {
	for k := range n.Nodes {
		f.end(&n.Nodes[k], s)
	}
}

// culprit is the first task whose failure made the instance fail.
func (f *flow) culprit() (path, why string) {
	for _, k := range f.i.Tasks {
		if n := f.plan.Task(k.Path); k.Status == Failure && n != nil && !n.absorbed(f) {
			return k.Path, k.Error
		}
	}
	return "", ""
}

// choose goes on in the branch that a Decide named; "" goes on behind it.
func (f *flow) choose(n *Node, branch string) {
	var chosen *Node
	for k := range n.Nodes {
		if b := &n.Nodes[k]; b.name() == branch {
			chosen = b
		} else {
			f.skip(b)
		}
	}
	if chosen == nil {
		f.now[n.Path] = Completed // by the event itself
		f.ended(n, Completed)
		return
	}
	f.now[n.Path] = Executing
	f.begin(chosen)
}

// reopen makes a failed instance go on: its failed and stopped tasks start again, the nodes
// around them are no longer ended.
func (f *flow) reopen() {
	for _, k := range f.i.Tasks {
		if k.Status != Failure && k.Status != Stopped {
			continue
		}
		n := f.plan.Node(k.Path)
		if n == nil || n.absorbed(f) {
			continue
		}
		if n.isComposite() && (n.Kind != eventlog.Decide || k.Choice != "") {
			f.note(n, Executing)
		} else {
			f.start(n)
		}
	}
}

// again starts failed tasks whose failure did not come to anything: the instance froze before
// it failed with them. It says whether there are any.
func (f *flow) again() (any bool) {
	for _, k := range f.i.Tasks {
		n := f.plan.Node(k.Path)
		if k.Status != Failure && k.Status != Stopped || n.isComposite() && (n.Kind != eventlog.Decide || k.Choice != "") || !f.pending(n) {
			continue
		}
		any = true
		for p := n.parent; p != nil; p = p.parent {
			if s := f.status(p); s == Failure || s == Stopped {
				f.note(p, Executing)
			}
		}
		f.start(n)
	}
	return any
}

// pending says that nothing around a failed node goes on without it.
func (f *flow) pending(n *Node) bool {
	for b := n; b.parent != nil; b = b.parent {
		s, p := f.status(b), b.parent
		if b != n && (s == Completed || s == Skipped) || s == Failure && (b.Continue || (p.Any || p.WaitAll) && f.others(p, b)) {
			return false
		}
	}
	return true
}

// resume starts what should execute below a node when nothing does, and says whether the node
// has ended.
func (f *flow) resume(n *Node) (ended bool) {
	if n.Kind == eventlog.Process {
		if f.finished(n) {
			return true
		}
		for k := range n.Nodes {
			if !f.resume(&n.Nodes[k]) {
				return false
			}
		}
		return true
	}
	k := f.i.Task(n.Path)
	switch {
	case f.finished(n):
		return true
	case n.Kind == eventlog.Parallel && k != nil && k.Status == Executing:
		ended = true
		for c := range n.Nodes {
			b := &n.Nodes[c]
			switch {
			case f.finished(b):
			case !f.resume(b):
				ended = false
			case b.Kind == eventlog.Process:
				f.note(b, Completed)
			}
		}
	case n.Kind == eventlog.Decide && k != nil && k.Choice != "":
		for c := range n.Nodes {
			if n.Nodes[c].name() == k.Choice {
				ended = f.resume(&n.Nodes[c])
			}
		}
	default:
		f.begin(n)
		return false
	}
	if ended {
		f.note(n, Completed)
	}
	return ended
}

// absorbed says that a failed node is behind the flow: it was allowed to fail, or a node
// around it has ended.
func (n *Node) absorbed(f *flow) bool {
	if n.Continue && f.status(n) == Failure {
		return true
	}
	for p := n.parent; p != nil && p.parent != nil; p = p.parent {
		if s := f.status(p); s == Completed || s == Skipped || p.Continue && s == Failure {
			return true
		}
	}
	return false
}

// period and end of an Every, from its computed value.
func parseEvery(value string) (period, until int64) {
	p, u, _ := strings.Cut(value, "/")
	period, _ = strconv.ParseInt(p, 10, 64)
	until, _ = strconv.ParseInt(u, 10, 64)
	return period, until
}

// nextTick is the next time of an Every after a start at since: missed periods are left out.
// It is 0 while the period is not known.
func nextTick(value string, since, now int64) int64 {
	period, _ := parseEvery(value)
	if period <= 0 {
		return 0
	}
	next := since + period
	if next <= now {
		next = now + period - (now-since)%period
	}
	return next
}
