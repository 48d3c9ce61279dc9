package audit

import (
	"slices"
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
	if i.broken || i.plan == nil || !i.plan.known || i.loose || i.status != running {
		return
	}
	p.stays(i, e)
	o := i.outlook()
	root := o.root()
	whole := o.sequence(root)
	over := i.again()
	if over == failed {
		whole = failed
	}
	o.fails = whole == failed
	o.steps(root, true)
	if e.Type == eventlog.InstanceReset { // an operator may have given any state
		i.loose = o.err != "" || o.fails
	} else {
		p.check(i, e, o.err == "", "%s", o.err)
	}
	switch {
	case whole == completed && over == running:
		if !i.flowEnded {
			i.expect = eventlog.FlowEnded
		}
	case whole == completed:
		i.expect = eventlog.InstanceCompleted
	case whole != failed || i.loose:
	case (e.Type == eventlog.TaskFailed || e.Type == eventlog.DeadlinePassed && e.Error != "") && i.task(e.Path) != nil && !o.mayFail(e.Path):
		i.expect, i.path = eventlog.InstanceFailed, e.Path
	default:
		p.check(i, e, e.Type == eventlog.TaskCompleted || e.Type == eventlog.TaskFailed || e.Type == eventlog.DeadlinePassed, "the instance goes on although a task has failed")
		i.expect, i.path = eventlog.InstanceFailed, anyPath
	}
}

// again is what the listeners that work again have come to.
func (i *instance) again() status {
	s := completed
	for _, t := range i.tasks {
		switch {
		case !t.over:
		case t.status == failed:
			if n := i.planned(t.path); (n == nil || !n.Continue) && !i.later(t.path) {
				return failed
			}
		case t.status == running:
			s = running
		}
	}
	return s
}

// later says that a node is in a run of a ForEach that a retry has left for later.
func (i *instance) later(path string) bool {
	is := false
	runs(path, func(run, _ string) {
		of, index, _ := cut(run)
		t := i.task(of)
		is = is || t != nil && index >= 0 && index < len(t.items) && t.items[index] == stopped
	})
	return is
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
