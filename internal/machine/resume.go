package machine

import "github.com/godagger/dagger/eventlog"

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
