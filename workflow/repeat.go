package workflow

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// ForEach runs its body once for each item of a list, at most a hundred at once or as many as
// Concurrency says. items computes the list from the parameters, once; it is recorded. T is a
// struct: what P is for the instance, T is for one run. The handlers of the body get and change
// their item, and TaskFrom(ctx).Item is its index. When all runs have ended, collect gets the
// items as the handlers left them, in the order of the list, and may change the parameters. It
// may be nil. items and collect are retried as a task is; see Retry.
//
// A run that fails makes the ForEach fail: at once, or with WaitAll after all runs have ended. To
// go on without the failed items, put the body into a Process with OnFailure(Continue). Paths
// have the item's index, as in "Ship[3]/pack". When a run has completed, the state of its tasks
// is dropped; its events remain. The list must fit into one event, so keep items small.
func ForEach[P, T any](name string, items func(context.Context, *P) ([]T, error), collect func(context.Context, *P, []T) error, body ...Node[T]) Node[P] {
	n := node{kind: eventlog.ForEach, name: name, nodes: untyped(body), item: reflect.TypeFor[T](), collect: collect != nil}
	if items == nil {
		n.mistakes = append(n.mistakes, "its function of the items is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, a engine.Attempt, out *engine.Outcome) error {
		if a.Collect {
			list := make([]T, len(a.Items))
			for k, item := range a.Items {
				v, err := decodeParams[T](item)
				if err != nil {
					return Terminal(fmt.Errorf("item %d: %w", k, err))
				}
				list[k] = *v
			}
			return collect(ctx, p, list)
		}
		list, err := items(ctx, p)
		if err != nil {
			return err
		}
		for k := range list {
			item, err := encodeParams(list[k])
			if err != nil {
				return Terminal(fmt.Errorf("item %d: %w", k, err))
			}
			out.Items = append(out.Items, item)
		}
		return nil
	})
	return Node[P]{node: n}
}

// Dynamic runs those of its processes that the function names: one after the other, in that
// order, and as often as they are named. The choice is recorded and stays the same when the
// instance is retried. If it is empty, the flow goes on with the next node. A name that none of
// the processes has fails the task. Paths have the number of the run, as in
// "Prepare[2]/Wrap/fold". The parameters may be changed as in Execute.
func Dynamic[P any](name string, choose func(context.Context, *P) ([]string, error), processes ...Node[P]) Node[P] {
	n := node{kind: eventlog.Dynamic, name: name, nodes: untyped(processes)}
	if choose == nil {
		n.mistakes = append(n.mistakes, "its function is nil")
	}
	for _, p := range processes {
		if p.kind != eventlog.Process {
			n.mistakes = append(n.mistakes, fmt.Sprintf("%s is no Process: a Dynamic chooses among processes", p.name))
		}
	}
	n.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, out *engine.Outcome) (err error) {
		out.Choices, err = choose(ctx, p)
		return err
	})
	return Node[P]{node: n}
}

// keys computes all values, each from the parameters that its node has.
func keys(values []computed) engine.Keys {
	scopes := map[string][]computed{}
	for _, v := range values {
		scopes[v.scope] = append(scopes[v.scope], v)
	}
	return func(scope string, params json.RawMessage) ([]eventlog.TaskKey, error) {
		l := make([]eventlog.TaskKey, 0, len(scopes[scope]))
		for _, n := range scopes[scope] {
			value, err := n.of(params)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n.path, err)
			}
			l = append(l, eventlog.TaskKey{Path: n.path, Value: value})
		}
		return l, nil
	}
}

// attach adds a monitor or an on-stop handler to a copy of the node.
func (n Node[P]) attach(a node) Node[P] {
	n.attached = append(slices.Clone(n.attached), a)
	return n
}
