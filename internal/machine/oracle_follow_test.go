package machine

import (
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// begin is a task whose turn has come.
func (o *oracle) begin(n *Node, path string) *activity {
	a := &activity{n: n}
	switch {
	case n.Kind == eventlog.Listen && o.held[path] == nil, n.Kind == eventlog.At, n.Kind == eventlog.Monitor:
		a.wait(o.now())
	default:
		a.run(1, o.now())
		a.msg = o.held[path]
	}
	delete(o.held, path)
	return a
}

// handles says that a node that executes does so by itself, not by what is inside; collect that
// its handler gets the items of a ForEach.
func (o *oracle) handles(v spot) (itself, collect bool) {
	_, has := o.results[v.path]
	switch v.n.Kind {
	case eventlog.Process, eventlog.Parallel:
		return false, false
	case eventlog.ForEach:
		if !has {
			return true, false
		}
		for _, c := range o.inside(v) {
			if s, _ := o.eval(c); s != Completed {
				return false, false
			}
		}
		return true, true
	}
	return !has, false
}

// advance works out what is at work after something has happened.
func (o *oracle) advance() {
	if o.whole.ended() || o.stopping {
		return
	}
	o.work(o.root())
	o.whole, _ = o.eval(o.root())
	o.look()
	maps.DeleteFunc(o.over, func(path string, _ *activity) bool { return o.isGone(path) })
	for path, a := range o.over {
		if a.again && !o.broken && o.runs(path) {
			msg := a.msg
			a.run(1, o.now())
			a.msg, a.again = msg, false
		}
	}
	if o.broken || slices.ContainsFunc(slices.Collect(maps.Values(o.over)), func(a *activity) bool { return a.status == Failure && !a.n.Continue }) {
		o.whole = Failure
	}
	working := slices.ContainsFunc(slices.Collect(maps.Values(o.over)), func(a *activity) bool { return a.status == Executing })
	if o.flowEnded = o.whole == Completed && working; o.flowEnded {
		o.whole = Executing
	}
	if o.whole.ended() {
		o.stale = false
	}
	o.follow()
}

func (s Status) ended() bool { return s == Completed || s == Failure || s == Stopped }

// cut is what executes has come to when the instance has ended.
func (o *oracle) cut() Status {
	if o.whole == Failure || o.whole == Stopped || o.stopping {
		return Stopped
	}
	return ""
}

// follow gives what executes an activity, and ends those of what does not.
func (o *oracle) follow() {
	o.status, o.nodes = map[string]Status{}, map[string]*Node{}
	o.assign(o.root(), o.cut())
	for path, a := range o.acts {
		itself, collect := o.handles(spot{a.n, path})
		if s := o.status[path]; s != Executing || !itself || collect != a.collect {
			if s == Stopped && o.whole != Stopped && !o.stopping && a.msg != nil {
				o.held[path] = a.msg
			}
			delete(o.acts, path)
		}
	}
	for path := range o.times {
		if o.status[path] != Executing {
			delete(o.times, path)
		}
	}
	for path, a := range o.monitors {
		if at := o.status[path[:strings.LastIndexByte(path, '@')]]; a.status == Executing && at != Executing {
			if a.status = Skipped; at == Stopped {
				a.status = Stopped
			}
		}
		if o.isGone(path) {
			delete(o.monitors, path)
		}
	}
	for _, a := range o.over {
		if a.status == Executing && o.cut() != "" {
			a.status = Stopped
		}
	}
	for _, path := range slices.Sorted(maps.Keys(o.status)) {
		n := o.nodes[path]
		if o.status[path] != Executing || path == "" {
			continue
		}
		if n.Deadline > 0 || n.DeadlineAt {
			if o.times[path] == nil {
				o.times[path] = &activity{n: n, since: o.now()}
			}
		}
		for k := range n.Attached {
			m := &n.Attached[k]
			at := path + m.Path[strings.LastIndexByte(m.Path, '@'):]
			if a := o.monitors[at]; m.Kind == eventlog.Monitor && (a == nil || a.status == Skipped || a.status == Stopped) {
				o.monitors[at] = o.begin(m, at)
			}
		}
		if itself, collect := o.handles(spot{n, path}); itself && o.acts[path] == nil {
			o.acts[path] = o.begin(n, path)
			o.acts[path].collect = collect
		}
	}
	for _, of := range slices.Sorted(maps.Keys(o.params)) {
		if of != "" && o.itemsAreGone(of[:strings.LastIndexByte(of, '[')]) {
			delete(o.params, of)
			delete(o.known, of)
		}
	}
}

// itemsAreGone says that nothing is known any more of the runs of a ForEach.
func (o *oracle) itemsAreGone(path string) bool {
	s, is := o.status[path]
	if _, has := o.results[path]; !has {
		return true
	}
	return !is && !o.later(path) || s == Completed || s == Skipped
}

// isGone says that a node has ended with the run of a ForEach that it is in, and nothing is known of it.
func (o *oracle) isGone(path string) bool {
	for end := strings.IndexByte(path, ']'); end >= 0; {
		run := path[:end+1]
		of := run[:strings.LastIndexByte(run, '[')]
		if o.plan.Node(of).Kind == eventlog.ForEach {
			if s, is := o.status[run]; !is && !o.later(run) || s == Completed || s == Skipped || o.itemsAreGone(of) {
				return true
			}
		}
		next := strings.IndexByte(path[end+1:], ']')
		if next < 0 {
			break
		}
		end += 1 + next
	}
	return false
}
