package audit

import (
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// keptStop is a stop that came before its instance was started.
type keptStop struct {
	n          uint64
	definition string
	request    string
	expires    int64
}

// stopKept checks that a stop is kept where there is nothing to stop.
func (p *partition) stopKept(e *eventlog.Event) {
	if i := p.instances[e.ID]; i != nil && i.run > 0 {
		p.fail(e, "the instance exists")
		return
	}
	if e.Definition == "" || e.Request == "" || e.Message == nil || e.Expires <= e.At {
		p.fail(e, "without a definition, a request, a message, or time to live")
		return
	}
	if i := p.instances[e.ID]; i != nil && i.applied(p.a.hash(e.Request)) {
		p.fail(e, "call %s is kept and was applied", e.Request)
	}
	l := slices.DeleteFunc(p.stops[e.ID], func(s keptStop) bool { return s.definition == e.Definition })
	p.stops[strings.Clone(e.ID)] = append(l, keptStop{e.N, strings.Clone(e.Definition), strings.Clone(e.Request), e.Expires})
}

// stopExpired checks that the stop was here until its time was over, or its instance had ended.
func (p *partition) stopExpired(e *eventlog.Event) {
	l := p.stops[e.ID]
	k := slices.IndexFunc(l, func(s keptStop) bool { return s.n == e.Msg })
	if k < 0 {
		p.fail(e, "no stop %d is kept", e.Msg)
		return
	}
	switch i := p.instances[e.ID]; {
	case i != nil && i.frozen:
		p.fail(e, "the instance is in quarantine")
	case e.At < l[k].expires && (i == nil || i.run == 0 || i.status == running):
		p.fail(e, "stop %d has time left", e.Msg)
	}
	p.dropStop(e.ID, k)
}

func (p *partition) dropStop(id string, k int) {
	if p.stops[id] = slices.Delete(p.stops[id], k, k+1); len(p.stops[id]) == 0 {
		delete(p.stops, id)
	}
}

// overtaken checks that an instance whose stop came before its start is stopped next.
func (p *partition) overtaken(i *instance, e *eventlog.Event) {
	if i.stop != "" && e.Type != eventlog.InstanceQuarantined {
		p.check(i, e, e.Request == i.stop && (e.Type == eventlog.InstanceStopped || e.Type == eventlog.InstanceStopping), "the stop %s, which is kept, must come first", i.stop)
	}
	i.stop = ""
	for k, s := range p.stops[e.ID] {
		if s.request == e.Request {
			p.dropStop(e.ID, k)
			return
		}
	}
	if e.Type == eventlog.InstanceStarted {
		p.awaitStop(i, e, e.Definition)
	}
}

// awaitStop is called when an instance of the definition works: what is kept for it follows.
func (p *partition) awaitStop(i *instance, e *eventlog.Event, definition string) {
	for _, s := range p.stops[e.ID] {
		if s.definition == definition {
			i.stop = s.request
		}
	}
}
