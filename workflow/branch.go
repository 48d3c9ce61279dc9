package workflow

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// Join says when a Parallel has ended.
type Join int

const (
	All Join = iota // when all of its nodes have; a failure of one fails it at once, see WaitAll
	Any             // when the first has completed; the others are skipped. It fails when all failed
)

// Parallel runs its nodes, the branches, at once. It takes at least one. A handler gets the
// parameters as they are when it starts. Branches that change different fields do not disturb
// each other; where they change the same field, the last change counts.
func Parallel[P any](name string, join Join, nodes ...Node[P]) Node[P] {
	n := node{kind: eventlog.Parallel, name: name, nodes: untyped(nodes), any: join == Any}
	if join != All && join != Any {
		n.mistakes = append(n.mistakes, "its join is neither All nor Any")
	}
	return Node[P]{node: n}
}

// Decide is a task whose function names the one of its nodes that runs; the others are skipped,
// and "" skips all. The choice is recorded and stays the same when the instance is retried. A
// name that none of the nodes has fails the task. The parameters may be changed as in Execute.
func Decide[P any](name string, choose func(context.Context, *P) (string, error), nodes ...Node[P]) Node[P] {
	n := node{kind: eventlog.Decide, name: name, nodes: untyped(nodes)}
	if choose == nil {
		n.mistakes = append(n.mistakes, "its function is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, out *engine.Outcome) (err error) {
		out.Choice, err = choose(ctx, p)
		return err
	})
	return Node[P]{node: n}
}

// At is a task that waits until a time, and then calls a function as Execute does. The time is
// computed from the parameters whenever they change, and must depend on nothing else; it may
// move as long as the task waits. Times are kept to the millisecond. A time in the past means
// now, the zero time means that there is none yet, and a time after the year 9999 is the end of
// that year.
func At[P any](name string, when func(*P) time.Time, do func(context.Context, *P) error) Node[P] {
	n := node{kind: eventlog.At, name: name}
	if when == nil || do == nil {
		n.mistakes = append(n.mistakes, "a function of it is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, _ *engine.Outcome) error {
		return do(ctx, p)
	})
	n.value = value(func(p *P) (string, error) {
		t := when(p)
		if t.IsZero() {
			return "", nil
		}
		return timeValue(t), nil
	})
	return Node[P]{node: n}
}

// Interval says how often, and until when, an Every runs.
type Interval struct {
	Period time.Duration // from start to start; at least a millisecond
	Until  time.Time     // when the task is completed in any case; zero = never
}

// Every is a task that calls a function at once and then once in each period, until the function
// returns done, or until the interval's end. Runs do not overlap: while a run takes longer than
// a period, the periods that pass are left out and not made up for. The interval is computed
// from the parameters whenever they change; a new end counts at once, a new period after the
// next run. A run that returns an error is a failed attempt; see Retry.
func Every[P any](name string, interval func(*P) Interval, do func(context.Context, *P) (done bool, err error)) Node[P] {
	n := node{kind: eventlog.Every, name: name}
	if interval == nil || do == nil {
		n.mistakes = append(n.mistakes, "a function of it is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, out *engine.Outcome) error {
		done, err := do(ctx, p)
		out.More = !done
		return err
	})
	n.value = value(func(p *P) (string, error) {
		i := interval(p)
		if i.Period < time.Millisecond {
			return "", fmt.Errorf("the period is %v; at least a millisecond", i.Period)
		}
		v := strconv.FormatInt(i.Period.Milliseconds(), 10)
		if !i.Until.IsZero() {
			v += "/" + timeValue(i.Until)
		}
		return v, nil
	})
	return Node[P]{node: n}
}

// value is a function of the parameters, without its type.
func value[P any](of func(*P) (string, error)) func(json.RawMessage) (string, error) {
	return func(params json.RawMessage) (string, error) {
		p, err := decodeParams[P](params)
		if err != nil {
			return "", err
		}
		return of(p)
	}
}
