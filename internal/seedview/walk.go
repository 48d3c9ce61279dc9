package seedview

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// walk goes through an instance along its plan. A path of the plan stands for several of the
// instance where it has "[]": what was expanded there, and how often, is found in the paths
// of the instance's tasks.
type walk struct {
	i     *machine.Instance
	plan  *machine.Plan
	tasks map[string]*machine.Task
	items map[string][]int    // indices of what a node expanded to, by its path
	has   map[string]struct{} // paths of nodes in expanded parts in which something was reached
	aside map[string][]string // paths of monitors, by that of the node that they watch
}

// place is a node of the plan where it stands in the instance.
type place struct {
	node *machine.Node
	at   string
}

// span is what a node's surroundings need to know of it, in ms.
type span struct {
	status         machine.Status
	from, to, last int64 // 0 = not yet
	goesOn         bool  // a failure of it is behind the flow
}

func newWalk(i *machine.Instance, plan *machine.Plan) *walk {
	w := &walk{i: i, plan: plan, tasks: make(map[string]*machine.Task, len(i.Tasks)), items: map[string][]int{}, has: map[string]struct{}{}, aside: map[string][]string{}}
	for k := range i.Tasks {
		path := i.Tasks[k].Path
		w.tasks[path] = &i.Tasks[k]
		w.expanded(path)
		if cut := strings.LastIndexByte(path, '@'); cut > strings.LastIndexByte(path, '/') {
			w.aside[path[:cut]] = append(w.aside[path[:cut]], path)
		}
	}
	for at, l := range w.items {
		slices.Sort(l)
		w.items[at] = slices.Compact(l)
	}
	return w
}

// expanded notes the parts of a path that stand behind an index.
func (w *walk) expanded(path string) {
	open := strings.IndexByte(path, '[')
	if open < 0 {
		return
	}
	for k := open; k <= len(path); k++ {
		if k < len(path) && path[k] != '/' && path[k] != '[' && path[k] != '@' {
			continue
		}
		w.has[path[:k]] = struct{}{}
		if k < len(path) && path[k] == '[' {
			number, _, closed := strings.Cut(path[k+1:], "]")
			if n, err := strconv.Atoi(number); closed && err == nil {
				w.items[path[:k]] = append(w.items[path[:k]], n)
			}
		}
	}
}

// top are the nodes of the first level.
func (w *walk) top() []place {
	if w.plan == nil {
		var l []place
		for k := range w.i.Tasks {
			t := &w.i.Tasks[k]
			l = append(l, place{&machine.Node{Path: t.Path, Kind: t.Kind}, t.Path})
		}
		return l
	}
	return w.places("", "", w.plan.Root)
}

// inside are the nodes in a node, in order: those of the plan, then monitors that it does not
// have.
func (w *walk) inside(p place) []place {
	l := w.places(p.node.Path, p.at, p.node.Nodes)
	if w.plan == nil {
		return l
	}
	for _, path := range w.aside[p.at] {
		if !slices.ContainsFunc(l, func(x place) bool { return x.at == path }) {
			l = append(l, place{&machine.Node{Path: path, Kind: w.tasks[path].Kind}, path})
		}
	}
	return l
}

// places finds where nodes of the plan that stand in the node with the path stand in the
// instance, in which that node is at.
func (w *walk) places(path, at string, nodes []machine.Node) []place {
	l := make([]place, 0, len(nodes))
	for k := range nodes {
		if rest := nodes[k].Path[len(path):]; !strings.HasPrefix(rest, "[]") {
			l = append(l, place{&nodes[k], at + rest})
		}
	}
	for _, item := range w.items[at] { // where a node has both, which none has, items come last
		for k := range nodes {
			rest, isItem := strings.CutPrefix(nodes[k].Path[len(path):], "[]")
			if !isItem {
				continue
			}
			x := fmt.Sprintf("%s[%d]%s", at, item, rest)
			if _, reached := w.has[x]; reached {
				l = append(l, place{&nodes[k], x})
			}
		}
	}
	return l
}

// level tells the first level, which begins when the instance does.
func (w *walk) level(begin int64) ([]Node, []span) {
	return w.all(w.top(), begin, true)
}

