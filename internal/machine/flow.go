package machine

import (
	"bytes"
	"slices"
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
	asked  int               // look-ups of tasks
	tasks  map[string]int    // index of i.Tasks, when there are many of both
	done   bool              // the last node has ended
	failed bool              // a failure that nothing absorbs
}

// manyTasks is where looking through the tasks costs more than an index of them.
const manyTasks = 16

func (t *Turn) flow(plan *Plan, i *Instance, e *eventlog.Event) *flow {
	return &flow{t: t, plan: plan, i: i, e: e, now: map[string]Status{}}
}

func (f *flow) task(path string) *Task {
	if f.asked++; f.asked <= manyTasks || len(f.i.Tasks) <= manyTasks {
		return f.i.Task(path)
	}
	if f.tasks == nil {
		f.tasks = make(map[string]int, len(f.i.Tasks))
		for k := range f.i.Tasks {
			f.tasks[f.i.Tasks[k].Path] = k
		}
	}
	if k, ok := f.tasks[path]; ok {
		return &f.i.Tasks[k]
	}
	return nil
}

// status of a node; "" when it was not reached.
func (f *flow) status(pl place) Status {
	if s, ok := f.now[pl.path]; ok {
		return s
	}
	if pl.n.item {
		if items := f.i.ItemsOf(pl.parent().path); items != nil {
			return itemStatus(items.States[pl.index()])
		}
		return ""
	}
	if k := f.task(pl.path); k != nil {
		if k.Over && (k.Status == Executing || k.Status == Stopped) {
			return Completed // for the flow, which has gone on behind it
		}
		return k.Status
	}
	return ""
}

// finished says that a node of a Parallel has ended, one way or the other.
func (f *flow) finished(pl place) bool {
	switch f.status(pl) {
	case Completed, Skipped, Failure:
		return true
	}
	return false
}

func (f *flow) begin(pl place) {
	for k := range pl.n.Attached {
		if pl.n.Attached[k].Kind == eventlog.Monitor {
			f.start(pl.attachment(k))
		}
	}
	switch pl.n.Kind {
	case eventlog.Process:
		if pl.n.tracked() {
			f.start(pl)
		} else if s := f.status(pl); s != "" && s != Executing { // it ended in an earlier try
			f.note(pl, Executing)
		}
		f.now[pl.path] = Executing
		f.begin(f.first(pl))
	case eventlog.Parallel:
		f.start(pl)
		for k := range pl.n.Nodes {
			f.begin(pl.child(k))
		}
	default:
		f.start(pl)
	}
}

// first is what a process begins with.
func (f *flow) first(pl place) place {
	if pl.n.item && pl.n.parent.Kind == eventlog.Dynamic {
		c, _ := pl.chosen(f.choices(pl.parent().path))
		return c
	}
	return pl.child(0)
}

// choices are those of a Dynamic.
func (f *flow) choices(path string) []string {
	if f.e.Path == path && f.e.Type == eventlog.TaskCompleted {
		return f.e.Choices
	}
	if k := f.task(path); k != nil {
		return k.Choices
	}
	return nil
}

// count is the number of runs of a ForEach, 0 before its handler gave them.
func (f *flow) count(pl place) int {
	if len(f.e.Items) > 0 && f.e.Path == pl.path {
		return len(f.e.Items)
	}
	if items := f.i.ItemsOf(pl.path); items != nil {
		return len(items.Values)
	}
	return 0
}

func (f *flow) start(pl place) {
	due, now := int64(0), max(f.t.Now, f.t.S.At)
	switch pl.n.Kind {
	case eventlog.At, eventlog.Monitor:
	case eventlog.Parallel, eventlog.Process:
		if pl.n.Deadline > 0 {
			due = now + pl.n.Deadline
		}
	default:
		due = f.t.due(pl.n)
	}
	f.starts(eventlog.Start{Path: pl.path, Kind: pl.n.Kind, Due: due})
}

func (f *flow) starts(s eventlog.Start) {
	f.e.Starts = append(f.e.Starts, s)
	f.now[s.Path] = Executing
}

// collect lets the handler of a ForEach have its items.
func (f *flow) collect(pl place) {
	f.starts(eventlog.Start{Path: pl.path, Kind: pl.n.Kind, Due: f.t.due(pl.n), Collect: true})
}

