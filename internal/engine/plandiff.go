package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/internal/machine"
)

// ChangedError: a definition is not the one that was recorded under its name and version.
type ChangedError struct {
	Name    string
	Version int
	Next    int // a version that is free
	Diff    []string
}

func (e *ChangedError) Error() string {
	const most = 40
	lines := e.Diff
	if len(lines) > most {
		lines = append(slices.Clone(lines[:most]), fmt.Sprintf("and %d more", len(lines)-most))
	}
	return fmt.Sprintf("%s is not what was registered as version %d:\n\t%s\n"+
		"running instances need the recorded one: give the new one .Version(%d), and register the old one beside it until its instances have ended; "+
		"where nothing is worth keeping, begin with a fresh log", e.Name, e.Version, strings.Join(lines, "\n\t"), e.Next)
}

// diffPlans says in lines of "path: what" how b differs from a in what instances see.
func diffPlans(a, b *machine.Plan) (lines []string) {
	old, young := describe(a), describe(b)
	said := func(of, other map[string]described, path string) bool { // with the node around it
		_, has := other[of[path].around]
		return !has
	}
	for _, path := range old[""].inside {
		if _, has := young[path]; !has && !said(old, young, path) {
			lines = append(lines, fmt.Sprintf("%s: the %v is gone", path, old[path].fields["kind"]))
		}
	}
	for _, path := range append([]string{""}, young[""].inside...) {
		y := young[path]
		o, had := old[path]
		if !had {
			if !said(young, old, path) {
				lines = append(lines, fmt.Sprintf("%s: a new %v", path, y.fields["kind"]))
			}
			continue
		}
		where := path + ": "
		if path == "" {
			where = ""
		}
		fields := maps.Clone(o.fields)
		maps.Copy(fields, y.fields)
		for _, f := range slices.Sorted(maps.Keys(fields)) {
			if was, is := o.show(f), y.show(f); was != is {
				lines = append(lines, where+fmt.Sprintf("%s was %s, is %s", f, was, is))
			}
		}
		both := func(of, other []string) (l []string) {
			for _, name := range of {
				if slices.Contains(other, name) {
					l = append(l, name)
				}
			}
			return l
		}
		if was, is := both(o.nodes, y.nodes), both(y.nodes, o.nodes); !slices.Equal(was, is) {
			lines = append(lines, where+fmt.Sprintf("the order was %s; it is %s", strings.Join(was, ", "), strings.Join(is, ", ")))
		}
	}
	return lines
}

// described is a node as data.
type described struct {
	fields map[string]any
	nodes  []string // names
	around string   // path
	inside []string // paths of all nodes; of the root
}

// describe gives the nodes of a plan by their paths; the root is "".
func describe(p *machine.Plan) map[string]described {
	all := map[string]described{}
	var inside []string
	var walk func(around string, nodes []machine.Node) []string
	walk = func(around string, nodes []machine.Node) (names []string) {
		for k := range nodes {
			n := nodes[k]
			path := n.Path
			inside = append(inside, path)
			names = append(names, strings.Trim(strings.TrimPrefix(path, around), "/@"))
			below := walk(path, n.Nodes)
			walk(path, n.Attached)
			n.Nodes, n.Attached, n.Path = nil, nil, ""
			all[path] = described{fields: nodeMembers(n), nodes: below, around: around}
		}
		return names
	}
	root := described{nodes: walk("", p.Root), fields: map[string]any{}}
	if p.Retain > 0 {
		root.fields["retain"] = float64(p.Retain)
	}
	root.inside = inside
	all[""] = root
	return all
}

// nodeMembers are the members of a node as JSON has them.
func nodeMembers(n machine.Node) map[string]any {
	data, err := json.Marshal(n)
	if err != nil {
		panic(err) // it was encoded before
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	delete(m, "path")
	return flat("", m, map[string]any{})
}

// flat gives members of members names with a dot.
func flat(prefix string, m, into map[string]any) map[string]any {
	for name, v := range m {
		if inner, is := v.(map[string]any); is {
			flat(prefix+name+".", inner, into)
		} else {
			into[prefix+name] = v
		}
	}
	return into
}

// durations are the members of a node in milliseconds.
var durations = []string{"ttl", "timeout", "deadline", "retain", "retry.delay", "retry.maxDelay"}

func (d *described) show(field string) string {
	v, has := d.fields[field]
	if !has {
		return "not set"
	}
	if ms, is := v.(float64); is && slices.Contains(durations, field) {
		return (time.Duration(ms) * time.Millisecond).String()
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