// all tells nodes that run one after the other, or at once.
func (w *walk) all(places []place, begin int64, ordered bool) (nodes []Node, spans []span) {
	for _, p := range places {
		n, s := w.node(p, begin)
		nodes = append(nodes, n)
		if monitor(p.at) {
			continue
		}
		spans = append(spans, s)
		if ordered {
			begin = s.to // when the next one starts; 0 = it has not
		}
	}
	return nodes, spans
}

// monitor says whether a path is that of a monitor: it stands beside the flow.
func monitor(path string) bool {
	return strings.LastIndexByte(path, '@') > strings.LastIndexByte(path, '/')
}

// node tells a node that starts at begin if it was reached in order; 0 = not known.
func (w *walk) node(p place, begin int64) (Node, span) {
	t := w.tasks[p.at]
	within := w.inside(p)
	nodes, spans := w.all(within, w.first(p.node.Kind, t, begin), p.node.Kind != eventlog.Parallel)
	s := w.span(p.node, t, begin, spans)
	n := Node{
		ID: id(w.i, p.at), Type: typeOf(p.node.Kind, len(p.node.Nodes) > 0), Status: status(s.status),
		TimeCreated: seconds(w.i.Created), TimeSubmitted: seconds(s.from), TimeCompleted: seconds(s.to), LastUpdated: seconds(s.last),
		ProcessName: p.at[strings.LastIndexByte(p.at, '/')+1:], CorrelatableKey: optional(p.node.Key),
		ChildDags: make([]string, len(nodes)), Children: nodes,
	}
	for k := range nodes {
		n.ChildDags[k] = nodes[k].ID
	}
	if t != nil {
		if n.Message = optional(w.i.WaitsFor(w.plan, p.at)); n.Message == nil && t.Status != machine.Completed {
			n.Message = optional(t.Error)
		}
	}
	return n, s
}

// first is when the first node inside starts: with the node, or when a Decide has chosen.
func (w *walk) first(kind eventlog.Kind, t *machine.Task, begin int64) int64 {
	if t == nil || t.Act == 0 {
		return begin
	}
	if kind == eventlog.Decide && t.Phase == machine.Inside {
		return t.Since
	}
	if begin == 0 || begin > t.Since {
		return t.Since
	}
	return begin
}

// span works out the status and the times of a node from its own state, if it has one, and
// from what is inside. The state keeps the time of the last change alone: a start is the end
// of what came before.
func (w *walk) span(n *machine.Node, t *machine.Task, begin int64, inside []span) span {
	s := span{last: w.i.Created, goesOn: n.Continue}
	var first, last int64
	for _, c := range inside {
		if c.from > 0 && (first == 0 || c.from < first) {
			first = c.from
		}
		last = max(last, c.to)
		s.last = max(s.last, c.last)
	}
	if t == nil {
		s.status, s.from = derived(inside, w.i.Status), first
		if ended(s.status) {
			s.to = last
		}
		return s
	}
	s.status, s.last = t.Status, max(s.last, t.Since)
	switch {
	case t.Act > 0 && begin > 0:
		s.from = min(begin, t.Since)
	case t.Act > 0 && first > 0:
		s.from = min(first, t.Since)
	case t.Act > 0:
		s.from = t.Since
	default: // a process, or it was skipped before it was reached
		s.from = first
	}
	if ended(t.Status) {
		s.to = t.Since
	}
	return s
}

func ended(s machine.Status) bool {
	switch s {
	case machine.Completed, machine.Failure, machine.Skipped, machine.Stopped:
		return true
	}
	return false
}

// derived is the status of a process that has none of its own, from its nodes in order.
func derived(inside []span, instance machine.Status) machine.Status {
	count := map[machine.Status]int{}
	var failed bool
	for _, c := range inside {
		count[c.status]++
		failed = failed || c.status == machine.Failure && !c.goesOn
	}
	n := len(inside)
	switch {
	case count[machine.Executing]+count[machine.Submitted] > 0:
		return machine.Executing
	case count[machine.NotStarted] == n:
		return machine.NotStarted
	case count[machine.Skipped] == n:
		return machine.Skipped
	case inside[n-1].status == machine.Completed:
		return machine.Completed
	case failed:
		return machine.Failure
	case count[machine.Stopped] > 0:
		return machine.Stopped
	case count[machine.NotStarted] == 0:
		return machine.Completed
	case instance == "" || !ended(instance):
		return machine.Executing // between two nodes, in quarantine
	}
	return instance
}
