package engine

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// compose puts the code of a plan together whose processes were taken from definitions that
// this worker has; nil when it lacks the code of a task. Which version of a definition gives
// it does not matter, as long as the process is the same.
func compose(p *machine.Plan, codes []*Code) *Code {
	codes = slices.Clone(codes)
	slices.SortStableFunc(codes, func(a, b *Code) int { return b.Plan.Version - a.Plan.Version })
	out := &Code{Plan: p, Handlers: map[string]Handler{}}
	var parts []Keys
	var take func(nodes []machine.Node) bool
	take = func(nodes []machine.Node) bool {
		for k := range nodes {
			n := &nodes[k]
			if c, from := source(n, codes); c != nil {
				for path, h := range c.Handlers {
					if Within(path, from) {
						out.Handlers[n.Path+path[len(from):]] = h
					}
				}
				if c.KeysUnder != nil {
					parts = append(parts, moved(c.KeysUnder(from), from, n.Path))
				}
				continue
			}
			ours := n.Kind != eventlog.Process && n.Kind != eventlog.Parallel || len(n.Attached) > 0 || n.DeadlineAt
			if ours || !take(n.Nodes) { // it has a function itself
				return false
			}
		}
		return true
	}
	if !take(p.Root) {
		return nil
	}
	if p.Computes() {
		out.Keys = func(scope string, params json.RawMessage) (all []eventlog.TaskKey, err error) {
			for _, part := range parts {
				keys, err := part(scope, params)
				if err != nil {
					return nil, err
				}
				all = append(all, keys...)
			}
			return all, nil
		}
	}
	return out
}

// source is the code that has the process that a node was taken from, and the path there.
func source(n *machine.Node, codes []*Code) (*Code, string) {
	name, path, _ := strings.Cut(n.From, "/")
	for _, c := range codes {
		if n.From == "" || c.Plan.Name != name {
			continue
		}
		if m := c.Plan.Node(path); m != nil && bytes.Equal(bare(n), bare(m)) {
			return c, path
		}
	}
	return nil, ""
}

// bare is a node with its paths from itself, encoded, without where it was taken from and how
// long messages are kept, which is the longest time of all listeners of its definition; and
// without what options may have changed of it that have no code.
func bare(n *machine.Node) []byte {
	top := n.Path
	var cut func(n machine.Node, prefix int) machine.Node
	cut = func(n machine.Node, prefix int) machine.Node {
		n.Path, n.From, n.TTL = n.Path[prefix:], "", 0
		for _, path := range []*string{&n.Goto, &n.SkipTo} {
			if *path != "" {
				*path = strings.TrimPrefix(*path, top)
			}
		}
		n.Nodes, n.Attached = slices.Clone(n.Nodes), slices.Clone(n.Attached)
		for k := range n.Nodes {
			n.Nodes[k] = cut(n.Nodes[k], prefix)
		}
		for k := range n.Attached {
			n.Attached[k] = cut(n.Attached[k], prefix)
		}
		return n
	}
	m := cut(*n, len(n.Path))
	m.Continue, m.Goto, m.Gotos, m.Deadline, m.DeadlineFails = false, "", 0, 0, false
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // it was encoded before
	}
	return data
}

// Within says whether a path is that of a node or of something inside it.
func Within(path, node string) bool {
	rest, ok := strings.CutPrefix(path, node)
	return ok && (rest == "" || strings.IndexByte("/[@", rest[0]) >= 0)
}

// moved gives computed values the paths that they have in another plan.
func moved(of Keys, from, to string) Keys {
	return func(scope string, params json.RawMessage) ([]eventlog.TaskKey, error) {
		if scope != "" {
			if !Within(scope, to) {
				return nil, nil
			}
			scope = from + scope[len(to):]
		}
		keys, err := of(scope, params)
		for k := range keys {
			keys[k].Path = to + keys[k].Path[len(from):]
		}
		return keys, err
	}
}
