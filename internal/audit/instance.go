package audit

import (
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// status of an instance.
type status byte

const (
	none status = iota
	running
	completed
	failed
	stopped
	skipped
)

// instance is what the auditor keeps of an instance: enough to say which event may follow.
type instance struct {
	seq, run  uint64
	status    status
	frozen    bool // in quarantine
	broken    bool // reported once; what follows from it is not
	loose     bool // its state was given by an operator and does not follow from the plan
	plan      *plan
	evaluate  uint64
	expect    eventlog.Type   // the event that must follow
	path      string          // of it
	stopping  bool            // on-stop handlers run
	stop      string          // request of the kept stop that must follow
	flowEnded bool            // only listeners that work again are left
	jumps     map[string]int  // how often the flow went elsewhere when a node had failed
	passed    map[string]bool // nodes that the flow jumped over, or out of
	way       way             // of the flow with the event at hand
	tasks     []task
	keys      []eventlog.TaskKey
	subs      []sub
	buffer    []buffered
	calls     []uint64   // hashes
	dropped   []buffered // that left the buffer; a MessageDropped must follow for each
	held      []buffered // held deliveries; without msg another request
	released  buffered   // the held delivery that is being decided
}

func (i *instance) applied(call uint64) bool { return slices.Contains(i.calls, call) }

// check reports a broken rule of the instance, once.
func (p *partition) check(i *instance, e *eventlog.Event, ok bool, format string, args ...any) bool {
	if !ok && !i.broken {
		i.broken = true
		p.fail(e, format, args...)
	}
	return ok
}

// instance checks one event of an instance's history.
func (p *partition) instance(e *eventlog.Event) {
	i := p.instances[e.ID]
	if i == nil {
		i = &instance{}
		p.instances[strings.Clone(e.ID)] = i
		p.home(e)
	}
	p.check(i, e, e.Seq == i.seq+1, "seq %d follows seq %d", e.Seq, i.seq)
	i.seq = e.Seq
	p.call(i, e)
	p.overtaken(i, e)
	if e.Type == eventlog.InstanceStarted {
		p.check(i, e, i.run == 0, "the instance was started before, by event %d", i.run)
		p.check(i, e, e.Run == e.N, "run %d is not the number of the event", e.Run)
		i.run = e.Run
	}
	p.check(i, e, e.Run == i.run, "run %d, the instance is in run %d", e.Run, i.run)
	if !i.broken {
		p.follows(i, e)
	}
	if !i.broken {
		p.transition(i, e)
	}
	p.mailbox(i, e)
	if !i.broken {
		p.after(i, e)
	}
	if e.Type == eventlog.InstanceDeleted { // another history may begin
		*i = instance{calls: i.calls}
	}
}

// call checks that the call that the event answers was not answered before.
func (p *partition) call(i *instance, e *eventlog.Event) {
	if e.Request == "" {
		return
	}
	h := p.a.hash(e.Request)
	if i.applied(h) {
		p.fail(e, "call %s is applied a second time", e.Request)
		return
	}
	if r, ok := p.refused[p.a.hash(e.ID, e.Request)]; ok && r.made && e.At-r.at < 24*3600_000 {
		p.fail(e, "call %s had been refused", e.Request)
	}
	i.calls = append(i.calls, h)
}

// follows checks that the type may come now.
func (p *partition) follows(i *instance, e *eventlog.Event) {
	if e.Type == eventlog.InstanceQuarantined {
		p.check(i, e, !i.frozen, "the instance is in quarantine")
		return
	}
	if i.frozen {
		p.check(i, e, e.Type == eventlog.InstanceReset, "the instance is in quarantine")
		return
	}
	if i.expect != "" {
		p.check(i, e, e.Type == i.expect && (e.Path == i.path || i.path == anyPath && e.Path != ""), "%s of %q must come first", i.expect, i.path)
	}
	switch e.Type {
	case eventlog.InstanceCompleted:
		p.check(i, e, i.expect == e.Type || i.loose || i.plan == nil || !i.plan.known || i.status != running, "the flow has not come to its end")
	case eventlog.InstanceStarted:
		p.check(i, e, i.status == none, "the instance runs or has ended")
	case eventlog.InstanceRetried:
		p.check(i, e, i.status == failed, "the instance has not failed")
	case eventlog.InstanceReset:
		p.check(i, e, false, "the instance is not in quarantine")
	case eventlog.InstanceDeleted:
		p.check(i, e, i.status == completed || i.status == failed || i.status == stopped, "the instance has not ended")
	}
	switch e.Type {
	case eventlog.InstanceStarted, eventlog.InstanceRetried, eventlog.InstanceReset, eventlog.InstanceDeleted:
	default:
		p.check(i, e, i.status != none, "the instance was never started")
		p.check(i, e, i.status == running, "the instance has ended")
	}
}

// transition folds what the event changes of the instance itself.
func (p *partition) transition(i *instance, e *eventlog.Event) {
	i.expect, i.path, i.way = "", "", way{}
	switch e.Type {
	case eventlog.InstanceStarted:
		i.status, i.plan = running, p.plans[e.Plan]
		if p.check(i, e, i.plan != nil, "plan %s was not recorded before", e.Plan) {
			p.check(i, e, i.plan.name == e.Definition, "plan %s is of definition %q", e.Plan, i.plan.name)
		}
	case eventlog.InstanceRetried:
		i.status = running
		for _, s := range e.Starts {
			t := i.task(s.Path)
			p.check(i, e, t != nil && (t.status == failed || t.status == stopped || t.status == skipped && s.Kind == eventlog.Monitor), "task %s did not fail", s.Path)
		}
	case eventlog.InstanceQuarantined:
		p.check(i, e, e.Act < e.Seq, "the last good event %d is not before it", e.Act)
		i.frozen = true
		return
	case eventlog.InstanceReset:
		p.reset(i, e)
	}
	for _, k := range e.Keys {
		i.setKey(k)
	}
	p.task(i, e)
	if e.Type == eventlog.SkippedTo {
		p.skippedTo(i, e)
	}
	switch {
	case e.Evaluate:
		i.evaluate = e.Seq
	case e.Type == eventlog.KeysEvaluated:
		i.evaluate = 0
	}
	if e.Type == eventlog.InstanceStopping {
		p.check(i, e, !i.stopping, "the instance is being stopped")
		p.check(i, e, len(e.Starts) > 0, "without an on-stop handler")
		i.stopping, i.evaluate = true, 0
	}
	p.forgets(i, e) // before anything starts again in this event
	for _, s := range e.Starts {
		p.start(i, s, e)
	}
	for _, x := range e.Ends {
		p.end(i, x, e)
	}
	p.flow(i, e)
	switch e.Type {
	case eventlog.InstanceCompleted:
		p.completed(i, e)
		i.end(completed)
	case eventlog.InstanceFailed:
		t := i.task(e.Path)
		p.check(i, e, !i.stopping, "fails, and it is being stopped")
		if e.Path == "" {
			p.check(i, e, i.evaluate != 0 || i.loose, "no task failed, and no key was to be computed")
		} else {
			p.check(i, e, t != nil && t.status == failed, "task %s has not failed", e.Path)
			n := i.planned(e.Path)
			p.check(i, e, n == nil || !n.Continue, "names %s, which may fail", e.Path)
		}
		i.end(failed)
	case eventlog.InstanceStopped:
		i.end(stopped)
	case eventlog.FlowEnded:
		p.check(i, e, !i.flowEnded, "the flow has ended before")
		over := false
		for _, t := range i.tasks {
			over = over || t.status == running && t.over
			p.check(i, e, t.status != running || t.over, "task %s executes", t.path)
		}
		p.check(i, e, over, "no listener works")
		i.flowEnded = true
	}
}

func (i *instance) end(s status) {
	i.status, i.evaluate, i.stopping, i.expect = s, 0, false, ""
	if s != failed { // nothing more can happen to its tasks
		i.tasks, i.keys = nil, nil
		return
	}
	for k := range i.tasks {
		if t := &i.tasks[k]; t.status == running {
			*t = task{path: t.path, kind: t.kind, status: stopped, choice: t.choice, message: t.message,
				choices: t.choices, items: t.items, collect: t.collect, over: t.over}
		}
	}
}

func (i *instance) setKey(k eventlog.TaskKey) {
	for j := range i.keys {
		if i.keys[j].Path == k.Path {
			i.keys[j].Value = k.Value
			return
		}
	}
	i.keys = append(i.keys, k)
}

func (i *instance) key(path string) string {
	for _, k := range i.keys {
		if k.Path == path {
			return k.Value
		}
	}
	return ""
}
