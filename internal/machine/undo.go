package machine

import (
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// undo is the body of an instance as it was before an event, in case its fold panics. Most
// events change a few tasks, and an instance may have hundreds: only those are kept then.
type undo struct {
	was   Body
	tasks []kept // of was.Tasks, as they were; nil = was.Tasks is a copy
	// The memory of copies, used again for the next event.
	copied []Task
	keys   []eventlog.TaskKey
}

type kept struct {
	index int
	task  Task
}

func (u *undo) remember(i *Instance, e *eventlog.Event) {
	u.was, u.tasks = i.Body, nil
	all := len(i.Tasks) <= manyTasks || i.changesMuch(e)
	if len(i.Keys) > 0 && (all || len(e.Keys) > 0) {
		u.keys = append(u.keys[:0], i.Keys...)
		u.was.Keys = u.keys
	}
	if all {
		if len(i.Tasks) > 0 {
			u.copied = append(u.copied[:0], i.Tasks...)
			u.was.Tasks = u.copied
		}
		return
	}
	u.tasks = []kept{}
	u.keep(i, e.Path)
	for k := range e.Starts {
		u.keep(i, e.Starts[k].Path)
	}
	for k := range e.Ends {
		u.keep(i, e.Ends[k].Path)
	}
	for k := range e.Keys {
		u.keep(i, e.Keys[k].Path)
	}
}

// changesMuch says that an event may change other tasks than those that it names, or forget
// some.
func (i *Instance) changesMuch(e *eventlog.Event) bool {
	switch e.Type {
	case eventlog.InstanceStarted, eventlog.InstanceCompleted, eventlog.InstanceFailed, eventlog.InstanceStopped,
		eventlog.InstanceReset, eventlog.InstanceDeleted:
		return true
	}
	return len(i.Items)+len(e.Items) > 0 ||
		slices.ContainsFunc(e.Keys, func(k eventlog.TaskKey) bool { return strings.Contains(k.Path, "[]") }) ||
		slices.ContainsFunc(e.Ends, func(x eventlog.End) bool { return x.Status == string(NotStarted) })
}

func (u *undo) keep(i *Instance, path string) {
	for k := range i.Tasks {
		if i.Tasks[k].Path == path {
			u.tasks = append(u.tasks, kept{k, i.Tasks[k]})
			return
		}
	}
}

// body is the body as it was. Its memory is the caller's from then on.
func (u *undo) body() Body {
	was := u.was
	for _, k := range u.tasks {
		was.Tasks[k.index] = k.task
	}
	*u = undo{}
	return was
}
