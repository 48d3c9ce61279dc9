package audit

import (
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// way is where the flow goes with an event, by a Goto or a SkipTo, worked out from the plan.
type way struct {
	forgets []string // nodes that it comes to again, with what is inside
	enters  []string // processes that it goes into
}

func within(path, node string) bool {
	return strings.HasPrefix(path, node) && (len(path) == len(node) || node == "" || strings.IndexByte("/[@", path[len(node)]) >= 0)
}

// again says that a node is one that the flow comes to again, or goes into.
func (w way) again(path string) bool {
	return slices.Contains(w.enters, path) || slices.ContainsFunc(w.forgets, func(of string) bool { return within(path, of) })
}

// inside are the nodes at work in a place.
func (o *outlook) inside(pl place) (l []place) {
	t := o.task(pl.at)
	switch {
	case pl.Kind == eventlog.ForEach && t != nil:
		for k := range t.items {
			l = append(l, pl.item(k))
		}
	case pl.Kind == eventlog.Dynamic && t != nil:
		for k, name := range t.choices {
			if c, ok := pl.choice(k, name); ok {
				l = append(l, c)
			}
		}
	case pl.Kind != eventlog.ForEach && pl.Kind != eventlog.Dynamic:
		for k := range pl.Nodes {
			l = append(l, pl.child(k))
		}
	}
	return l
}

// chain are the places from the root down to a path, as far as they are there.
func (o *outlook) chain(path string) []place {
	l := []place{o.root()}
	for at := l[0]; at.at != path; at = l[len(l)-1] {
		c, ok := around(o.inside(at), path)
		if !ok {
			break
		}
		l = append(l, c)
	}
	return l
}

func (o *outlook) root() place { return place{&node{Kind: eventlog.Process, Nodes: o.i.plan.root}, ""} }

// around is the place that a path lies in.
func around(l []place, path string) (place, bool) {
	k := slices.IndexFunc(l, func(pl place) bool { return within(path, pl.at) })
	if k < 0 {
		return place{}, false
	}
	return l[k], true
}

// jumped checks that the flow goes elsewhere when a node has failed that says so, and nowhere
// else, and works out what it passes over and what it comes to again.
func (p *partition) jumped(i *instance, e *eventlog.Event) {
	if e.Reason == "" || e.Choice == "" {
		return
	}
	if i.jumps == nil {
		i.jumps = map[string]int{}
	}
	i.jumps[e.Reason]++
	if i.plan == nil || !i.plan.known {
		i.loose = true
		return
	}
	n, to := i.plan.node(e.Reason), i.plan.node(e.Choice)
	ok := p.check(i, e, n != nil && n.Goto != "" && to != nil && to.Path == n.Goto, "goes on at %s, which %s does not say", e.Choice, e.Reason) &&
		p.check(i, e, within(e.Path, e.Reason), "goes on where %s says, which is not around it", e.Reason) &&
		p.check(i, e, i.jumps[e.Reason] <= n.Gotos, "goes on elsewhere %d times when %s has failed, and may %d times", i.jumps[e.Reason], e.Reason, n.Gotos)
	if !ok || i.loose {
		return
	}
	o := i.outlook()
	for _, pl := range o.chain(e.Path) {
		switch {
		case pl.at == e.Reason:
			p.check(i, e, o.eval(pl) == failed, "goes on where %s says, which has not failed", e.Reason)
		case within(pl.at, e.Reason):
			nearer := o.eval(pl) == failed && pl.Goto != "" && i.jumps[pl.at] < pl.Gotos
			p.check(i, e, !nearer, "goes on where %s says, and %s is nearer", e.Reason, pl.at)
		}
	}
	i.goTo(o, o.root(), e.Reason, e.Choice)
}

// stays checks that no node failed with the event that says where the flow goes on.
func (p *partition) stays(i *instance, e *eventlog.Event) {
	t := i.task(e.Path)
	switch e.Type {
	case eventlog.TaskCompleted, eventlog.TaskFailed, eventlog.DeadlinePassed:
	default:
		return
	}
	if e.Reason != "" && e.Choice != "" || t == nil || t.over || strings.Contains(e.Path, "@") {
		return
	}
	o := i.outlook()
	chain := o.chain(e.Path)
	for k := len(chain) - 1; k > 0; k-- {
		pl, s := chain[k], o.eval(chain[k])
		if s == running || s == failed && pl.Continue {
			return
		}
		p.check(i, e, s != failed || pl.Goto == "" || i.jumps[pl.at] >= pl.Gotos, "%s has failed, and the flow does not go on at %s", pl.at, pl.Goto)
	}
}

// goTo finds the innermost node around both: of the nodes inside, those before the target are
// passed over, those from it on are come to again.
func (i *instance) goTo(o *outlook, pl place, from, to string) {
	l := o.inside(pl)
	at := slices.IndexFunc(l, func(c place) bool { return within(from, c.at) })
	target := slices.IndexFunc(l, func(c place) bool { return within(to, c.at) })
	switch {
	case at < 0 || target < 0:
		i.loose = true // it leads where nothing is; what starts there is reported
		return
	case at == target && l[at].at != from && l[at].at != to:
		i.goTo(o, l[at], from, to)
		return
	}
	for k, c := range l {
		switch {
		case at <= k && k < target:
			i.passOver(c.at)
		case target < k && k <= at:
			i.way.forgets = append(i.way.forgets, c.at)
		}
	}
	i.enter(o, l[target], to, at < target)
}

// enter goes to a path in a place.
func (i *instance) enter(o *outlook, pl place, to string, forward bool) {
	delete(i.passed, pl.at)
	if pl.at == to {
		i.way.forgets = append(i.way.forgets, to)
		return
	}
	i.way.enters = append(i.way.enters, pl.at)
	before := pl.Kind == eventlog.Process
	for _, c := range o.inside(pl) {
		switch {
		case within(to, c.at):
			before = false
			i.enter(o, c, to, forward)
		case pl.Kind == eventlog.Parallel:
		case !before:
			i.way.forgets = append(i.way.forgets, c.at)
		default:
			if s := o.eval(c); forward || s == running || s == failed && !c.Continue {
				i.passOver(c.at)
			}
		}
	}
}

func (i *instance) passOver(path string) {
	if i.passed == nil {
		i.passed = map[string]bool{}
	}
	i.passed[path] = true
}

// skipped checks that the flow may skip to a listener for which a message came early, and works
// out what it passes over.
func (p *partition) skippedTo(i *instance, e *eventlog.Event) {
	n := i.planned(e.Path)
	if n == nil {
		i.loose = i.loose || i.plan == nil || !i.plan.known
		p.check(i, e, i.loose, "task %s is not in the plan", e.Path)
		return
	}
	ok := p.check(i, e, n.Kind == eventlog.Listen && n.SkipTo != "", "task %s does not skip", e.Path) &&
		p.check(i, e, slices.ContainsFunc(i.buffer, func(b buffered) bool {
			return b.msg == e.Msg && b.Topic == n.Topic && b.Key == n.Key && b.Value == i.value(e.Path)
		}), "skips to %s, for which it has no message %d", e.Path, e.Msg)
	if !ok || i.loose {
		return
	}
	p.check(i, e, i.evaluate == 0 && !i.flowEnded, "skips to %s while its key is being computed, or behind the end", e.Path)
	p.check(i, e, i.task(e.Path) == nil, "skips to %s, which was reached", e.Path)
	to := e.Path
	for pattern(to) != n.SkipTo && strings.Contains(to, "/") {
		to = to[:strings.LastIndexByte(to, '/')]
	}
	o := i.outlook()
	for pl := o.root(); pl.at != to; {
		l := o.inside(pl)
		target := slices.IndexFunc(l, func(c place) bool { return within(to, c.at) })
		at := slices.IndexFunc(l, func(c place) bool { return o.works(c.at) })
		switch {
		case target >= 0 && o.works(l[target].at):
			pl = l[target]
			continue
		case !p.check(i, e, pl.Kind == eventlog.Process && 0 <= at && at < target, "skips to %s, which the flow does not come to", to):
			return
		}
		for c := l[target]; c.at != to; {
			if !p.check(i, e, c.Kind == eventlog.Process || c.Kind == eventlog.Parallel, "skips into %s, where nothing was chosen", c.at) {
				return
			}
			c, _ = around(o.inside(c), to)
		}
		for k := at; k < target; k++ {
			i.passOver(l[k].at)
		}
		i.enter(o, l[target], to, true)
		return
	}
	p.check(i, e, false, "skips to %s, where the flow is", to)
}

// works says that something of the flow executes at a node or inside it.
func (o *outlook) works(path string) bool {
	return slices.ContainsFunc(o.i.tasks, func(t task) bool { return t.status == running && !t.over && within(t.path, path) })
}

// forgets takes what the event makes as if it had not been reached: exactly what the flow comes
// to again. A retry comes again to what was skipped when something before it had failed.
func (p *partition) forgets(i *instance, e *eventlog.Event) {
	known := i.plan != nil && i.plan.known && !i.loose
	for _, x := range e.Ends {
		if x.Status != "NOT_STARTED" {
			continue
		}
		t := i.task(x.Path)
		retried := t != nil && t.status == skipped && (e.Type == eventlog.InstanceRetried || strings.Contains(x.Path, "["))
		p.check(i, e, retried || i.way.again(x.Path) || !known && e.Choice != "", "forgets %s, which the flow does not come to again", x.Path)
		i.forget(x.Path)
	}
	for _, t := range i.tasks {
		is := slices.ContainsFunc(i.way.forgets, func(of string) bool { return within(t.path, of) })
		p.check(i, e, !known || !is, "remembers %s, which the flow comes to again", t.path)
	}
	for _, path := range i.way.enters {
		n := i.plan.node(path)
		started := slices.ContainsFunc(e.Starts, func(s eventlog.Start) bool { return s.Path == path })
		p.check(i, e, !known || !n.tracked() || started, "does not start %s, which the flow goes back into", path)
	}
	for path := range i.passed {
		if slices.ContainsFunc(i.way.forgets, func(of string) bool { return within(path, of) }) {
			delete(i.passed, path)
		}
	}
}