// note records the status of a node that the event is not itself about.
func (f *flow) note(pl place, s Status) {
	f.now[pl.path] = s
	f.noteAt(pl.path, pl.n.Kind, s)
}

func (f *flow) noteAt(path string, kind eventlog.Kind, s Status) {
	for k := range f.e.Ends {
		if f.e.Ends[k].Path == path {
			f.e.Ends[k].Status = string(s)
			return
		}
	}
	f.e.Ends = append(f.e.Ends, eventlog.End{Path: path, Kind: kind, Status: string(s)})
}

// close ends the monitors of a node with it.
func (f *flow) close(pl place) {
	for k := range pl.n.Attached {
		if a := pl.attachment(k); f.status(a) == Executing {
			f.note(a, Skipped)
		}
	}
}

// ended goes on after a node that completed, was skipped, or failed where that is allowed.
func (f *flow) ended(pl place, s Status) {
	f.close(pl)
	p := pl.parent()
	switch p.n.Kind {
	case eventlog.Process:
		if next, more := f.next(p, pl); more {
			f.begin(next)
			return
		}
		if p.n.parent == nil {
			f.done = true
			return
		}
		if p.n.tracked() || f.task(p.path) != nil { // one that failed before, and was retried
			f.note(p, Completed)
		}
		f.ended(p, Completed)
	case eventlog.Decide:
		f.note(p, Completed)
		f.ended(p, Completed)
	case eventlog.Dynamic:
		if k := pl.index() + 1; k < len(f.choices(p.path)) {
			f.begin(p.item(k))
			return
		}
		f.note(p, Completed)
		f.ended(p, Completed)
	case eventlog.Parallel, eventlog.ForEach:
		if pl.n.isComposite() && f.status(pl) != s {
			f.note(pl, s)
		}
		f.now[pl.path] = s
		f.join(p, s)
	}
}

// next is what comes behind a node of a process.
func (f *flow) next(p, pl place) (place, bool) {
	if p.n.item && p.n.parent.Kind == eventlog.Dynamic {
		return place{}, false
	}
	for k := range p.n.Nodes {
		if &p.n.Nodes[k] == pl.n && k+1 < len(p.n.Nodes) {
			return p.child(k + 1), true
		}
	}
	return place{}, false
}

// join looks whether a Parallel or ForEach has ended with one of its nodes.
func (f *flow) join(p place, s Status) {
	if p.n.Kind == eventlog.ForEach {
		f.joinItems(p)
		return
	}
	if p.n.Any && s == Completed {
		for k := range p.n.Nodes {
			f.skip(p.child(k))
		}
		f.note(p, Completed)
		f.ended(p, Completed)
		return
	}
	if f.busy(p) {
		return
	}
	failures := false
	for k := range p.n.Nodes {
		c := p.child(k)
		if !f.finished(c) {
			return
		}
		failures = failures || f.status(c) == Failure && !c.n.Continue
	}
	f.joined(p, failures)
}

// busy says that something executes inside a Parallel, which is to be seen with one look at the
// tasks. What it does not see, the statuses of the branches say.
func (f *flow) busy(p place) bool {
	for k := range f.i.Tasks {
		t := &f.i.Tasks[k]
		if t.Status != Executing || t.Over || len(t.Path) <= len(p.path) || t.Path[len(p.path)] != '/' || t.Path[:len(p.path)] != p.path {
			continue
		}
		if _, ends := f.now[t.Path]; !ends {
			return true
		}
	}
	return false
}

func (f *flow) joined(p place, failures bool) {
	switch {
	case failures:
		f.note(p, Failure)
		f.fail(p)
	case p.n.Collect:
		f.collect(p)
	default:
		f.note(p, Completed)
		f.ended(p, Completed)
	}
}

// joinItems begins further runs of a ForEach, as many as may run at once, and sees whether all
// have ended.
func (f *flow) joinItems(p place) {
	states := f.states(p)
	running, failures := 0, false
	for _, state := range states {
		switch state {
		case itemExecuting:
			running++
		case itemFailed:
			failures = true
		}
	}
	for k, state := range states {
		if state != itemNotStarted && state != itemStopped {
			continue
		}
		if limit := p.n.Concurrency; limit > 0 && running >= limit {
			return
		}
		f.beginItem(p.item(k), state == itemStopped)
		running++
	}
	if running == 0 {
		f.joined(p, failures)
	}
}

