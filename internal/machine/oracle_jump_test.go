package machine

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// left stands for whatever a node has come to that the flow has jumped over, or out of. It does
// not execute.
const left Status = "left"

func (o *oracle) leave(v spot) {
	o.set(v, left)
	for _, c := range o.inside(v) {
		o.leave(c)
	}
}

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
	look(spot{n: &o.plan.root})
	if found.n == nil {
		return
	}
	o.jumps[found.path]++
	run := func(path string) int { return strings.LastIndexByte(path, ']') + 1 }
	to := found.path[:run(found.path)] + found.n.Goto[run(found.n.Goto):]
	o.goTo(spot{n: &o.plan.root}, found.path, to)
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
			o.skipped[inside[k].path] = o.clock
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
	before := true
	for _, c := range o.inside(v) {
		switch {
		case within(to, c.path):
			before = false
			o.enter(c, to, forward)
		case !before:
			o.forget(c.path)
		default:
			if s, _ := o.eval(c); forward || s == Executing || s == Failure && !c.n.Continue {
				o.skipped[c.path] = o.clock
			}
		}
	}
}

// forget makes a node as if it had not been reached.
func (o *oracle) forget(path string) {
	maps.DeleteFunc(o.results, func(p string, _ outcome) bool { return within(strings.TrimRight(p, "#!"), path) })
	maps.DeleteFunc(o.working, func(p string, _ bool) bool { return within(p, path) })
	maps.DeleteFunc(o.skipped, func(p string, _ int) bool { return within(p, path) })
}

// gotos lets some nodes say where the flow goes on when they have failed.
func gotos(r *rand.Rand, root []Node) {
	var all []*Node
	kinds := map[string]eventlog.Kind{"": eventlog.Process}
	var walk func(nodes []Node)
	walk = func(nodes []Node) {
		for k := range nodes {
			n := &nodes[k]
			all, kinds[n.Path] = append(all, n), n.Kind
			walk(n.Nodes)
		}
	}
	walk(root)
	for _, n := range all {
		if strings.HasSuffix(n.Path, "[]") || r.IntN(5) > 0 {
			continue
		}
		l := slices.DeleteFunc(slices.Clone(all), func(to *Node) bool { return !reaches(n.Path, to.Path, kinds) })
		if len(l) > 0 {
			n.Continue, n.Goto, n.Gotos = false, pick(r, l).Path, 1+r.IntN(2)
		}
	}
}
