package machine

import (
	"maps"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// jump lets the flow go elsewhere when a node has failed just now that says where: the
// innermost one that may still.
func (o *oracle) jump() {
	found := spot{}
	var look func(v spot)
	look = func(v spot) {
		if s, at := o.eval(v); s == Failure && at == o.clock && v.n.Goto != "" && o.jumps[v.path] < v.n.Gotos {
			found = v
		}
		if _, over := o.skipped[v.path]; over {
			return
		}
		for _, c := range o.inside(v) {
			look(c)
		}
	}
	look(o.root())
	if found.n == nil {
		return
	}
	o.jumps[found.path]++
	run := func(path string) int { return strings.LastIndexByte(path, ']') + 1 }
	to := found.path[:run(found.path)] + found.n.Goto[run(found.n.Goto):]
	maps.DeleteFunc(o.status, func(p string, _ Status) bool { return within(p, found.path) })
	o.assign(found, Skipped) // all around it is as it was before
	o.goTo(o.root(), found.path, to)
}

// look sees how everything stands before something happens.
func (o *oracle) look() {
	o.status, o.nodes = map[string]Status{}, map[string]*Node{}
	o.assign(o.root(), "")
}

// goTo goes from one path to the other, both inside v: nodes before the target are skipped,
// those from it on are forgotten.
func (o *oracle) goTo(v spot, from, to string) {
	at, target := -1, -1
	inside := o.inside(v)
	for k, c := range inside {
		if within(from, c.path) {
			at = k
		}
		if within(to, c.path) {
			target = k
		}
	}
	if at == target && inside[at].path != to && inside[at].path != from {
		o.goTo(inside[at], from, to)
		return
	}
	for k := range inside {
		switch {
		case at <= k && k < target:
			o.skip(inside[k])
		case target < k && k <= at:
			o.forget(inside[k].path)
		}
	}
	o.enter(inside[target], to, at < target)
}

// enter goes to a path in v: what comes before it there is skipped where the flow goes forward,
// or had not come to its end; what comes behind it is forgotten where it goes back.
func (o *oracle) enter(v spot, to string, forward bool) {
	delete(o.results, v.path+"!")
	delete(o.skipped, v.path)
	if v.path == to {
		o.forget(to)
		return
	}
	delete(o.times, v.path) // its deadline begins anew
	maps.DeleteFunc(o.monitors, func(p string, a *activity) bool { return strings.HasPrefix(p, v.path+"@") && a.status != Executing })
	before := v.n.Kind == eventlog.Process
	for _, c := range o.inside(v) {
		switch {
		case within(to, c.path):
			before = false
			o.enter(c, to, forward)
		case v.n.Kind == eventlog.Parallel:
		case !before:
			o.forget(c.path)
		default:
			if s, _ := o.eval(c); forward || s == Executing || s == Failure && !c.n.Continue {
				o.skip(c)
			}
		}
	}
}

// skip passes over a node: what executes there is skipped, the rest stays as it is.
func (o *oracle) skip(v spot) {
	o.skipped[v.path] = o.clock
	maps.DeleteFunc(o.frozen, func(p string, _ Status) bool { return within(p, v.path) }) // they are in o.status, if anything is known
	for path, s := range o.status {
		if !within(path, v.path) || o.gone(path, v.path) {
			continue
		}
		if s == Executing {
			s = Skipped
		}
		o.frozen[path] = s
	}
}

// gone says that a node is in a run of a ForEach of which nothing is known when it is skipped.
func (o *oracle) gone(path, inside string) bool {
	for at := len(inside); at < len(path); at++ {
		if path[at] != '[' && path[at] != ']' {
			continue
		}
		p := path[:at]
		if path[at] == ']' {
			p = path[:at+1]
		}
		n := o.plan.Node(p)
		if p != path && (n.Kind == eventlog.ForEach || n.item && n.parent.Kind == eventlog.ForEach) && o.status[p] != Failure && o.status[p] != Stopped {
			return true
		}
	}
	return false
}

// forget makes a node as if it had not been reached.
func (o *oracle) forget(path string) {
	of := func(p string) bool { return within(strings.TrimRight(p, "#!"), path) }
	maps.DeleteFunc(o.results, func(p string, _ outcome) bool { return of(p) })
	maps.DeleteFunc(o.working, func(p string, _ bool) bool { return of(p) })
	maps.DeleteFunc(o.skipped, func(p string, _ int) bool { return of(p) })
	maps.DeleteFunc(o.frozen, func(p string, _ Status) bool { return of(p) })
	maps.DeleteFunc(o.held, func(p string, _ *message) bool { return of(p) })
	for _, m := range []map[string]*activity{o.acts, o.times, o.monitors, o.over} {
		maps.DeleteFunc(m, func(p string, _ *activity) bool { return of(p) })
	}
	maps.DeleteFunc(o.params, func(p string, _ map[string]string) bool { return p != "" && of(p) })
	maps.DeleteFunc(o.known, func(p string, _ map[string]string) bool { return p != "" && of(p) })
}

// skipTo lets the flow go on where a listener says that was not reached: where something
// before it, in the same process, is at work, and what lies between is known.
func (o *oracle) skipTo(l spot) bool {
	to := l.path
	for pattern(to) != l.n.SkipTo {
		to = above(to)
	}
	v := o.root()
	for v.path != to {
		at, target := -1, -1
		inside := o.inside(v)
		for k, c := range inside {
			if at < 0 && o.status[c.path] == Executing {
				at = k
			}
			if within(to, c.path) {
				target = k
			}
		}
		switch {
		case target < 0:
			return false // what runs there is not known yet
		case o.status[inside[target].path] == Executing:
			v = inside[target]
			continue
		case v.n.Kind != eventlog.Process || at < 0 || at > target:
			return false
		}
		for c := inside[target]; c.path != to; { // the way is through processes and branches
			if c.n.Kind != eventlog.Process && c.n.Kind != eventlog.Parallel {
				return false
			}
			for _, x := range o.inside(c) {
				if within(to, x.path) {
					c = x
					break
				}
			}
		}
		o.clock++
		o.look()
		for k := at; k < target; k++ {
			o.skip(inside[k])
		}
		o.enter(inside[target], to, true)
		o.advance()
		return true
	}
	return false
}
