package audit

import (
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// node is a node of a recorded plan.
type node struct {
	Path          string        `json:"path"`
	Kind          eventlog.Kind `json:"kind"`
	Nodes         []node        `json:"nodes"`
	Attached      []node        `json:"attached"`
	Topic         string        `json:"topic"`
	Key           string        `json:"key"`
	Any           bool          `json:"any"`
	WaitAll       bool          `json:"waitAll"`
	Continue      bool          `json:"continue"`
	Goto          string        `json:"goto"`
	Gotos         int           `json:"gotos"`
	One           bool          `json:"one"`
	Reprocess     bool          `json:"reprocess"`
	SkipTo        string        `json:"skipTo"`
	Concurrency   int           `json:"concurrency"`
	Collect       bool          `json:"collect"`
	Deadline      int64         `json:"deadline"`
	DeadlineAt    bool          `json:"deadlineAt"`
	DeadlineFails bool          `json:"deadlineFails"`
}

// tracked says that a process has a start of its own.
func (n *node) tracked() bool {
	return n.Kind == eventlog.Process && (n.Deadline > 0 || n.DeadlineAt ||
		slices.ContainsFunc(n.Attached, func(a node) bool { return a.Kind == eventlog.OnStop }))
}

// chosen is the process of a Dynamic that has the name.
func (n *node) chosen(name string) *node {
	for k := range n.Nodes {
		for j := range n.Nodes[k].Nodes {
			if c := &n.Nodes[k].Nodes[j]; c.name() == name {
				return c
			}
		}
	}
	return nil
}

func (n *node) name() string { return n.Path[strings.LastIndexByte(n.Path, '/')+1:] }

// index keeps the nodes by path; it says false when there is a kind that it does not know.
func (l *plan) index(nodes []node) bool {
	known := true
	for k := range nodes {
		n := &nodes[k]
		switch n.Kind {
		case eventlog.Process, eventlog.Execute, eventlog.Command, eventlog.Listen,
			eventlog.Parallel, eventlog.Decide, eventlog.At, eventlog.Every,
			eventlog.ForEach, eventlog.Dynamic, eventlog.Monitor, eventlog.OnStop:
		default:
			known = false
		}
		l.nodes[n.Path] = n
		known = l.index(n.Attached) && known
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

// place is a node in an instance: what runs more than once has a path with an index.
type place struct {
	*node
	at string
}

func (pl place) child(k int) place {
	c := &pl.Nodes[k]
	if pl.at == pl.Path {
		return place{c, c.Path}
	}
	return place{c, pl.at + "/" + c.name()}
}

// item is a run of a ForEach; chosen one of a Dynamic.
func (pl place) item(k int) place {
	return place{&pl.Nodes[0], pl.at + "[" + strconv.Itoa(k) + "]"}
}

func (pl place) choice(k int, name string) (place, bool) {
	c := pl.chosen(name)
	return place{c, pl.at + "[" + strconv.Itoa(k) + "]/" + name}, c != nil
}

// eval is what a node that was reached has come to: running, completed or failed. A task
// that does not run although its turn has come counts as running.
func (o *outlook) eval(pl place) status {
	switch pl.Kind {
	case eventlog.Process:
		return o.sequence(pl)
	case eventlog.Parallel:
		return o.join(pl)
	}
	t := o.task(pl.at)
	switch {
	case t == nil:
		return running
	case t.choice != "":
		for k := range pl.Nodes {
			if c := pl.child(k); c.name() == t.choice {
				if s := o.eval(c); s != failed || !c.Continue {
					return s
				}
				return completed
			}
		}
	case len(t.choices) > 0:
		for k, name := range t.choices {
			if c, ok := pl.choice(k, name); ok {
				if s := o.eval(c); s == running || s == failed && !c.Continue {
					return s
				}
			}
		}
		return completed
	case t.items != nil && !t.collect:
		return o.joinItems(pl, t)
	case t.status == completed, t.status == failed:
		return t.status
	}
	return running
}

func (o *outlook) sequence(pl place) status {
	for k := range pl.Nodes {
		if s := o.eval(pl.child(k)); s == running || s == failed && !pl.Nodes[k].Continue {
			return s
		}
	}
	return completed
}

func (o *outlook) join(pl place) status {
	open, lost := false, false
	for k := range pl.Nodes {
		switch o.eval(pl.child(k)) {
		case completed:
			if pl.Any {
				return completed
			}
		case running:
			open = true
		default:
			lost = lost || !pl.Nodes[k].Continue
		}
	}
	switch {
	case lost && (!open || !pl.Any && !pl.WaitAll):
		return failed
	case open:
		return running
	}
	return completed
}

// joinItems is what the runs of a ForEach come to, before its handler gets them.
func (o *outlook) joinItems(pl place, t *task) status {
	open, lost := false, false
	for k, s := range t.items {
		if s == running {
			s = o.sequence(pl.item(k))
		}
		switch s {
		case failed:
			lost = true
		case completed, skipped:
		default:
			open = true
		}
	}
	switch {
	case lost && (!open || !pl.WaitAll):
		return failed
	case open || pl.Collect: // its handler comes
		return running
	}
	return completed
}

// walk checks that exactly those tasks execute whose turn it is, and that the nodes around
// them have the status that follows. live says that the node's turn has come and that nothing
// around it has ended; branch that it is one of a Parallel.
func (o *outlook) walk(pl place, live, branch bool) {
	t := o.task(pl.at)
	has := none
	if t != nil {
		has = t.status
	}
	s := o.eval(pl)
	inside := pl.Kind == eventlog.Parallel || t != nil && (t.choice != "" || len(t.choices) > 0 || t.items != nil && !t.collect)
	switch {
	case !live:
		o.expect(has != running, "%s executes, which is not its turn", pl.at)
	case pl.Kind == eventlog.Process && pl.tracked():
		o.expect(has == s || s == failed && o.fails, "%s does not have the status that follows from what is inside", pl.at)
	case pl.Kind == eventlog.Process:
		o.expect(has != completed || s == completed, "%s has completed, what is inside has not", pl.at)
		o.expect(!branch || s != completed || has == completed, "%s does not end with what is inside", pl.at)
	case inside:
		o.expect(has == s || s == failed && o.fails, "%s does not have the status that follows from its branches", pl.at)
	default:
		o.expect(has == s, "does not start %s, the next task", pl.at)
	}
	if live && s == failed && o.fails {
		return // what executes inside is stopped with the instance, or was before
	}
	live = live && s != failed
	switch pl.Kind {
	case eventlog.Process:
		o.steps(pl, live)
	case eventlog.Parallel:
		for k := range pl.Nodes {
			b := pl.child(k)
			o.walk(b, live && (s == running || !pl.Any || o.eval(b) == completed), true)
		}
	case eventlog.Decide:
		for k := range pl.Nodes {
			o.walk(pl.child(k), live && t != nil && t.choice == pl.Nodes[k].name(), false)
		}
	case eventlog.Dynamic:
		for k := 0; t != nil && k < len(t.choices); k++ {
			if c, ok := pl.choice(k, t.choices[k]); ok {
				o.walk(c, live, false)
				e := o.eval(c)
				live = live && (e == completed || e == failed && c.Continue)
			}
		}
	case eventlog.ForEach:
		if t != nil && t.items != nil && !t.collect {
			o.items(pl, t, live && s == running)
		}
	}
}

// items walks through the runs of a ForEach: as many as may be at once execute.
func (o *outlook) items(pl place, t *task, live bool) {
	now, later := 0, false
	for k, s := range t.items {
		switch s {
		case running:
			now++
			if live {
				o.expect(o.sequence(pl.item(k)) == running || o.fails, "%s does not end with what is inside", pl.at)
			}
			o.steps(pl.item(k), live)
		case stopped:
			now++
		case none:
			later = true
		}
	}
	if live && !o.fails {
		o.expect(!later || pl.Concurrency > 0 && now >= pl.Concurrency, "%s does not begin its next run", pl.at)
		o.expect(pl.Concurrency == 0 || now <= pl.Concurrency, "%s has too many runs at once", pl.at)
		o.expect(now > 0, "%s does not end with its runs", pl.at)
	}
}

// steps walks through nodes that come one after the other.
func (o *outlook) steps(pl place, live bool) {
	for k := range pl.Nodes {
		c := pl.child(k)
		o.walk(c, live, false)
		s := o.eval(c)
		live = live && (s == completed || s == failed && c.Continue)
	}
}

func (o *outlook) expect(ok bool, text, path string) {
	if !ok && o.err == "" {
		o.err = strings.Replace(text, "%s", path, 1)
	}
}

// flow checks what starts and ends with an event, and says which one must follow.
func (p *partition) flow(i *instance, e *eventlog.Event) {
	switch e.Type {
	case eventlog.InstanceStarted, eventlog.InstanceRetried, eventlog.InstanceReset, eventlog.TaskCompleted, eventlog.TaskFailed,
		eventlog.DeadlinePassed, eventlog.SkippedTo, eventlog.InstanceStopping:
	default:
		p.check(i, e, len(e.Ends) == 0 && len(e.Starts) == 0, "starts or ends other nodes")
		return
	}
	if i.stopping {
		p.stopping(i, e)
		return
	}
	if e.Type == eventlog.SkippedTo {
		n := i.planned(e.Path)
		p.check(i, e, n == nil || n.Kind == eventlog.Listen && n.SkipTo != "", "task %s does not skip", e.Path)
		i.loose = true
	}
	if i.broken || i.plan == nil || !i.plan.known || i.loose || i.status != running {
		return
	}
	o := i.outlook()
	root := place{&node{Kind: eventlog.Process, Nodes: i.plan.root}, ""}
	whole := o.sequence(root)
	o.fails = whole == failed
	o.steps(root, true)
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
	if x.Status == "NOT_STARTED" {
		return // forgotten before
	}
	s := statusOf(x.Status)
	if !p.check(i, e, s != none && x.Status != "SUBMITTED", "gives node %s the unknown status %q", x.Path, x.Status) {
		return
	}
	if i.plan != nil && i.plan.known {
		n := i.plan.node(x.Path)
		if !p.check(i, e, n != nil && n.Kind == x.Kind, "ends %s %s, which is not in the plan", x.Kind, x.Path) {
			return
		}
		p.check(i, e, len(n.Nodes) > 0 || s == skipped || s == stopped, "gives task %s the status %s without an event of its own", x.Path, x.Status)
	}
	if strings.HasSuffix(x.Path, "]") {
		p.endItem(i, x, s, e)
		return
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
	p.check(i, e, s != stopped || t.status == running || x.Kind == eventlog.Process, "stops node %s, which does not execute", x.Path)
	if n := i.planned(x.Path); s == completed && x.Kind == eventlog.ForEach && n != nil && e.Type != eventlog.InstanceReset {
		for _, item := range t.items {
			p.check(i, e, item == completed || item == skipped, "%s completes, and a run of it has not", x.Path)
		}
		p.check(i, e, !n.Collect, "%s completes without the handler of its items", x.Path)
	}
	*t = task{path: t.path, kind: t.kind, status: s, choice: t.choice, message: t.message && s == stopped,
		choices: t.choices, items: t.items, collect: t.collect, over: t.over}
	if s == running {
		t.phase = inside
	}
	if s == completed || s == skipped {
		i.forgetItems(x.Path)
	}
}

// planned is the node of the plan behind a path; nil when it is not known.
func (i *instance) planned(path string) *node {
	if i.plan == nil || !i.plan.known {
		return nil
	}
	return i.plan.node(path)
}

// stopping checks that nothing but on-stop handlers executes, and that the stop ends with
// the last of them.
func (p *partition) stopping(i *instance, e *eventlog.Event) {
	on := false
	for _, t := range i.tasks {
		if t.status == running {
			on = true
			p.check(i, e, t.kind == eventlog.OnStop || e.Type == eventlog.InstanceReset, "task %s executes in an instance that is being stopped", t.path)
		}
	}
	if !on && (e.Type == eventlog.TaskCompleted || e.Type == eventlog.TaskFailed) {
		i.expect = eventlog.InstanceStopped
	}
}

// completed checks that nothing executes behind the end; that the plan has come to its end
// was judged with the event before.
func (p *partition) completed(i *instance, e *eventlog.Event) {
	for _, t := range i.tasks {
		p.check(i, e, t.status != running, "task %s executes", t.path)
	}
}
