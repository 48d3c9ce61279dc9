package machine

import (
	"bytes"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// join looks whether a Parallel or ForEach has ended with one of its nodes.
func (f *flow) join(p place, s Status) {
	if p.n.Kind == eventlog.ForEach {
		f.joinItems(p)
		return
	}
	if p.n.Any && s == Completed {
		for k := range p.n.Nodes {
			f.skip(p.child(k))
		}
		f.note(p, Completed)
		f.ended(p, Completed)
		return
	}
	if f.busy(p) {
		return
	}
	failures := false
	for k := range p.n.Nodes {
		c := p.child(k)
		if !f.finished(c) {
			return
		}
		failures = failures || f.status(c) == Failure && !c.n.Continue
	}
	f.joined(p, failures)
}

// busy says that something executes inside a Parallel, which is to be seen with one look at the
// tasks. What it does not see, the statuses of the branches say.
func (f *flow) busy(p place) bool {
	for k := range f.i.Tasks {
		t := &f.i.Tasks[k]
		if t.Status != Executing || t.Over || len(t.Path) <= len(p.path) || t.Path[len(p.path)] != '/' || t.Path[:len(p.path)] != p.path {
			continue
		}
		if _, ends := f.now[t.Path]; !ends {
			return true
		}
	}
	return false
}

func (f *flow) joined(p place, failures bool) {
	switch {
	case failures:
		f.note(p, Failure)
		f.fail(p)
	case p.n.Collect:
		f.collect(p)
	default:
		f.note(p, Completed)
		f.ended(p, Completed)
	}
}

// joinItems begins further runs of a ForEach, as many as may run at once, and sees whether all
// have ended.
func (f *flow) joinItems(p place) {
	states := f.states(p)
	running, failures := 0, false
	for _, state := range states {
		switch state {
		case itemExecuting:
			running++
		case itemFailed:
			failures = true
		}
	}
	for k, state := range states {
		if state != itemNotStarted && state != itemStopped {
			continue
		}
		if limit := p.n.Concurrency; limit > 0 && running >= limit {
			return
		}
		f.beginItem(p.item(k), state == itemStopped)
		running++
	}
	if running == 0 {
		f.joined(p, failures)
	}
}

// states are those of the runs of a ForEach, as this event leaves them.
func (f *flow) states(p place) []byte {
	states := bytes.Repeat([]byte{itemNotStarted}, f.count(p))
	if items := f.i.ItemsOf(p.path); items != nil && (f.e.Path != p.path || len(f.e.Items) == 0) {
		copy(states, items.States)
	}
	for path, s := range f.now {
		if strings.HasSuffix(path, "]") && path[:strings.LastIndexByte(path, '[')] == p.path {
			states[indexOf(path)] = itemState(s)
		}
	}
	return states
}

// others says whether a join has nodes beside b that have not ended.
func (f *flow) others(p, b place) bool {
	if p.n.Kind == eventlog.ForEach {
		for k := range f.count(p) {
			if c := p.item(k); c.path != b.path && !f.finished(c) {
				return true
			}
		}
		return false
	}
	for k := range p.n.Nodes {
		if c := p.child(k); c.path != b.path && !f.finished(c) {
			return true
		}
	}
	return false
}
