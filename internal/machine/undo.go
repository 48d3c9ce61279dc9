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
}

type kept struct {
	index int
	task  Task
}

func (i *Instance) remember(e *eventlog.Event) undo {
	u := undo{was: i.Body}
	if len(e.Keys) > 0 {
		u.was.Keys = slices.Clone(i.Keys)
	}
	if len(i.Tasks) <= manyTasks || i.changesMuch(e) {
		u.was.Tasks, u.was.Keys = slices.Clone(i.Tasks), slices.Clone(i.Keys)
		return u
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
	return u
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

// body is the body as it was.
func (u *undo) body() Body {
	if u.tasks != nil {
		for _, k := range u.tasks {
			u.was.Tasks[k.index] = k.task
		}
	}
	return u.was
}