// states are those of the runs of a ForEach, as this event leaves them.
func (f *flow) states(p place) []byte {
	states := bytes.Repeat([]byte{itemNotStarted}, f.count(p))
	if items := f.i.ItemsOf(p.path); items != nil && (f.e.Path != p.path || len(f.e.Items) == 0) {
		copy(states, items.States)
	}
	for path, s := range f.now {
		if strings.HasSuffix(path, "]") && path[:strings.LastIndexByte(path, '[')] == p.path {
			states[indexOf(path)] = itemState(s)
		}
	}
	return states
}

// fail goes on after a node that failed for good: elsewhere, if the nearest node around it
// says so; behind the nearest one that may fail; or the nearest join that can do without the
// branch goes on with its others; else the instance has failed, and what runs beside is
// stopped so that a retry goes on with it.
func (f *flow) fail(pl place) {
	for b := pl; b.n.parent != nil; b = b.parent() {
		if b.n.Goto != "" && f.i.jumps(b.path) < b.n.Gotos {
			f.failUpTo(pl, b, Skipped)
			f.close(b)
			f.e.Reason = b.path
			f.e.Choice = f.jump(b)
			return
		}
		if b.n.Continue {
			f.failUpTo(pl, b, Skipped)
			f.ended(b, Failure)
			return
		}
		if p := b.parent(); p.n.joins() && (p.n.Any || p.n.WaitAll) && f.others(p, b) {
			f.failUpTo(pl, b, Stopped) // a retry of the instance goes on with what was stopped
			f.close(b)
			f.join(p, Failure)
			return
		}
	}
	f.failed = true
}

// jumps counts how often the flow went elsewhere when the node had failed.
func (i *Instance) jumps(path string) int {
	for _, j := range i.Jumps {
		if j.Path == path {
			return j.Count
		}
	}
	return 0
}

// failUpTo lets the nodes from n up to b fail; what executes inside them gets the status s,
// what was not reached is skipped.
func (f *flow) failUpTo(n, b place, s Status) {
	for c := n; ; c = c.parent() {
		f.endInside(c, s) // while it still executes: its branches do too
		if c.path == n.path {
			f.now[n.path] = Failure
		} else if c.n.Kind != eventlog.Process || c.n.Continue || c.n.Goto != "" || c.n.tracked() || c.n.parent.joins() {
			f.note(c, Failure)
		}
		if c.path == b.path {
			return
		}
		f.close(c)
	}
}

// others says whether a join has nodes beside b that have not ended.
func (f *flow) others(p, b place) bool {
	if p.n.Kind == eventlog.ForEach {
		for k := range f.count(p) {
			if c := p.item(k); c.path != b.path && !f.finished(c) {
				return true
			}
		}
		return false
	}
	for k := range p.n.Nodes {
		if c := p.child(k); c.path != b.path && !f.finished(c) {
			return true
		}
	}
	return false
}

// skip ends everything below and at a node that has not ended.
func (f *flow) skip(pl place) { f.end(pl, Skipped) }

// end gives what executes below and at a node the status s; what was not reached is skipped.
func (f *flow) end(pl place, s Status) {
	if f.finished(pl) {
		return
	}
	has := f.status(pl)
	f.endInside(pl, s)
	f.close(pl)
	switch {
	case pl.n.item && pl.n.parent.Kind == eventlog.Dynamic:
	case pl.n.Kind == eventlog.Process && has == "" && !pl.n.parent.joins():
		// it has no status of its own
	case has == Stopped:
	case has == Executing, pl.n.Kind == eventlog.Process && f.status(pl.parent()) == Executing:
		f.note(pl, s)
	default:
		f.note(pl, Skipped)
	}
}

