package machine

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
)

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

// culprit is the first node whose failure made the instance fail: not one that a join still
// does without.
func (f *flow) culprit() (path, why string) {
	for _, k := range f.i.Tasks {
		pl, ok := f.plan.place(k.Path)
		if !ok || k.Status != Failure || k.Error == "" || f.leftBehind(pl, &k) {
			continue
		}
		if k.Over || f.pending(pl) {
			return k.Path, k.Error
		}
		if path == "" {
			path, why = k.Path, k.Error
		}
	}
	return path, why
}

// leftBehind says that a task that failed or was stopped is not what the instance failed with,
// and that a retry has nothing to do with it.
func (f *flow) leftBehind(pl place, k *Task) bool {
	if k.Over { // the flow has gone on behind it in any case
		return k.Status == Failure && pl.n.Continue
	}
	return f.absorbed(pl)
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

// left says that the flow is further on although the node, or one around it, has failed: it went
// there from that one, or came back to behind it from another.
func (f *flow) left(pl place) bool {
	if len(f.i.Jumps) == 0 {
		return false
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
	return false
}

// reached says that something at a node or inside it was started.
func (f *flow) reached(pl place) bool {
	return slices.ContainsFunc(f.i.Tasks, func(k Task) bool { return k.Status != Skipped && within(k.Path, pl.path) })
}
