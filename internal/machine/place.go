package machine

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// place is a node of a plan in an instance: what runs more than once, inside a ForEach or
// Dynamic, has a path with an index, "Ship[3]/pack" of the plan's "Ship[]/pack".
type place struct {
	n    *Node
	path string
}

// pattern is the plan's path of an instance's path.
func pattern(path string) string {
	if !strings.Contains(path, "[") {
		return path
	}
	var b strings.Builder
	for {
		open := strings.IndexByte(path, '[')
		if open < 0 {
			b.WriteString(path)
			return b.String()
		}
		b.WriteString(path[:open+1])
		path = strings.TrimLeft(path[open+1:], "0123456789")
	}
}

// place finds the node behind an instance's path.
func (p *Plan) place(path string) (place, bool) {
	n := p.byPath[pattern(path)]
	return place{n, path}, n != nil
}

func (pl place) parent() place {
	n := pl.n
	if n.parent.parent == nil {
		return place{n.parent, ""}
	}
	if pl.path == n.Path {
		return place{n.parent, n.parent.Path}
	}
	end := byte('/')
	switch {
	case n.item:
		end = '['
	case n.attached:
		end = '@'
	}
	return place{n.parent, pl.path[:strings.LastIndexByte(pl.path, end)]}
}

// child is the k-th node inside a sequence, a Parallel or a Decide.
func (pl place) child(k int) place {
	c := &pl.n.Nodes[k]
	if pl.path == pl.n.Path {
		return place{c, c.Path}
	}
	return place{c, pl.path + "/" + c.name()}
}

// item is the k-th run inside a ForEach or Dynamic.
func (pl place) item(k int) place {
	return place{&pl.n.Nodes[0], pl.path + "[" + strconv.Itoa(k) + "]"}
}

// index is which run of its ForEach or Dynamic an item is.
func (pl place) index() int { return indexOf(pl.path) }

// ItemIndex is the number of a run of a ForEach in its path.
func ItemIndex(path string) int { return indexOf(path) }

func indexOf(path string) int {
	k, err := strconv.Atoi(path[strings.LastIndexByte(path, '[')+1 : len(path)-1])
	if err != nil {
		return -1
	}
	return k
}

// attachment is the k-th monitor or on-stop handler of the node.
func (pl place) attachment(k int) place {
	a := &pl.n.Attached[k]
	if pl.path == pl.n.Path {
		return place{a, a.Path}
	}
	return place{a, pl.path + a.Path[strings.LastIndexByte(a.Path, '@'):]}
}

// chosen is the process that a run of a Dynamic consists of.
func (pl place) chosen(choices []string) (place, bool) {
	if k := pl.index(); k >= 0 && k < len(choices) {
		for c := range pl.n.Nodes {
			if pl.n.Nodes[c].name() == choices[k] {
				return pl.child(c), true
			}
		}
	}
	return place{}, false
}

// within says whether a path is that of the node or of something inside it.
func within(path, node string) bool {
	return strings.HasPrefix(path, node) && (len(path) == len(node) || node == "" || strings.IndexByte("/[@", path[len(node)]) >= 0)
}

// inside says whether a path is that of something inside a node.
func inside(path, node string) bool { return len(path) > len(node) && within(path, node) }

// Items are the runs of a ForEach.
type Items struct {
	Path   string            `json:"path"`
	Values []json.RawMessage `json:"values"` // parameters of each
	Seqs   []uint64          `json:"seqs"`   // event that changed them last
	States string            `json:"states"` // a letter for each, of the item states
}

// Ended says that a run has ended and its parameters don't change any more.
func (x Items) Ended(index int) bool {
	return x.States[index] == itemCompleted || x.States[index] == itemSkipped
}

// States of an item.
const (
	itemNotStarted = '.'
	itemExecuting  = 'E'
	itemCompleted  = 'C'
	itemFailed     = 'F'
	itemSkipped    = 'S'
	itemStopped    = 'T'
)

func itemStatus(state byte) Status {
	switch state {
	case itemExecuting:
		return Executing
	case itemCompleted:
		return Completed
	case itemFailed:
		return Failure
	case itemSkipped:
		return Skipped
	case itemStopped:
		return Stopped
	}
	return ""
}

func itemState(s Status) byte {
	switch s {
	case Executing:
		return itemExecuting
	case Completed:
		return itemCompleted
	case Failure:
		return itemFailed
	case Skipped:
		return itemSkipped
	case Stopped:
		return itemStopped
	}
	return itemNotStarted
}

// ItemsOf are the runs of the ForEach with the path, or nil.
func (i *Instance) ItemsOf(path string) *Items {
	for k := range i.Items {
		if i.Items[k].Path == path {
			return &i.Items[k]
		}
	}
	return nil
}

// scope is the innermost run of a ForEach that the path lies in: its parameters are those of
// the handlers there. nil is the instance itself.
func (i *Instance) scope(path string) (items *Items, index int) {
	if len(i.Items) == 0 {
		return nil, 0
	}
	for end := strings.LastIndexByte(path, ']'); end >= 0; end = strings.LastIndexByte(path[:end], ']') {
		open := strings.LastIndexByte(path[:end], '[')
		if items := i.ItemsOf(path[:open]); items != nil {
			if k := indexOf(path[:end+1]); k >= 0 && k < len(items.Values) {
				return items, k
			}
		}
	}
	return nil, 0
}

// Scope is the path of the run of a ForEach whose parameters a handler with the path reads; ""
// = the instance's.
func (i *Instance) Scope(path string) string {
	items, k := i.scope(path)
	if items == nil {
		return ""
	}
	return items.Path + pathIndex(k)
}

