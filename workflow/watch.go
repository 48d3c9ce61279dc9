package workflow

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// Alarm says when a monitor runs: at a time, and from then on perhaps again and again.
type Alarm struct {
	At     time.Time     // the first time; zero = there is none yet; a time in the past means now
	Period time.Duration // between two runs, until the node ends; 0 = it runs once; at least a millisecond
}

// Monitor runs a function at a time as long as the node has not ended: to raise an alarm, to
// change the parameters, or to stop the instance (see Stop). The alarm is computed from the
// parameters whenever they change, and must depend on nothing else; it may move until it has gone
// off. When the node ends, so does the monitor, and the context of a function that runs. The
// function gets three attempts; that they all fail does not make the node fail. A node may
// have several monitors with different names. The path is "<node>@<name>".
func (n Node[P]) Monitor(name string, at func(*P) Alarm, do func(context.Context, *P) error) Node[P] {
	m := node{kind: eventlog.Monitor, name: name, retry: &retry{3, time.Second}, options: []string{"Retry"}}
	if at == nil || do == nil {
		m.mistakes = append(m.mistakes, "a function of it is nil")
	}
	m.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, _ *engine.Outcome) error {
		return do(ctx, p)
	})
	m.value = value(func(p *P) (string, error) {
		a := at(p)
		if a.Period != 0 && a.Period < time.Millisecond {
			return "", fmt.Errorf("the period is %v; at least a millisecond", a.Period)
		}
		if a.At.IsZero() {
			return "", nil
		}
		v := timeValue(a.At)
		if a.Period > 0 {
			v += "/" + strconv.FormatInt(a.Period.Milliseconds(), 10)
		}
		return v, nil
	})
	return n.attach(m)
}

// OnStop runs a function when the instance is stopped while it is in the node, to undo what was
// begun. The instance becomes Stopped when all such functions have ended. Each has up to three
// attempts of a minute; that they all fail is recorded, and holds nothing up. A second Stop
// does not wait for them. The path is "<node>@stop".
func (n Node[P]) OnStop(do func(context.Context, *P) error) Node[P] {
	s := node{kind: eventlog.OnStop, name: "stop", retry: &retry{3, time.Second}, timeout: time.Minute, options: []string{"Retry", "Timeout"}}
	if do == nil {
		s.mistakes = append(s.mistakes, "its function is nil")
	}
	if n.kind == eventlog.Parallel || n.kind == eventlog.ForEach || n.kind == eventlog.Dynamic {
		s.mistakes = append(s.mistakes, "OnStop is not for a node of kind "+string(n.kind)+": put it into a Process")
	}
	s.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, _ *engine.Outcome) error {
		return do(ctx, p)
	})
	return n.attach(s)
}

// DeadlineAction says what happens to a node that has not ended at its deadline.
type DeadlineAction int

const (
	SkipRest DeadlineAction = iota + 1 // what is unfinished in it is skipped, and the flow goes on with the next node
	FailNode                           // the node fails, see OnFailure
)

// DeadlineAt sets a time by which a Process or Parallel must have ended, and says what happens
// otherwise. The time is computed from the parameters whenever they change, and may move; the zero
// time is no deadline. See also Deadline.
func (n Node[P]) DeadlineAt(at func(*P) time.Time, then DeadlineAction) Node[P] {
	n.mistakes = slices.Clone(n.mistakes)
	switch {
	case n.kind != eventlog.Process && n.kind != eventlog.Parallel:
		n.mistakes = append(n.mistakes, "DeadlineAt is not for a node of kind "+string(n.kind))
		return n
	case at == nil:
		n.mistakes = append(n.mistakes, "DeadlineAt has no function")
		return n
	}
	n.past = then
	n.value = value(func(p *P) (string, error) {
		t := at(p)
		if t.IsZero() {
			return "", nil
		}
		return timeValue(t), nil
	})
	return n
}

// lastTime is the last millisecond that has a year of four digits: JSON has no later times.
var lastTime = time.Date(9999, time.December, 31, 23, 59, 59, 999e6, time.UTC)

// timeValue is a time in milliseconds, never before it.
func timeValue(t time.Time) string {
	if t.After(lastTime) {
		t = lastTime
	}
	return strconv.FormatInt(max(t.Add(time.Millisecond-1).UnixMilli(), 1), 10)
}
