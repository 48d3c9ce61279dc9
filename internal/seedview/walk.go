package seedview

import (
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// walk goes through an instance along its plan.
type walk struct {
	i     *machine.Instance
	plan  *machine.Plan
	tasks map[string]*machine.Task
	items map[string][]place        // runs of a ForEach, by its path
	runs  map[string]machine.Status // of these runs, by path
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
	w := &walk{i: i, plan: plan, tasks: make(map[string]*machine.Task, len(i.Tasks)), items: map[string][]place{}, runs: map[string]machine.Status{}}
	for k := range i.Tasks {
		w.tasks[i.Tasks[k].Path] = &i.Tasks[k]
	}
	if plan != nil && len(i.Items) > 0 {
		plan.Walk(i, func(path string, n *machine.Node, s machine.Status) {
			if strings.HasSuffix(n.Path, "[]") {
				at := path[:strings.LastIndexByte(path, '[')]
				w.items[at], w.runs[path] = append(w.items[at], place{n, path}), s
			}
		})
	}
	return w
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
	return w.nodes(place{&machine.Node{}, ""}, w.plan.Root)
}

// inside are the nodes in a node, in order, and then those that watch it.
func (w *walk) inside(p place) (l []place) {
	run := w.runs[p.at]
	switch {
	case run == machine.Completed, run == machine.Skipped: // what was inside is forgotten
	case p.node.Kind == eventlog.ForEach:
		l = w.items[p.at]
	case p.node.Kind == eventlog.Dynamic:
		l = w.chosen(p)
	default:
		l = w.nodes(p, p.node.Nodes)
	}
	for k := range p.node.Attached {
		a := &p.node.Attached[k]
		at := p.at + a.Path[strings.LastIndexByte(a.Path, '@'):]
		if w.tasks[at] != nil || a.Kind == eventlog.Monitor {
			l = append(slices.Clip(l), place{a, at})
		}
	}
	return l
}

// nodes of the plan inside p, where they stand in the instance.
func (w *walk) nodes(p place, nodes []machine.Node) []place {
	l := make([]place, len(nodes))
	for k := range nodes {
		l[k] = place{&nodes[k], p.at + nodes[k].Path[len(p.node.Path):]}
	}
	return l
}

// chosen are the processes that a Dynamic runs, once it has chosen.
func (w *walk) chosen(p place) (l []place) {
	t := w.tasks[p.at]
	if t == nil || len(p.node.Nodes) == 0 {
		return nil
	}
	run := &p.node.Nodes[0]
	for k, name := range t.Choices {
		for _, c := range w.nodes(place{run, p.at + "[" + strconv.Itoa(k) + "]"}, run.Nodes) {
			if c.at[strings.LastIndexByte(c.at, '/')+1:] == name {
				l = append(l, c)
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
	nodes, spans := w.all(within, w.first(p.node.Kind, t, begin), p.node.Kind != eventlog.Parallel && p.node.Kind != eventlog.ForEach)
	s := w.span(p, t, begin, spans)
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
func (w *walk) span(p place, t *machine.Task, begin int64, inside []span) span {
	s := span{last: w.i.Created, goesOn: p.node.Continue}
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
		if run, known := w.runs[p.at]; known {
			if s.status = run; s.from == 0 && run != machine.NotStarted && run != machine.Skipped {
				s.from = begin
			}
		}
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
