package audit

import (
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// outlook works out from the tasks alone how far the plan has come. It judges the whole tree
// after each step, where the engine moves from node to node.
type outlook struct {
	i      *instance
	byPath map[string]*task // of an instance with many tasks
	err    string           // the first thing that is wrong
	fails  bool             // the instance is about to fail: what executes beside is stopped next
}

func (i *instance) outlook() *outlook {
	o := &outlook{i: i}
	if len(i.tasks) > 12 {
		o.byPath = make(map[string]*task, len(i.tasks))
		for k := range i.tasks {
			o.byPath[i.tasks[k].path] = &i.tasks[k]
		}
	}
	return o
}

func (o *outlook) task(path string) *task {
	if o.byPath != nil {
		return o.byPath[path]
	}
	return o.i.task(path)
}

// place is a node in an instance: what runs more than once has a path with an index.
type place struct {
	*node
	at string
}

func (pl place) child(k int) place {
	c := &pl.Nodes[k]
	if pl.at == pl.Path {
		return place{c, c.Path}
	}
	return place{c, pl.at + "/" + c.name()}
}

// item is a run of a ForEach; chosen one of a Dynamic.
func (pl place) item(k int) place {
	return place{&pl.Nodes[0], pl.at + "[" + strconv.Itoa(k) + "]"}
}

func (pl place) choice(k int, name string) (place, bool) {
	c := pl.chosen(name)
	return place{c, pl.at + "[" + strconv.Itoa(k) + "]/" + name}, c != nil
}

// eval is what a node that was reached has come to: running, completed or failed. A task
// that does not run although its turn has come counts as running.
func (o *outlook) eval(pl place) status {
	if o.i.passed[pl.at] {
		return completed
	}
	if t := o.task(pl.at); t != nil && t.late != none {
		return t.late
	}
	switch pl.Kind {
	case eventlog.Process:
		return o.sequence(pl)
	case eventlog.Parallel:
		return o.join(pl)
	}
	t := o.task(pl.at)
	switch {
	case t == nil:
		return running
	case t.over:
		return completed // for the flow, which has gone on behind it
	case t.choice != "":
		for k := range pl.Nodes {
			if c := pl.child(k); c.name() == t.choice {
				if s := o.eval(c); s != failed || !c.Continue {
					return s
				}
				return completed
			}
		}
	case len(t.choices) > 0:
		for k, name := range t.choices {
			if c, ok := pl.choice(k, name); ok {
				if s := o.eval(c); s == running || s == failed && !c.Continue {
					return s
				}
			}
		}
		return completed
	case t.items != nil && !t.collect:
		return o.joinItems(pl, t)
	case t.status == completed, t.status == failed:
		return t.status
	}
	return running
}

func (o *outlook) sequence(pl place) status {
	for k := range pl.Nodes {
		if s := o.eval(pl.child(k)); s == running || s == failed && !pl.Nodes[k].Continue {
			return s
		}
	}
	return completed
}

func (o *outlook) join(pl place) status {
	open, lost := false, false
	for k := range pl.Nodes {
		switch o.eval(pl.child(k)) {
		case completed:
			if pl.Any {
				return completed
			}
		case running:
			open = true
		default:
			lost = lost || !pl.Nodes[k].Continue
		}
	}
	switch {
	case lost && (!open || !pl.Any && !pl.WaitAll):
		return failed
	case open:
		return running
	}
	return completed
}

// joinItems is what the runs of a ForEach come to, before its handler gets them.
func (o *outlook) joinItems(pl place, t *task) status {
	open, lost := false, false
	for k, s := range t.items {
		if s == running {
			s = o.sequence(pl.item(k))
		}
		switch s {
		case failed:
			lost = true
		case completed, skipped:
		default:
			open = true
		}
	}
	switch {
	case lost && (!open || !pl.WaitAll):
		return failed
	case open || pl.Collect: // its handler comes
		return running
	}
	return completed
}

// walk checks that exactly those tasks execute whose turn it is, and that the nodes around
// them have the status that follows. live says that the node's turn has come and that nothing
// around it has ended; branch that it is one of a Parallel.
func (o *outlook) walk(pl place, live, branch bool) {
	t := o.task(pl.at)
	has := none
	if t != nil {
		has = t.status
	}
	if t != nil && t.over {
		has = completed
	}
	s := o.eval(pl)
	o.monitors(pl, live && s == running)
	if o.i.passed[pl.at] {
		o.expect(has != running, "%s executes, and the flow has passed over it", pl.at)
		o.each(pl)
		return
	}
	inside := pl.Kind == eventlog.Parallel || t != nil && (t.choice != "" || len(t.choices) > 0 || t.items != nil && !t.collect)
	switch {
	case !live:
		o.expect(has != running, "%s executes, which is not its turn", pl.at)
	case pl.Kind == eventlog.Process && pl.tracked():
		o.expect(has == s || s == failed && o.fails, "%s does not have the status that follows from what is inside", pl.at)
	case pl.Kind == eventlog.Process:
		o.expect(has != completed || s == completed, "%s has completed, what is inside has not", pl.at)
		o.expect(!branch || s != completed || has == completed, "%s does not end with what is inside", pl.at)
	case inside:
		o.expect(has == s || s == failed && o.fails, "%s does not have the status that follows from its branches", pl.at)
	default:
		o.expect(has == s, "does not start %s, the next task", pl.at)
	}
	if live && s == failed && o.fails {
		return // what executes inside is stopped with the instance, or was before
	}
	live = live && s != failed && (t == nil || t.late == none)
	switch pl.Kind {
	case eventlog.Process:
		o.steps(pl, live)
	case eventlog.Parallel:
		for k := range pl.Nodes {
			b := pl.child(k)
			o.walk(b, live && (s == running || !pl.Any || o.eval(b) == completed), true)
		}
	case eventlog.Decide:
		for k := range pl.Nodes {
			o.walk(pl.child(k), live && t != nil && t.choice == pl.Nodes[k].name(), false)
		}
	case eventlog.Dynamic:
		for k := 0; t != nil && k < len(t.choices); k++ {
			if c, ok := pl.choice(k, t.choices[k]); ok {
				o.walk(c, live, false)
				e := o.eval(c)
				live = live && (e == completed || e == failed && c.Continue)
			}
		}
	case eventlog.ForEach:
		if t != nil && t.items != nil && !t.collect {
			o.items(pl, t, live && s == running)
		}
	}
}

// each walks through what is inside a node that the flow has passed over.
func (o *outlook) each(pl place) {
	for _, c := range o.inside(pl) {
		o.walk(c, false, false)
	}
}

// monitors checks that those of a node watch while it is unfinished, unless they have run for
// the last time.
func (o *outlook) monitors(pl place, live bool) {
	for k := range pl.Attached {
		a := &pl.Attached[k]
		if a.Kind != eventlog.Monitor {
			continue
		}
		t := o.task(pl.at + a.Path[strings.LastIndexByte(a.Path, '@'):])
		if live {
			o.expect(t != nil && (t.status == running || t.status == completed || t.status == failed) || o.fails, "nothing watches %s", pl.at)
		} else {
			o.expect(t == nil || t.status != running || o.fails, "%s is watched, and it does not execute", pl.at)
		}
	}
}

// items walks through the runs of a ForEach: as many as may be at once execute.
func (o *outlook) items(pl place, t *task, live bool) {
	now, later := 0, false
	for k, s := range t.items {
		switch s {
		case running:
			now++
			if live {
				o.expect(o.sequence(pl.item(k)) == running || o.fails, "%s does not end with what is inside", pl.at)
			}
			o.steps(pl.item(k), live)
		case none, stopped: // stopped: a retry has left it for later
			later = true
		}
	}
	if live && !o.fails {
		o.expect(!later || pl.Concurrency > 0 && now >= pl.Concurrency, "%s does not begin its next run", pl.at)
		o.expect(pl.Concurrency == 0 || now <= pl.Concurrency, "%s has too many runs at once", pl.at)
		o.expect(now > 0, "%s does not end with its runs", pl.at)
	}
}

// steps walks through nodes that come one after the other.
func (o *outlook) steps(pl place, live bool) {
	for k := range pl.Nodes {
		c := pl.child(k)
		o.walk(c, live, false)
		s := o.eval(c)
		live = live && (s == completed || s == failed && c.Continue)
	}
}

// mayFail says that a failure of the node, or of one around it, does not fail the instance.
func (o *outlook) mayFail(path string) bool {
	return slices.ContainsFunc(o.chain(path), func(pl place) bool { return pl.Continue })
}

func (o *outlook) expect(ok bool, text, path string) {
	if !ok && o.err == "" {
		o.err = strings.Replace(text, "%s", path, 1)
	}
}