// ParamsAt are the parameters that a handler with the path reads, and the event that changed
// them last.
func (i *Instance) ParamsAt(path string) (params json.RawMessage, seq uint64) {
	if items, k := i.scope(path); items != nil {
		return items.Values[k], items.Seqs[k]
	}
	return i.Params, i.ParamsSeq
}

// LastParams is the event that changed any parameters last.
func (i *Instance) LastParams() uint64 { return max(i.ParamsSeq, i.ItemsSeq) }

// keyPath is under which path a node's computed value stands: runs of a Dynamic share it,
// for they share their parameters; those in different runs of a ForEach do not.
func (i *Instance) keyPath(path string) string {
	if !strings.Contains(path, "[") {
		return path
	}
	scope := i.Scope(path)
	return scope + pattern(path[len(scope):])
}

// change gives the items of a path to a function that may set their fields, but must not
// change what these refer to.
func (i *Instance) changeItems(path string, f func(*Items)) {
	i.Items = slices.Clone(i.Items)
	if items := i.ItemsOf(path); items != nil {
		f(items)
	}
}

func (x *Items) set(index int, state byte) {
	b := []byte(x.States)
	b[index] = state
	x.States = string(b)
}

// began notes which items a start lies in.
func (i *Instance) began(path string) {
	for at := range len(path) {
		if path[at] != ']' || len(i.Items) == 0 {
			continue
		}
		open := strings.LastIndexByte(path[:at], '[')
		if items := i.ItemsOf(path[:open]); items != nil {
			if k := indexOf(path[:at+1]); items.States[k] != itemExecuting {
				i.changeItems(items.Path, func(x *Items) { x.set(k, itemExecuting) })
			}
		}
	}
}

// forgetInside drops what is known of the nodes inside a run of a ForEach that ended for
// good: of those whose paths begin with a prefix.
func (i *Instance) forgetInside(prefix string) {
	i.Tasks = slices.DeleteFunc(i.Tasks, func(t Task) bool { return strings.HasPrefix(t.Path, prefix) })
	i.Keys = slices.DeleteFunc(i.Keys, func(k eventlog.TaskKey) bool { return strings.HasPrefix(k.Path, prefix) })
	if slices.ContainsFunc(i.Items, func(x Items) bool { return strings.HasPrefix(x.Path, prefix) }) {
		i.Items = slices.DeleteFunc(slices.Clone(i.Items), func(x Items) bool { return strings.HasPrefix(x.Path, prefix) })
	}
}

// forgetItems drops the runs of a ForEach. Its monitors are not of them.
func (i *Instance) forgetItems(path string) {
	if i.ItemsOf(path) != nil {
		i.forgetInside(path + "[")
		i.Items = slices.DeleteFunc(slices.Clone(i.Items), func(x Items) bool { return x.Path == path })
	}
}

// listeners calls f for each place of a Listen that may want messages: each run of a ForEach
// that executes, each chosen run of a Dynamic. f ends the walk with false.
func (p *Plan) listeners(i *Instance, f func(pl place) bool) {
	for _, n := range p.listening {
		if !n.repeated {
			if !f(place{n, n.Path}) {
				return
			}
			continue
		}
		for _, path := range i.expand(n) {
			if !f(place{n, path}) {
				return
			}
		}
	}
}

// expand gives the instance's paths of a node inside a ForEach or Dynamic. As long as nothing
// was chosen, a node of a Dynamic stands there once, under its plan's path.
func (i *Instance) expand(n *Node) []string {
	var items []*Node // around n, from outside
	for p := n.parent; p != nil; p = p.parent {
		if p.item {
			items = append(items, p)
		}
	}
	slices.Reverse(items)
	prefixes, done := []string{""}, ""
	for k, item := range items {
		rest := strings.TrimSuffix(item.Path, "[]")[len(done):]
		done = item.Path
		inner := n
		if k+1 < len(items) {
			inner = items[k+1]
		}
		var next []string
		for _, prefix := range prefixes {
			next = append(next, i.runs(item, inner, prefix+rest)...)
		}
		prefixes = next
	}
	for k := range prefixes {
		prefixes[k] += n.Path[len(done):]
	}
	return slices.DeleteFunc(prefixes, func(path string) bool { return i.Task(path) == nil && i.passed(path) })
}

// passed says that a Dynamic that the path lies in has ended: what it has not reached it does
// not come to any more.
func (i *Instance) passed(path string) bool {
	for at := range len(path) {
		if path[at] == '[' {
			if t := i.Task(path[:at]); t != nil && t.Kind == eventlog.Dynamic && t.Status != Executing {
				return true
			}
		}
	}
	return false
}

// runs are the paths of the items of the ForEach or Dynamic at base that may lead to inner.
func (i *Instance) runs(item, inner *Node, base string) (l []string) {
	if item.parent.Kind == eventlog.ForEach {
		if items := i.ItemsOf(base); items != nil {
			for k := range len(items.States) {
				if items.States[k] == itemExecuting {
					l = append(l, base+"["+strconv.Itoa(k)+"]")
				}
			}
		}
		return l
	}
	t := i.Task(base)
	if t == nil || t.Status == Executing && len(t.Choices) == 0 {
		return []string{base + "[]"}
	}
	top := inner
	for top.parent != item {
		top = top.parent
	}
	for k, choice := range t.Choices {
		if choice == top.name() {
			l = append(l, base+"["+strconv.Itoa(k)+"]")
		}
	}
	return l
}
