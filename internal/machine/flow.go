package machine

import (
	"slices"

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
	case eventlog.Listen:
		if !f.hasMessage(pl) {
			due = f.t.due(pl.n)
		}
	case eventlog.Parallel, eventlog.Process:
		if pl.n.Deadline > 0 {
			due = now + pl.n.Deadline
		}
	default:
		due = f.t.due(pl.n)
	}
	f.starts(eventlog.Start{Path: pl.path, Kind: pl.n.Kind, Due: due})
}

// hasMessage says that a listener goes on with the message that it had: its time-out is that of
// a wait.
func (f *flow) hasMessage(pl place) bool {
	k := f.task(pl.path)
	return k != nil && k.Message != nil && !slices.ContainsFunc(f.e.Ends, func(x eventlog.End) bool {
		return x.Path == pl.path && x.Status == string(NotStarted)
	})
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

// unfinishedOver says whether a listener behind the flow still works on a message.
func (i *Instance) unfinishedOver() bool {
	return slices.ContainsFunc(i.Tasks, func(k Task) bool { return k.Over && k.Status == Executing })
}
