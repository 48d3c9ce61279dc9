package audit

import (
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// node is the node of the plan behind an instance's path: "Ship[]/pack" of "Ship[3]/pack".
func (l *plan) node(path string) *node {
	if n := l.nodes[path]; n != nil || !strings.Contains(path, "[") {
		return n
	}
	return l.nodes[pattern(path)]
}

// pattern is the plan's path of an instance's path.
func pattern(path string) string {
	var b strings.Builder
	for k := 0; k < len(path); k++ {
		b.WriteByte(path[k])
		for path[k] == '[' && k+1 < len(path) && path[k+1] >= '0' && path[k+1] <= '9' {
			path = path[:k+1] + path[k+2:]
		}
	}
	return b.String()
}

// cut splits the path of a run of a ForEach or Dynamic, "Ship[3]".
func cut(path string) (of string, index int, ok bool) {
	if !strings.HasSuffix(path, "]") {
		return "", 0, false
	}
	at := strings.LastIndexByte(path, '[')
	if at < 0 {
		return "", 0, false
	}
	index, err := strconv.Atoi(path[at+1 : len(path)-1])
	return path[:at], index, err == nil
}

// runs gives the runs of ForEach and Dynamic nodes that a path lies in, from outside.
func runs(path string, f func(run, rest string)) {
	for at := range len(path) {
		if path[at] == ']' {
			f(path[:at+1], strings.TrimPrefix(path[at+1:], "/"))
		}
	}
}

// reach checks that the runs that a node lies in exist, and lets those of a ForEach execute.
func (p *partition) reach(i *instance, path string, e *eventlog.Event) bool {
	ok := true
	runs(path, func(run, rest string) {
		of, index, is := cut(run)
		t := i.task(of)
		if !ok || !p.check(i, e, is && t != nil, "starts %s: nothing runs at %s", path, run) {
			ok = false
			return
		}
		if t.kind == eventlog.Dynamic {
			name, _, _ := strings.Cut(rest, "/")
			name, _, _ = strings.Cut(name, "@")
			name, _, _ = strings.Cut(name, "[")
			ok = p.check(i, e, index >= 0 && index < len(t.choices) && t.choices[index] == name, "starts %s, which was not chosen", path)
			return
		}
		if ok = p.check(i, e, index >= 0 && index < len(t.items), "starts %s: there are %d items", path, len(t.items)); ok {
			t.items[index] = running
		}
	})
	return ok
}

// endItem gives a run of a ForEach a status.
func (p *partition) endItem(i *instance, x eventlog.End, s status, e *eventlog.Event) {
	of, index, ok := cut(x.Path)
	t := i.task(of)
	if !p.check(i, e, ok && t != nil && t.kind == eventlog.ForEach && index >= 0 && index < len(t.items), "ends %s, which is no run", x.Path) {
		return
	}
	has := t.items[index]
	p.check(i, e, has != completed && has != skipped, "ends %s, which has ended", x.Path)
	t.items[index] = s
	if s == completed || s == skipped {
		i.forgetInside(x.Path + "/")
	}
}

// forgetInside drops what is known of the nodes inside a run, or of all runs of a ForEach: of
// those whose paths begin with a prefix.
func (i *instance) forgetInside(prefix string) {
	i.tasks = slices.DeleteFunc(i.tasks, func(t task) bool { return strings.HasPrefix(t.path, prefix) })
	i.keys = slices.DeleteFunc(i.keys, func(k eventlog.TaskKey) bool { return strings.HasPrefix(k.Path, prefix) })
}

// forgetItems drops the runs of a ForEach.
func (i *instance) forgetItems(path string) {
	if t := i.task(path); t != nil && t.items != nil {
		t.items = nil
		i.forgetInside(path + "[")
	}
}

// forget makes a node as if it had not been reached: the flow went back before it.
func (i *instance) forget(path string) {
	i.forgetItems(path)
	i.tasks = slices.DeleteFunc(i.tasks, func(t task) bool { return t.path == path })
}

// value is the computed value of a node; the runs of a Dynamic share one where they have the
// same parameters.
func (i *instance) value(path string) string {
	if !strings.Contains(path, "[") || i.plan == nil {
		return i.key(path)
	}
	scope := ""
	runs(path, func(run, _ string) {
		of, _, _ := cut(run)
		if n := i.plan.node(of); n != nil && n.Kind == eventlog.ForEach {
			scope = run
		}
	})
	return i.key(scope + pattern(path[len(scope):]))
}
