package machine

import (
	"fmt"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// oracle is an instance a second time and as simple as can be. Of the flow it keeps nothing but
// the results of tasks, and works out from them, each time anew, what has ended and how; what is
// at work then has an activity, as long as it is.
type oracle struct {
	id    string
	plan  *Plan
	world *oracleWorld

	results map[string]outcome // by path; of the handler that gets a ForEach's items by path and "#", of a deadline that has passed by path and "!"
	clock   int
	working map[string]bool   // runs of a ForEach that work, or have worked
	skipped map[string]int    // nodes that the flow jumped over, or out of, and when
	frozen  map[string]Status // of these and what is inside, as the flow left them
	jumps   map[string]int    // how often the flow went elsewhere when a node had failed
	status  map[string]Status // of tasks and nodes, by the last assign
	nodes   map[string]*Node  // behind the paths of status

	whole     Status
	stopping  bool // on-stop handlers run
	flowEnded bool // only listeners that work again are left
	broken    bool // the values could not be computed

	acts     map[string]*activity // of tasks whose turn it is
	times    map[string]*activity // of nodes with a deadline that are at work
	monitors map[string]*activity // by their own path; also those that have ended
	over     map[string]*activity // of listeners that work again; also those that failed
	stops    map[string]*activity // on-stop handlers, by their own path; also those that have ended
	held     map[string]*message  // of listeners that failed or were stopped with it

	params map[string]map[string]string // by the run of a ForEach that they are of, "" = the instance's
	change map[string]int               // counts the changes of each of them
	known  map[string]map[string]string // params as they were when the values were computed last
	stale  bool                         // they have to be computed

	inbox []*copied                  // messages kept in the instance
	subs  map[eventlog.KeyRef]*waits // keys that it waits for
}

type outcome struct {
	at      int
	ok      bool
	choice  string
	choices []string
	items   int
}

func (o *oracle) root() spot { return spot{n: &o.plan.root} }

// spot is a node where it stands in an instance.
type spot struct {
	n    *Node
	path string
}

// inside are the nodes at work in a spot: runs of a ForEach, chosen processes of a Dynamic.
func (o *oracle) inside(v spot) (l []spot) {
	r := o.results[v.path]
	switch v.n.Kind {
	case eventlog.ForEach:
		for k := range r.items {
			l = append(l, spot{&v.n.Nodes[0], fmt.Sprintf("%s[%d]", v.path, k)})
		}
	case eventlog.Dynamic:
		for k, name := range r.choices {
			c := chosen(&v.n.Nodes[0], name)
			l = append(l, spot{c, fmt.Sprintf("%s[%d]/%s", v.path, k, name)})
		}
	default:
		for k := range v.n.Nodes {
			c := &v.n.Nodes[k]
			l = append(l, spot{c, strings.TrimPrefix(v.path+"/"+c.name(), "/")})
		}
	}
	return l
}

// eval says whether a node that was reached executes, has completed or failed, and when.
func (o *oracle) eval(v spot) (Status, int) {
	if at, over := o.skipped[v.path]; over {
		return Completed, at
	}
	s, at := o.inTime(v)
	if late, passed := o.results[v.path+"!"]; passed && (s == Executing || at > late.at) {
		if v.n.DeadlineFails {
			return Failure, late.at
		}
		return Completed, late.at
	}
	return s, at
}

// inTime is eval without a look at the node's deadline.
func (o *oracle) inTime(v spot) (Status, int) {
	n := v.n
	r, has := o.results[v.path]
	switch n.Kind {
	case eventlog.Process:
		return o.sequence(v, 0)
	case eventlog.Parallel:
		return o.join(v)
	}
	switch {
	case !has:
		return Executing, 0
	case !r.ok:
		return Failure, r.at
	case n.Kind == eventlog.Dynamic:
		return o.sequence(v, r.at)
	case n.Kind == eventlog.ForEach:
		s, at := Completed, r.at
		if r.items > 0 {
			s, at = o.join(v)
		}
		if s != Completed || !n.Collect {
			return s, at
		}
		switch last, has := o.results[v.path+"#"]; {
		case !has:
			return Executing, 0
		case !last.ok:
			return Failure, last.at
		default:
			return Completed, last.at
		}
	case r.choice != "":
		c := chosen(n, r.choice)
		s, at := o.eval(spot{c, v.path + "/" + c.name()})
		if s == Failure && c.Continue {
			s = Completed
		}
		return s, at
	}
	return Completed, r.at
}

// sequence is one node after the other.
func (o *oracle) sequence(v spot, last int) (Status, int) {
	for _, c := range o.inside(v) {
		s, at := o.eval(c)
		if s == Executing || s == Failure && !c.n.Continue {
			return s, at
		}
		last = max(last, at)
	}
	return Completed, last
}

func chosen(n *Node, choice string) *Node {
	for k := range n.Nodes {
		if n.Nodes[k].name() == choice {
			return &n.Nodes[k]
		}
	}
	return nil
}

func (o *oracle) join(v spot) (Status, int) {
	n := v.n
	running, failed, won, lost, last := false, false, 1<<30, 1<<30, 0
	for _, c := range o.inside(v) {
		s, at := o.eval(c)
		switch {
		case s == Executing:
			running = true
		case s == Completed:
			won = min(won, at)
		case !c.n.Continue:
			failed, lost = true, min(lost, at)
		}
		last = max(last, at)
	}
	switch {
	case n.Any && won < 1<<30:
		return Completed, won
	case failed && !n.Any && !n.WaitAll:
		return Failure, lost
	case running:
		return Executing, 0
	case failed:
		return Failure, last
	}
	return Completed, last
}