func (f *flow) endInside(pl place, s Status) {
	switch pl.n.Kind {
	case eventlog.ForEach:
		for k := range f.count(pl) {
			if c := pl.item(k); f.status(c) == Executing {
				f.end(c, s)
			}
		}
		return
	case eventlog.Dynamic:
		for k := range f.choices(pl.path) {
			if c, ok := pl.item(k).chosen(f.choices(pl.path)); ok {
				f.end(c, s)
			}
		}
		return
	}
	for k := range pl.n.Nodes {
		f.end(pl.child(k), s)
	}
}

// culprit is the first node whose failure made the instance fail.
func (f *flow) culprit() (path, why string) {
	for _, k := range f.i.Tasks {
		if pl, ok := f.plan.place(k.Path); ok && k.Status == Failure && k.Error != "" && (k.Over || !f.absorbed(pl)) {
			return k.Path, k.Error
		}
	}
	return "", ""
}

// absorbed says that a failed node is behind the flow: it was allowed to fail, or a node
// around it has ended.
func (f *flow) absorbed(pl place) bool {
	if pl.n.Kind == eventlog.Monitor || pl.n.Continue && f.status(pl) == Failure || f.left(pl) {
		return true
	}
	for p := pl; p.n.parent != nil && p.n.parent.parent != nil; {
		p = p.parent()
		if s := f.status(p); s == Completed || s == Skipped || p.n.Continue && s == Failure {
			return true
		}
	}
	return false
}

// left says that the flow went on elsewhere, further on, when the node or one around it had failed.
func (f *flow) left(pl place) bool {
	for b := pl; b.n.parent != nil; b = b.parent() {
		if b.n.Goto == "" || f.i.jumps(b.path) == 0 {
			continue
		}
		for c := pl; c.n.parent != nil; c = c.parent() {
			p := c.parent()
			if p.n.Kind != eventlog.Process {
				continue
			}
			for k := p.position(c) + 1; k < len(p.n.Nodes); k++ {
				if f.reached(p.child(k)) {
					return true
				}
			}
		}
	}
	return false
}

// reached says that something at a node or inside it was started.
func (f *flow) reached(pl place) bool {
	return slices.ContainsFunc(f.i.Tasks, func(k Task) bool { return k.Status != Skipped && within(k.Path, pl.path) })
}

// choose goes on in the branch that a Decide named; "" goes on behind it.
func (f *flow) choose(pl place, branch string) {
	chosen := -1
	for k := range pl.n.Nodes {
		if pl.n.Nodes[k].name() == branch {
			chosen = k
		} else {
			f.skip(pl.child(k))
		}
	}
	if chosen < 0 {
		f.now[pl.path] = Completed // by the event itself
		f.ended(pl, Completed)
		return
	}
	f.now[pl.path] = Executing
	f.begin(pl.child(chosen))
}

// run goes on with the runs of a ForEach or Dynamic that the event says.
func (f *flow) run(pl place) {
	none := len(f.e.Choices) == 0
	if pl.n.Kind == eventlog.ForEach {
		none = len(f.e.Items) == 0
	}
	switch {
	case none && pl.n.Collect:
		f.collect(pl)
	case none:
		f.now[pl.path] = Completed // by the event itself
		f.ended(pl, Completed)
	case pl.n.Kind == eventlog.ForEach:
		f.now[pl.path] = Executing
		f.joinItems(pl)
	default:
		f.now[pl.path] = Executing
		f.begin(pl.item(0))
	}
}

// goesOn says that a composite node is at work by the nodes inside it, not by its handler.
func (f *flow) goesOn(n *Node, k *Task) bool {
	switch n.Kind {
	case eventlog.Process, eventlog.Parallel:
		return true
	case eventlog.Decide:
		return k.Choice != ""
	case eventlog.Dynamic:
		return len(k.Choices) > 0
	case eventlog.ForEach:
		return !k.Collect && f.i.ItemsOf(k.Path) != nil
	}
	return false
}

// restart starts the handler or wait of a node again, or its deadline.
func (f *flow) restart(pl place, k *Task) {
	switch {
	case k.Collect:
		f.collect(pl)
	case f.goesOn(pl.n, k) && pl.n.Deadline == 0 && !pl.n.DeadlineAt:
		f.note(pl, Executing)
	default:
		f.start(pl)
	}
}

