package machine

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// planner makes random plans.
type planner struct {
	r      *rand.Rand
	left   int // leaves that may still come
	number int
	wide   bool        // with ForEach and Dynamic
	leaf   func(*Node) // gives a task its kind and policies
}

// nodes are one to four nodes below a path.
func (g *planner) nodes(path string, depth int, least int) (l []Node) {
	for n := least + g.r.IntN(3); n > 0 && (g.left > 0 || len(l) < least); n-- {
		l = append(l, g.node(path, depth))
	}
	return l
}

func (g *planner) node(path string, depth int) Node {
	n := Node{Kind: eventlog.Execute, Path: fmt.Sprint("t", g.number)}
	if path != "" {
		n.Path = path + "/" + n.Path
	}
	g.number++
	if depth > 0 && g.left > 1 && g.r.IntN(100) < 45 {
		n.Kind = pick(g.r, []eventlog.Kind{eventlog.Process, eventlog.Parallel, eventlog.Parallel, eventlog.Decide})
		if g.wide && g.r.IntN(3) == 0 {
			n.Kind = pick(g.r, []eventlog.Kind{eventlog.ForEach, eventlog.Dynamic})
		}
	}
	n.Continue = g.r.IntN(6) == 0
	switch n.Kind {
	case eventlog.Process:
		n.Nodes = g.nodes(n.Path, depth-1, 1)
	case eventlog.Parallel:
		switch g.r.IntN(3) {
		case 0:
			n.Any = true
		case 1:
			n.WaitAll = true
		}
		n.Nodes = g.nodes(n.Path, depth-1, 2)
	case eventlog.Decide:
		g.left--
		n.Nodes = g.nodes(n.Path, depth-1, 2)
	case eventlog.ForEach:
		g.left--
		n.WaitAll, n.Collect, n.Concurrency = g.r.IntN(2) == 0, g.r.IntN(2) == 0, g.r.IntN(3)
		n.Nodes = []Node{{Path: n.Path + "[]", Kind: eventlog.Process}}
		n.Nodes[0].Nodes = g.nodes(n.Path+"[]", depth-1, 1)
	case eventlog.Dynamic:
		g.left--
		n.Nodes = []Node{{Path: n.Path + "[]", Kind: eventlog.Process}}
		for range 1 + g.r.IntN(2) {
			c := Node{Path: fmt.Sprint(n.Path, "[]/p", g.number), Kind: eventlog.Process, Continue: g.r.IntN(6) == 0}
			g.number++
			c.Nodes = g.nodes(c.Path, depth-1, 1)
			n.Nodes[0].Nodes = append(n.Nodes[0].Nodes, c)
		}
	default:
		g.left--
		g.leaf(&n)
	}
	return n
}

// draw is the plan in a line: a process is (a b), a Parallel [a b], a Decide {a b}.
func draw(nodes []Node) string {
	var l []string
	for k := range nodes {
		n := &nodes[k]
		s := n.Path[strings.LastIndexByte(n.Path, '/')+1:]
		switch n.Kind {
		case eventlog.Process:
			s += "(" + draw(n.Nodes) + ")"
		case eventlog.Parallel:
			s += "[" + draw(n.Nodes) + "]"
		case eventlog.ForEach, eventlog.Dynamic:
			s += "*(" + draw(n.Nodes[0].Nodes) + ")"
		case eventlog.Decide:
			s += "{" + draw(n.Nodes) + "}"
		}
		if n.Any {
			s += " any"
		}
		if n.WaitAll {
			s += " waits"
		}
		if n.Continue {
			s += " may fail"
		}
		if n.Goto != "" {
			s += fmt.Sprint(" else ", n.Gotos, " ", n.Goto)
		}
		l = append(l, s)
	}
	return strings.Join(l, ", ")
}
