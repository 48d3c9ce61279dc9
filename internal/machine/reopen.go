package machine

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// reopen makes a failed instance go on: its failed and stopped tasks start again, the nodes
// around them are no longer ended, and are watched again. Of the runs of a ForEach no more go on than may work at
// once; the others are STOPPED until one ends.
func (f *flow) reopen() { f.reopenInside("") }

// reopenInside is reopen for what is inside a run of a ForEach, or with "" for all.
func (f *flow) reopenInside(path string) {
	var waits []string
	later := func(p string) bool {
		return path != "" && !inside(p, path) || slices.ContainsFunc(waits, func(item string) bool { return inside(p, item) })
	}
	for n := range f.i.Items {
		items := &f.i.Items[n]
		pl, ok := f.plan.place(items.Path)
		if !ok || later(items.Path) || f.absorbed(pl) {
			continue
		}
		running := 0
		for k := range items.Values {
			state := items.States[k]
			if state != itemExecuting && state != itemFailed && state != itemStopped {
				continue
			}
			item := pl.item(k)
			if limit := pl.n.Concurrency; limit > 0 && running >= limit {
				waits = append(waits, item.path)
				f.note(item, Stopped)
				continue
			}
			if running++; state != itemExecuting {
				f.note(item, Executing)
			}
		}
	}
	for k := range f.i.Tasks {
		t := &f.i.Tasks[k]
		if t.Status != Failure && t.Status != Stopped || later(t.Path) {
			continue
		}
		if pl, ok := f.plan.place(t.Path); ok && !f.leftBehind(pl, t) {
			f.restart(pl, t)
		}
	}
	for k := range f.i.Tasks {
		t := &f.i.Tasks[k]
		if t.Kind != eventlog.Monitor || t.Status != Skipped && t.Status != Stopped || later(t.Path) {
			continue
		}
		if pl, ok := f.plan.place(t.Path); ok && f.startsInside(pl.parent()) {
			f.start(pl)
		}
	}
	from := place{n: &f.plan.root}
	if path != "" {
		from, _ = f.plan.place(path)
	}
	f.lieAhead(from)
}

// lieAhead makes what was skipped when something before it failed as if it had not been reached:
// the flow comes to it again.
func (f *flow) lieAhead(pl place) {
	if !f.startsInside(pl) {
		return
	}
	switch pl.n.Kind {
	case eventlog.Process:
		if pl.n.item && pl.n.parent.Kind == eventlog.Dynamic {
			if c, ok := pl.chosen(f.choices(pl.parent().path)); ok {
				f.lieAhead(c)
			}
			return
		}
		f.lieBehind(len(pl.n.Nodes), pl.child)
	case eventlog.Dynamic:
		f.lieBehind(len(f.choices(pl.path)), pl.item)
	case eventlog.ForEach:
		for k := range f.count(pl) {
			f.lieAhead(pl.item(k))
		}
	default:
		for k := range pl.n.Nodes {
			if c := pl.child(k); pl.n.Kind == eventlog.Decide && !f.startsInside(c) && f.task(pl.path).Choice == "" {
				f.unskip(c)
			} else {
				f.lieAhead(c)
			}
		}
	}
}

// lieBehind does that for nodes that come one after the other: what is behind the one that
// starts again was not reached.
func (f *flow) lieBehind(count int, at func(int) place) {
	passed := false
	for k := range count {
		switch c := at(k); {
		case passed:
			f.unskip(c)
		case f.startsInside(c):
			f.lieAhead(c)
			passed = true
		}
	}
}

// unskip forgets that a node and what is inside it was skipped.
func (f *flow) unskip(pl place) {
	for _, k := range f.i.Tasks {
		if k.Status == Skipped && within(k.Path, pl.path) {
			f.now[k.Path] = ""
			f.noteAt(k.Path, k.Kind, NotStarted)
		}
	}
}

// startsInside says that something of the flow starts at a node or inside it.
func (f *flow) startsInside(pl place) bool {
	return slices.ContainsFunc(f.e.Starts, func(s eventlog.Start) bool {
		t := f.task(s.Path)
		return s.Kind != eventlog.Monitor && within(s.Path, pl.path) && (t == nil || !t.Over)
	})
}

// beginItem begins a run of a ForEach, or lets one go on that a retry of the instance has left
// for later.
func (f *flow) beginItem(pl place, again bool) {
	if !again {
		f.begin(pl)
		return
	}
	f.note(pl, Executing)
	f.reopenInside(pl.path)
}

// held says that a node is inside a run of a ForEach that a retry has left for later.
func (f *flow) held(path string) bool {
	return slices.ContainsFunc(f.i.Items, func(x Items) bool {
		for k := range len(x.States) {
			if x.States[k] == itemStopped && inside(path, x.Path+pathIndex(k)) {
				return true
			}
		}
		return false
	})
}
