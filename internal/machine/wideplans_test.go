package machine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// widen gives random nodes what not every plan has: deadlines, monitors, on-stop handlers,
// jumps, listeners that skip, work again, or take messages alone; from now and then (1) to often (3).
func widen(r *rand.Rand, root []Node, often int) {
	chance := func(percent int) bool { return r.IntN(100) < percent }
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
		if strings.HasSuffix(n.Path, "[]") {
			continue
		}
		if (n.Kind == eventlog.Process || n.Kind == eventlog.Parallel) && chance(25*often) {
			if n.DeadlineFails = chance(50); chance(50) {
				n.Deadline = 3000
			} else {
				n.DeadlineAt = true
			}
		}
		if chance(10 * often) {
			n.Attached = append(n.Attached, Node{Path: n.Path + "@m", Kind: eventlog.Monitor})
			if chance(50) {
				n.Attached[0].Retry = &Retry{Attempts: 2, Delay: 500}
			}
		}
		if chance(10*often) && n.Kind != eventlog.Parallel && n.Kind != eventlog.ForEach && n.Kind != eventlog.Dynamic {
			n.Attached = append(n.Attached, Node{Path: n.Path + "@stop", Kind: eventlog.OnStop})
		}
		if n.Kind == eventlog.Listen {
			n.Reprocess, n.One = chance(20*often), chance(20*often)
			if chance(25 * often) {
				n.SkipTo = n.Path
				for p := above(n.Path); p != "" && kinds[p] == eventlog.Process && !strings.HasSuffix(p, "[]") && chance(50); p = above(p) {
					n.SkipTo = p
				}
			}
		}
		if chance(15 * often) {
			var l []string
			for _, to := range all {
				if reaches(n.Path, to.Path, kinds) {
					l = append(l, to.Path)
				}
			}
			if len(l) > 0 {
				n.Continue, n.Goto, n.Gotos = false, pick(r, l), 1+r.IntN(2)
			}
		}
	}
}

func above(path string) string {
	if of, ok := strings.CutSuffix(path, "[]"); ok {
		return of
	}
	return path[:max(0, strings.LastIndexByte(path, '/'))]
}

// reaches says whether a Goto may lead from one node to the other: both are in the same run,
// and only processes are entered in their middle.
func reaches(from, to string, kinds map[string]eventlog.Kind) bool {
	run := func(path string) string { return path[:strings.LastIndexByte(path, ']')+1] }
	if strings.HasSuffix(to, "[]") || run(from) != run(to) {
		return false
	}
	common := above(to)
	for common != "" && !strings.HasPrefix(from, common+"/") {
		common = above(common)
	}
	if strings.HasSuffix(common, "[]") && kinds[above(common)] == eventlog.Dynamic {
		return false // another process than the chosen one
	}
	for at := to; at != common; {
		if at = above(at); kinds[at] != eventlog.Process {
			return false
		}
	}
	return true
}

// paths are those of a node in an instance under which its computed value stands: with the
// index of each run of a ForEach around it, where what is around that has its own too. r is a
// result that may bring items; nil is none.
func paths(plan *Plan, i *Instance, n *Node, r *eventlog.Request) []string {
	type at struct{ path, key string }
	l := []at{{}}
	rest := n.Path
	for {
		before, after, more := strings.Cut(rest, "[]")
		if !more {
			break
		}
		var next []at
		for _, p := range l {
			base := p.path + before
			if of := plan.Node(base); of.Kind == eventlog.Dynamic {
				next = append(next, at{base + "[]", p.key + before + "[]"})
				if t := i.Task(base); t != nil {
					for k := range t.Choices {
						next = append(next, at{base + pathIndex(k), p.key + before + "[]"})
					}
				}
				continue
			}
			count := 0
			if r != nil && r.Path == base && len(r.Items) > 0 {
				count = len(r.Items)
			} else if items := i.ItemsOf(base); items != nil {
				count = len(items.Values)
			}
			for k := range count {
				next = append(next, at{base + pathIndex(k), base + pathIndex(k)})
			}
		}
		l, rest = next, after
	}
	var keys []string
	for _, p := range l {
		if key := p.key + rest; !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// computed are the nodes with functions of the parameters.
func computed(plan *Plan) (l []*Node) {
	for path, n := range plan.byPath {
		switch {
		case path != n.Path:
		case n.Kind == eventlog.Listen, n.Kind == eventlog.At, n.Kind == eventlog.Every, n.Kind == eventlog.Monitor, n.DeadlineAt:
			l = append(l, n)
		}
	}
	slices.SortFunc(l, func(a, b *Node) int { return strings.Compare(a.Path, b.Path) })
	return l
}

// choose gives a result the items or processes that its node wants.
func (h *history) choose(n *Node, r *eventlog.Request) {
	switch n.Kind {
	case eventlog.ForEach:
		for k := range h.r.IntN(4) {
			r.Items = append(r.Items, json.RawMessage(fmt.Sprintf(`{"i":%d}`, k)))
		}
	case eventlog.Dynamic:
		for range h.r.IntN(4) {
			c := pick(h.r, n.Nodes[0].Nodes)
			r.Choices = append(r.Choices, c.name())
		}
	}
}
