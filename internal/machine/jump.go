package machine

import (
	"slices"
	"strconv"

	"github.com/godagger/dagger/eventlog"
)

func pathIndex(k int) string { return "[" + strconv.Itoa(k) + "]" }

// jump lets the flow go on where a failed node says, forward or back, and gives the path. What
// lies between is skipped; where the flow goes back, what it did from there on is forgotten,
// and done again.
func (f *flow) jump(b place) string {
	chain := f.chain(b, f.plan.Node(b.n.Goto))
	p, to := chain[0], chain[len(chain)-1]
	from := b
	for from.n.parent != p.n {
		from = from.parent()
	}
	at, target := p.position(from), p.position(chain[1])
	if target > at {
		f.skip(from)
		for k := at + 1; k < target; k++ {
			f.skip(p.child(k))
		}
		f.enter(chain[1:])
		return to.path
	}
	// Back: of the process where the target lies only what comes from it on.
	for depth := 1; depth < len(chain); depth++ {
		q := chain[depth-1]
		last := len(q.n.Nodes) - 1
		if depth == 1 {
			last = at
		}
		for k := q.position(chain[depth]); k <= last; k++ {
			if c := q.child(k); depth == len(chain)-1 || k > q.position(chain[depth]) {
				f.forget(c)
			}
		}
		if depth > 1 {
			f.reenter(q)
		}
	}
	f.begin(to)
	return to.path
}

// reenter makes a process that the flow goes back into go on.
func (f *flow) reenter(q place) {
	ends := func(path string) bool {
		return slices.ContainsFunc(f.e.Ends, func(x eventlog.End) bool { return x.Path == path })
	}
	goesOn := func(path string) { // it ended with this event
		f.e.Ends = slices.DeleteFunc(f.e.Ends, func(x eventlog.End) bool { return x.Path == path })
	}
	for k := range q.n.Attached {
		switch a := q.attachment(k); {
		case a.n.Kind != eventlog.Monitor || f.status(a) == Executing:
		case ends(a.path):
			goesOn(a.path)
			f.now[a.path] = Executing
		default:
			f.start(a)
		}
	}
	switch s := f.status(q); {
	case s == Executing:
	case q.n.tracked():
		goesOn(q.path)
		f.start(q)
	case s != "":
		f.note(q, NotStarted)
	}
	f.now[q.path] = Executing
}

// position is which node of a process one inside it is.
func (pl place) position(c place) int {
	for k := range pl.n.Nodes {
		if &pl.n.Nodes[k] == c.n {
			return k
		}
	}
	return -1
}

// chain are the places from the innermost node around both down to the target. Where the node
// runs more than once, the target is that of the same run.
func (f *flow) chain(b place, target *Node) []place {
	up := map[*Node]place{}
	for p := b; ; p = p.parent() {
		up[p.n] = p
		if p.n.parent == nil {
			break
		}
	}
	var down []*Node // from the target up
	n := target
	for ; up[n].n == nil || n == b.n || n == target; n = n.parent {
		down = append(down, n)
	}
	chain := []place{up[n]}
	for k := len(down) - 1; k >= 0; k-- {
		p := chain[len(chain)-1]
		chain = append(chain, p.child(p.position(place{n: down[k]})))
	}
	return chain
}

// enter begins the last of the places, which lie one inside the other, and skips what comes
// before it in each.
func (f *flow) enter(chain []place) {
	if len(chain) == 1 {
		f.begin(chain[0])
		return
	}
	p, c := chain[0], chain[1]
	for k := range p.n.Attached {
		if p.n.Attached[k].Kind == eventlog.Monitor {
			f.start(p.attachment(k))
		}
	}
	at := p.position(c)
	if p.n.Kind == eventlog.Parallel {
		f.start(p)
		for k := range p.n.Nodes {
			if k != at {
				f.begin(p.child(k))
			}
		}
		f.enter(chain[1:])
		return
	}
	if p.n.tracked() {
		f.start(p)
	}
	f.now[p.path] = Executing
	for k := range at {
		f.skip(p.child(k))
	}
	f.enter(chain[1:])
}

// forget makes a node and what is inside it as if they had not been reached.
func (f *flow) forget(pl place) {
	for _, k := range f.i.Tasks {
		if within(k.Path, pl.path) {
			f.now[k.Path] = ""
			f.noteAt(k.Path, k.Kind, NotStarted)
		}
	}
	for path := range f.now {
		if within(path, pl.path) {
			f.now[path] = ""
		}
	}
	starts := f.e.Starts[:0]
	for _, s := range f.e.Starts {
		if !within(s.Path, pl.path) {
			starts = append(starts, s)
		}
	}
	f.e.Starts = starts
	for k := range f.e.Ends {
		if within(f.e.Ends[k].Path, pl.path) {
			f.e.Ends[k].Status = string(NotStarted)
		}
	}
}

// skipTo lets the flow go to where a listener says for which a message came too early. It
// says whether it could: not where the flow is past it, or where a decision lies between.
func (f *flow) skipTo(listener place) bool {
	to := listener
	for ; to.n.Path != listener.n.SkipTo; to = to.parent() {
		if to.n.parent == nil {
			return false
		}
	}
	var chain []place
	for p := to; ; p = p.parent() {
		chain = append([]place{p}, chain...)
		if p.n.parent == nil {
			break
		}
	}
	for len(chain) > 1 {
		p, c := chain[0], chain[1]
		switch p.n.Kind {
		case eventlog.Process:
			if p.n.item && p.n.parent.Kind == eventlog.Dynamic {
				if !f.active(c) {
					return false
				}
				break
			}
			at, current := p.position(c), -1
			for k := range p.n.Nodes {
				if f.active(p.child(k)) {
					current = k
					break
				}
			}
			if current >= 0 && current < at {
				return f.enterFrom(p, current, chain[1:])
			}
			if current != at {
				return false
			}
		default:
			if !f.active(c) {
				return false
			}
		}
		chain = chain[1:]
	}
	return false
}

// enterFrom skips from a node of a process up to the first place of the chain, and enters it.
func (f *flow) enterFrom(p place, current int, chain []place) bool {
	for _, c := range chain[:len(chain)-1] {
		if c.n.Kind != eventlog.Process && c.n.Kind != eventlog.Parallel || c.n.item {
			return false // what runs there is not known yet
		}
	}
	if chain[len(chain)-1].n.item {
		return false
	}
	for k := current; k < p.position(chain[0]); k++ {
		f.skip(p.child(k))
	}
	f.enter(chain)
	return true
}

// active says that something executes at a node or inside it.
func (f *flow) active(pl place) bool {
	for _, k := range f.i.Tasks {
		if k.Status == Executing && !k.Over && within(k.Path, pl.path) {
			return true
		}
	}
	return false
}
