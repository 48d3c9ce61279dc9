package machine

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// activity is what a task does while it executes: it waits, its handler runs, or it waits for
// its next attempt.
type activity struct {
	n       *Node
	status  Status // Executing, or what a monitor, on-stop handler or listener that works again came to
	phase   Phase
	attempt int
	since   int64 // when it began to do that
	due     int64 // of the time-out or of the next attempt
	tick    int64 // of an Every or a monitor that has run: its next time
	msg     *message
	collect bool // a ForEach gets its items
	again   bool // a listener that works again does so when its run goes on after a retry
	ran     bool // for a second
	cuts    int  // interruptions that count
	all     int  // all interruptions

	// What the machine gave this attempt, and what its handler sees.
	act    uint64
	number int
	base   uint64
	seen   map[string]string
	change int
}

// now is the time of the world.
func (o *oracle) now() int64 { return o.world.now }

// scope is the run of a ForEach whose parameters a node reads.
func (o *oracle) scope(path string) string {
	for end := strings.LastIndexByte(path, ']'); end >= 0; end = strings.LastIndexByte(path[:end], ']') {
		if o.plan.Node(path[:strings.LastIndexByte(path[:end], '[')]).Kind == eventlog.ForEach {
			return path[:end+1]
		}
	}
	return ""
}

// value is what a node's function of the parameters gave when it was computed last.
func (o *oracle) value(path string) string { return o.known[o.scope(path)]["v:"+pattern(path)] }

// times of values: "at/period", "period/until", or a time alone.
func parts(value string) (first, second int64) {
	a, b, _ := strings.Cut(value, "/")
	first, _ = strconv.ParseInt(a, 10, 64)
	second, _ = strconv.ParseInt(b, 10, 64)
	return first, second
}

// dueOf is when something comes of an activity by itself; 0 is never.
func (o *oracle) dueOf(path string, a *activity) int64 {
	if a.status != Executing || a.phase != Waiting {
		return a.due
	}
	first, second := parts(o.value(path))
	switch a.n.Kind {
	case eventlog.At:
		return first
	case eventlog.Monitor:
		if a.tick > 0 {
			return a.tick
		}
		return first
	case eventlog.Every:
		if second > 0 && (second < a.tick || a.tick == 0) {
			return second
		}
		return a.tick
	}
	return a.due
}

// deadlineOf is when a node that is at work must have ended; 0 is never.
func (o *oracle) deadlineOf(path string) int64 {
	a := o.times[path]
	if a.n.DeadlineAt {
		first, _ := parts(o.value(path))
		return first
	}
	return a.since + a.n.Deadline
}

func (a *activity) run(attempt int, now int64) {
	a.status, a.phase, a.attempt, a.since, a.due, a.tick = Executing, Running, attempt, now, 0, 0
	a.ran, a.cuts, a.all = false, 0, 0
	if a.n.Timeout > 0 && a.n.Kind != eventlog.Listen {
		a.due = now + a.n.Timeout
	}
}

func (a *activity) wait(now int64) {
	a.status, a.phase, a.attempt, a.since, a.due, a.msg = Executing, Waiting, 0, now, 0, nil
	if a.n.Timeout > 0 && a.n.Kind == eventlog.Listen {
		a.due = now + a.n.Timeout
	}
}

// activity finds what a handler or timer is of.
func (o *oracle) activity(path string) *activity {
	for _, m := range []map[string]*activity{o.over, o.acts, o.monitors, o.stops} {
		if a := m[path]; a != nil && a.status == Executing {
			return a
		}
	}
	return nil
}

// fails is an attempt that failed: there is another one later, or the task has failed.
func (o *oracle) fails(path string, a *activity, terminal bool, after int64) {
	if r := a.n.Retry; r != nil && a.attempt < r.Attempts && !terminal {
		delay := r.Delay
		for range a.attempt - 1 {
			delay *= 2
		}
		limit := r.MaxDelay
		if limit == 0 {
			limit = max(maxDelay, r.Delay)
		}
		if delay = min(delay, limit); after > 0 {
			delay = after
		}
		a.phase, a.due, a.since = Retrying, o.now()+delay, o.now()
		return
	}
	if o.acts[path] != a {
		a.status = Failure // of a monitor or on-stop handler it says nothing about the node
		o.stopped()
		return
	}
	if a.msg != nil {
		o.held[path] = a.msg
	}
	o.ends(path, a, outcome{})
}

// ends is the result of a task.
func (o *oracle) ends(path string, a *activity, r outcome) {
	o.look()
	delete(o.acts, path)
	r.at = o.clock
	if a.collect {
		path += "#"
	}
	o.results[path] = r
	o.jump()
}

