package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// Process returns a process of the definition for use in another one, for example in a definition
// that is composed while the program runs. name is the path of the process; in the new definition
// it has the last part of that as its name. The new definition is registered like any other. Its
// plan says where the process came from. So an engine that has registered only d can run it too, as
// long as the process is the same there.
//
// Options that are given to the returned process are part of the new plan. Functions among them,
// and tasks beside the process, are code that only the composing program has.
func (d *Definition[P]) Process(name string) Node[P] {
	nodes := d.nodes
	parts := strings.Split(name, "/")
	for depth, part := range parts {
		k := slices.IndexFunc(nodes, func(n node) bool { return n.name == part })
		if k < 0 {
			break
		}
		n := nodes[k]
		if nodes = n.nodes; depth < len(parts)-1 {
			continue
		}
		if n.kind != eventlog.Process {
			break
		}
		if n.origin == "" { // else it is known by where it came from first
			n.origin = d.name + "/" + name
		}
		return Node[P]{node: n}
	}
	// It has a node, so that this is its only mistake.
	return Node[P]{node: node{kind: eventlog.Process, name: parts[len(parts)-1], nodes: []node{{kind: eventlog.Execute, name: "unknown"}}, mistakes: []string{
		fmt.Sprintf("%s has no process %q; it has %s", d.name, name, or(strings.Join(processes("", d.nodes), ", "), "none")),
	}}}
}

// processes are the paths of all processes.
func processes(parent string, nodes []node) (l []string) {
	for _, n := range nodes {
		path := parent + n.name
		if n.kind == eventlog.Process {
			l = append(l, path)
		}
		l = append(l, processes(path+"/", n.nodes)...)
	}
	return l
}

// keysUnder computes the values of a node and what is inside it.
func keysUnder(values []computed) func(path string) engine.Keys {
	return func(path string) engine.Keys {
		var l []computed
		for _, v := range values {
			if engine.Within(v.path, path) {
				l = append(l, v)
			}
		}
		return keys(l)
	}
}
