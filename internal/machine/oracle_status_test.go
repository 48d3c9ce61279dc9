package machine

import "github.com/godagger/dagger/eventlog"

// work begins runs of each ForEach, in order, while fewer work than may.
func (o *oracle) work(v spot) {
	if _, over := o.skipped[v.path]; over {
		return
	}
	if s, _ := o.eval(v); v.n.Kind == eventlog.ForEach && s == Executing {
		running := 0
		for _, c := range o.inside(v) {
			if s, _ := o.eval(c); s == Executing && o.working[c.path] {
				running++
			}
		}
		for _, c := range o.inside(v) {
			if s, _ := o.eval(c); s == Executing && !o.working[c.path] && (v.n.Concurrency == 0 || running < v.n.Concurrency) {
				o.working[c.path] = true
				running++
			}
		}
	}
	for _, c := range o.inside(v) {
		o.work(c)
	}
}

// assign gives each task its status. cut is what a task that executes has come to, because
// something around it has ended; "" when nothing has. NotStarted stands for a node that was
// not reached, whether it was skipped or not. Of a run of a ForEach that has done its work, or
// was skipped, nothing but that is known; of a ForEach that completed or was skipped neither.
func (o *oracle) assign(v spot, cut Status) {
	n := v.n
	if _, over := o.skipped[v.path]; over {
		for path, s := range o.frozen {
			if within(path, v.path) {
				o.set(spot{o.plan.Node(path), path}, s)
			}
		}
		return
	}
	s, _ := o.eval(v)
	if s == Executing && cut != "" {
		s = cut
	}
	o.set(v, s)
	if _, passed := o.results[v.path+"!"]; passed && s == Completed || s == Failure && n.Continue {
		cut = Skipped
	}
	if (n.Kind == eventlog.ForEach || n.item && n.parent.Kind == eventlog.ForEach) && (s == Completed || s == Skipped) {
		return
	}
	switch n.Kind {
	case eventlog.Process, eventlog.Dynamic:
		going := true
		for _, c := range o.inside(v) {
			if !going {
				o.unreached(c)
				continue
			}
			o.assign(c, cut)
			s, _ := o.eval(c)
			going = s == Completed || s == Failure && c.n.Continue
		}
	case eventlog.Parallel, eventlog.ForEach:
		for _, c := range o.inside(v) {
			in := cut
			own, _ := o.eval(c)
			if n.Kind == eventlog.ForEach && own == Executing && !o.working[c.path] {
				o.set(c, NotStarted) // or STOPPED, when it has worked before a retry
				continue
			}
			switch {
			case own == Failure && !c.n.Continue && (n.Any || n.WaitAll) && !o.lastToEnd(v, c):
				in = Stopped
			case n.Any && s == Completed && own != Completed:
				in = Skipped
			}
			o.assign(c, in)
		}
	case eventlog.Decide:
		for _, c := range o.inside(v) {
			if o.results[v.path].choice == c.n.name() {
				o.assign(c, cut)
			} else {
				o.unreached(c)
			}
		}
	}
}

func (o *oracle) set(v spot, s Status) { o.status[v.path], o.nodes[v.path] = s, v.n }

// lastToEnd says that a failed node ended when all beside it had.
func (o *oracle) lastToEnd(v, c spot) bool {
	_, mine := o.eval(c)
	for _, x := range o.inside(v) {
		if s, at := o.eval(x); s == Executing || at > mine {
			return false
		}
	}
	return true
}

func (o *oracle) unreached(v spot) {
	o.set(v, NotStarted)
	for _, c := range o.inside(v) {
		o.unreached(c)
	}
}

// retry forgets the failures that made the instance fail.
func (o *oracle) retry(v spot) {
	if _, over := o.skipped[v.path]; over {
		return
	}
	s, _ := o.eval(v)
	if s == Completed || s == Failure && v.n.Continue {
		return
	}
	delete(o.working, v.path) // its turn comes again
	for _, path := range []string{v.path, v.path + "#", v.path + "!"} {
		if r, has := o.results[path]; has && !r.ok {
			delete(o.results, path)
			if path != v.path+"!" { // what is inside goes on
				return
			}
		}
	}
	for _, c := range o.inside(v) {
		if o.status[c.path] != NotStarted {
			o.retry(c)
		}
	}
}