// stopped ends a stop when all on-stop handlers have.
func (o *oracle) stopped() {
	if o.stopping && !slices.ContainsFunc(slices.Collect(maps.Values(o.stops)), func(a *activity) bool { return a.status == Executing }) {
		o.stopping, o.whole, o.stale = false, Stopped, false
	}
}

// stop stops the instance: on-stop handlers of what executes run first, unless it is the second stop.
func (o *oracle) stop() {
	o.status, o.nodes = map[string]Status{}, map[string]*Node{}
	o.assign(o.root(), "")
	for path, a := range o.over { // also of runs that don't work now
		o.status[path], o.nodes[path] = a.status, a.n
	}
	again := o.stopping
	for path, s := range o.status {
		for k := range o.nodes[path].Attached {
			n := &o.nodes[path].Attached[k]
			if s == Executing && n.Kind == eventlog.OnStop && !again {
				o.stopping = true
				o.stops[path+"@stop"] = o.begin(n, "")
			}
		}
	}
	if again || !o.stopping {
		o.stopping, o.whole = false, Stopped
		for _, a := range o.stops {
			if a.status == Executing {
				a.status = Stopped
			}
		}
	}
	o.stale = false
	o.follow()
}

// succeeds is a handler's good end.
func (o *oracle) succeeds(path string, a *activity, more bool, r outcome) {
	now, first, second := o.now(), int64(0), int64(0)
	if a.n.Kind == eventlog.Every || a.n.Kind == eventlog.Monitor {
		first, second = parts(o.value(path))
	}
	switch {
	case o.over[path] == a:
		delete(o.over, path) // it has completed again
	case o.stops[path] == a:
		a.status = Completed
		o.stopped()
	case a.n.Kind == eventlog.Monitor && second > 0:
		next := first
		for next <= now {
			next += second
		}
		a.wait(now)
		a.tick = next
	case a.n.Kind == eventlog.Monitor:
		a.status = Completed
	case a.n.Kind == eventlog.Every && more && (second == 0 || now < second):
		next := int64(0)
		if first > 0 { // the next period behind the start that is not past
			next = a.since + first + max(0, (now-a.since)/first)*first
			if now-a.since < first {
				next = a.since + first
			}
		}
		a.wait(now)
		a.tick = next
	case a.n.Kind == eventlog.Listen && more:
		a.wait(now)
	default:
		r.ok = true
		o.ends(path, a, r)
	}
}

// computed takes new values: what waits for a time has the new one by itself, but the first
// period of an Every that had none counts from when it began to wait.
func (o *oracle) computed(scope string, params map[string]string) {
	o.known[scope] = maps.Clone(params)
	for path, a := range o.acts {
		if a.n.Kind == eventlog.Every && a.phase == Waiting && a.tick == 0 {
			if period, _ := parts(o.value(path)); period > 0 {
				a.tick = a.since + period
			}
		}
	}
}

// due is something whose time has come.
func (o *oracle) due(path string) {
	if a := o.times[path]; a != nil {
		o.look()
		o.results[path+"!"] = outcome{at: o.clock, ok: !a.n.DeadlineFails}
		o.jump()
		return
	}
	a := o.activity(path)
	switch {
	case a.phase == Retrying:
		msg := a.msg
		a.run(a.attempt+1, o.now())
		a.msg = msg
	case a.phase == Running:
		o.fails(path, a, false, 0)
	case a.n.Kind == eventlog.Listen:
		o.fails(path, a, true, 0)
	default:
		if _, until := parts(o.value(path)); a.n.Kind == eventlog.Every && until > 0 && o.now() >= until {
			o.ends(path, a, outcome{ok: true})
			return
		}
		a.run(1, o.now())
	}
}

// interrupted is a handler that a dead worker left running: it runs again.
func (o *oracle) interrupted(path string, a *activity) {
	a.all++
	if a.ran {
		a.cuts++
	}
	if a.cuts == 3 || a.all == 12 {
		o.fails(path, a, false, 0)
		return
	}
	cuts, all, msg := a.cuts, a.all, a.msg
	a.run(a.attempt, o.now())
	a.cuts, a.all, a.msg = cuts, all, msg
}

// again lets a failed instance go on.
func (o *oracle) again() {
	o.retry(o.root())
	o.broken, o.whole = false, Executing
	for _, a := range o.over {
		if a.status == Stopped || a.status == Failure && !a.n.Continue {
			a.status, a.again = Stopped, true
		}
	}
	o.stale = o.plan.Computes()
}

func (a *activity) String() string {
	return fmt.Sprintf("%s %s attempt %d", a.status, a.phase, a.attempt)
}