// again starts failed tasks whose failure did not come to anything: the instance froze before
// it failed with them. It says whether there are any.
func (f *flow) again() (any bool) {
	for k := range f.i.Tasks {
		t := &f.i.Tasks[k]
		pl, ok := f.plan.place(t.Path)
		if !ok || pl.n.attached || f.held(t.Path) || t.Status != Failure && t.Status != Stopped || f.goesOn(pl.n, t) && t.Error == "" || !f.pending(pl) {
			continue
		}
		any = true
		for p := pl; p.n.parent.parent != nil; {
			p = p.parent()
			if s := f.status(p); s == Failure || s == Stopped {
				f.note(p, Executing)
			}
		}
		f.restart(pl, t)
	}
	return any
}

// pending says that nothing around a failed node goes on without it.
func (f *flow) pending(pl place) bool {
	if f.left(pl) {
		return false
	}
	for b := pl; b.n.parent != nil; b = b.parent() {
		s, p := f.status(b), b.parent()
		if b.path != pl.path && (s == Completed || s == Skipped) || s == Failure && (b.n.Continue || p.n.joins() && (p.n.Any || p.n.WaitAll) && f.others(p, b)) {
			return false
		}
	}
	return true
}

// resume starts what should execute below a node when nothing does, and says whether the node
// has ended.
func (f *flow) resume(pl place) (ended bool) {
	n := pl.n
	if n.Kind == eventlog.Process {
		return f.resumeProcess(pl)
	}
	k := f.task(pl.path)
	switch {
	case f.finished(pl):
		return true
	case k == nil || k.Status != Executing && k.Status != Stopped && k.Status != Failure || !f.goesOn(n, k):
		f.begin(pl)
		return false
	case n.Kind == eventlog.Decide:
		for c := range n.Nodes {
			if n.Nodes[c].name() == k.Choice {
				ended = f.resume(pl.child(c))
			}
		}
	case n.Kind == eventlog.Dynamic:
		for c := range k.Choices {
			if !f.resume(pl.item(c)) {
				return false
			}
		}
		ended = true
	case n.Kind == eventlog.ForEach:
		f.resumeItems(pl)
		return f.status(pl) == Completed
	default:
		ended = true
		for c := range n.Nodes {
			b := pl.child(c)
			switch {
			case f.finished(b):
			case !f.resume(b):
				ended = false
			case b.n.Kind == eventlog.Process:
				f.note(b, Completed)
			}
		}
	}
	if ended {
		f.note(pl, Completed)
	}
	return ended
}

func (f *flow) resumeProcess(pl place) (ended bool) {
	if f.finished(pl) {
		return true
	}
	if pl.n.item && pl.n.parent.Kind == eventlog.Dynamic {
		c, ok := pl.chosen(f.choices(pl.parent().path))
		return !ok || f.resume(c)
	}
	for k := range pl.n.Nodes {
		if !f.resume(pl.child(k)) {
			return false
		}
	}
	if f.task(pl.path) != nil && f.status(pl) == Executing {
		f.note(pl, Completed)
	}
	return true
}

// resumeItems does for the runs of a ForEach what resume does for a node.
func (f *flow) resumeItems(pl place) {
	running := 0
	for k := range f.count(pl) {
		c := pl.item(k)
		if f.status(c) != Executing {
			continue
		}
		if f.resume(c) {
			f.note(c, Completed)
		} else {
			running++
		}
	}
	if running == 0 || pl.n.Concurrency == 0 || running < pl.n.Concurrency {
		f.resumeJoin(pl)
	}
}

// resumeJoin begins what is left of a ForEach, or ends it, without telling its parent.
func (f *flow) resumeJoin(pl place) {
	running := 0
	for k := range f.count(pl) {
		c := pl.item(k)
		switch s := f.status(c); s {
		case "", Stopped:
			if pl.n.Concurrency == 0 || running < pl.n.Concurrency {
				f.beginItem(c, s == Stopped)
			}
			running++
		case Executing:
			running++
		}
	}
	switch {
	case running > 0:
	case pl.n.Collect:
		f.collect(pl)
	default:
		f.note(pl, Completed)
	}
}

// unfinishedOver says whether a listener behind the flow still works on a message.
func (i *Instance) unfinishedOver() bool {
	return slices.ContainsFunc(i.Tasks, func(k Task) bool { return k.Over && k.Status == Executing })
}
