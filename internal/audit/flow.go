package audit

import (
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// node is a node of a recorded plan.
type node struct {
	Path     string        `json:"path"`
	Kind     eventlog.Kind `json:"kind"`
	Nodes    []node        `json:"nodes"`
	Topic    string        `json:"topic"`
	Key      string        `json:"key"`
	Any      bool          `json:"any"`
	WaitAll  bool          `json:"waitAll"`
	Continue bool          `json:"continue"`
}

func (n *node) name() string { return n.Path[strings.LastIndexByte(n.Path, '/')+1:] }

// index keeps the nodes by path; it says false when there is a kind that it does not know.
func (l *plan) index(nodes []node) bool {
	known := true
	for k := range nodes {
		n := &nodes[k]
		switch n.Kind {
		case eventlog.Process, eventlog.Execute, eventlog.Command, eventlog.Listen,
			eventlog.Parallel, eventlog.Decide, eventlog.At, eventlog.Every:
		default:
			known = false
		}
		l.nodes[n.Path] = n
		known = l.index(n.Nodes) && known
	}
	return known
}

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

// eval is what a node that was reached has come to: running, completed or failed. A task
// that does not run although its turn has come counts as running.
func (o *outlook) eval(n *node) status {
	switch n.Kind {
	case eventlog.Process:
		return o.sequence(n.Nodes)
	case eventlog.Parallel:
		return o.join(n)
	}
	t := o.task(n.Path)
	switch {
	case t == nil:
		return running
	case t.choice != "":
		for k := range n.Nodes {
			if b := &n.Nodes[k]; b.name() == t.choice {
				return o.sequence(n.Nodes[k : k+1])
			}
		}
	case t.status == completed, t.status == failed:
		return t.status
	}
	return running
}

func (o *outlook) sequence(nodes []node) status {
	for k := range nodes {
		if s := o.eval(&nodes[k]); s == running || s == failed && !nodes[k].Continue {
			return s
		}
	}
	return completed
}

func (o *outlook) join(n *node) status {
	open, lost := false, false
	for k := range n.Nodes {
		switch o.eval(&n.Nodes[k]) {
		case completed:
			if n.Any {
				return completed
			}
		case running:
			open = true
		default:
			lost = lost || !n.Nodes[k].Continue
		}
	}
	switch {
	case lost && (!open || !n.Any && !n.WaitAll):
		return failed
	case open:
		return running
	}
	return completed
}

// walk checks that exactly those tasks execute whose turn it is, and that the nodes around
// them have the status that follows. live says that the node's turn has come and that nothing
// around it has ended; branch that it is one of a Parallel.
func (o *outlook) walk(n *node, live, branch bool) {
	t := o.task(n.Path)
	has := none
	if t != nil {
		has = t.status
	}
	s := o.eval(n)
	switch {
	case !live:
		o.expect(has != running, "%s executes, which is not its turn", n)
	case n.Kind == eventlog.Process:
		o.expect(has != completed || s == completed, "%s has completed, what is inside has not", n)
		o.expect(!branch || s != completed || has == completed, "%s does not end with what is inside", n)
	case n.Kind == eventlog.Parallel || n.Kind == eventlog.Decide && t != nil && t.choice != "":
		o.expect(has == s || s == failed && o.fails, "%s does not have the status that follows from its branches", n)
	default:
		o.expect(has == s, "does not start %s, the next task", n)
	}
	if live && s == failed && o.fails {
		return // what executes inside is stopped with the instance, or was before
	}
	live = live && s != failed
	switch n.Kind {
	case eventlog.Process:
		o.steps(n.Nodes, live)
	case eventlog.Parallel:
		for k := range n.Nodes {
			b := &n.Nodes[k]
			o.walk(b, live && (s == running || !n.Any || o.eval(b) == completed), true)
		}
	case eventlog.Decide:
		for k := range n.Nodes {
			o.walk(&n.Nodes[k], live && t != nil && t.choice == n.Nodes[k].name(), false)
		}
	}
}

// steps walks through nodes that come one after the other.
func (o *outlook) steps(nodes []node, live bool) {
	for k := range nodes {
		o.walk(&nodes[k], live, false)
		s := o.eval(&nodes[k])
		live = live && (s == completed || s == failed && nodes[k].Continue)
	}
}

func (o *outlook) expect(ok bool, text string, n *node) {
	if !ok && o.err == "" {
		o.err = strings.Replace(text, "%s", n.Path, 1)
	}
}

// flow checks what starts and ends with an event, and says which one must follow.
func (p *partition) flow(i *instance, e *eventlog.Event) {
	switch e.Type {
	case eventlog.InstanceStarted, eventlog.InstanceRetried, eventlog.InstanceReset, eventlog.TaskCompleted, eventlog.TaskFailed:
	default:
		p.check(i, e, len(e.Ends) == 0 && len(e.Starts) == 0, "starts or ends other nodes")
		return
	}
	if i.broken || i.plan == nil || !i.plan.known || i.loose || i.status != running {
		return
	}
	o := i.outlook()
	whole := o.sequence(i.plan.root)
	o.fails = whole == failed
	o.steps(i.plan.root, true)
	if e.Type == eventlog.InstanceReset { // an operator may have given any state
		i.loose = o.err != "" || o.fails
	} else {
		p.check(i, e, o.err == "", "%s", o.err)
	}
	switch {
	case whole == completed:
		i.expect = eventlog.InstanceCompleted
	case whole != failed || i.loose:
	case e.Type == eventlog.TaskFailed:
		i.expect, i.path = eventlog.InstanceFailed, e.Path
	default:
		p.check(i, e, e.Type == eventlog.TaskCompleted, "the instance goes on although a task has failed")
		i.expect, i.path = eventlog.InstanceFailed, anyPath
	}
}

// anyPath stands for whichever task has failed: InstanceFailed names it.
const anyPath = "\x00"

// end takes the status that an event gives to another node.
func (p *partition) end(i *instance, x eventlog.End, e *eventlog.Event) {
	s := statusOf(x.Status)
	if !p.check(i, e, s != none && x.Status != "SUBMITTED", "gives node %s the unknown status %q", x.Path, x.Status) {
		return
	}
	if i.plan != nil && i.plan.known {
		n := i.plan.nodes[x.Path]
		if !p.check(i, e, n != nil && n.Kind == x.Kind, "ends %s %s, which is not in the plan", x.Kind, x.Path) {
			return
		}
		p.check(i, e, len(n.Nodes) > 0 || s == skipped || s == stopped, "gives task %s the status %s without an event of its own", x.Path, x.Status)
	}
	t := i.task(x.Path)
	if t == nil {
		i.tasks = append(i.tasks, task{path: x.Path, kind: x.Kind})
		t = &i.tasks[len(i.tasks)-1]
	} else {
		p.check(i, e, t.status != completed, "ends node %s, which has completed", x.Path)
		p.check(i, e, t.status != skipped || s == running, "ends node %s, which was skipped", x.Path)
		p.check(i, e, t.status != running || s != running, "lets node %s go on, which executes", x.Path)
	}
	p.check(i, e, s != stopped || t.status == running, "stops node %s, which does not execute", x.Path)
	*t = task{path: t.path, kind: t.kind, status: s, choice: t.choice, message: t.message && s == stopped}
	if s == running {
		t.phase = inside
	}
}

// completed checks that nothing executes behind the end; that the plan has come to its end
// was judged with the event before.
func (p *partition) completed(i *instance, e *eventlog.Event) {
	for _, t := range i.tasks {
		p.check(i, e, t.status != running, "task %s executes", t.path)
	}
}
