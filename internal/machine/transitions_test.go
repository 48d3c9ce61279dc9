package machine

import (
	"fmt"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

// move is a change of the status of an instance or a task (with its phase).
type move struct {
	what     string // instance or task
	from, to string
	by       eventlog.Type
}

func (m move) String() string { return fmt.Sprintf("%s %s -> %s by %s", m.what, m.from, m.to, m.by) }

// state names a task's status; an executing one says what it does.
func (t *Task) state() string {
	switch {
	case t == nil:
		return string(NotStarted)
	case t.Status == Executing:
		return string(t.Status) + " " + string(t.Phase)
	}
	return string(t.Status)
}

func (i *Instance) state() string {
	if i == nil || i.Run == 0 {
		return string(NotStarted)
	}
	return string(i.Status)
}

// moves are the changes that an event made.
func moves(before, after *Instance, e *eventlog.Event) (l []move) {
	if from, to := before.state(), after.state(); from != to {
		l = append(l, move{"instance", from, to, e.Type})
	}
	for k := range after.Tasks {
		t := &after.Tasks[k]
		var old *Task
		if before != nil {
			old = before.Task(t.Path)
		}
		if from, to := old.state(), t.state(); from != to {
			l = append(l, move{"task", from, to, e.Type})
		}
	}
	return l
}

var (
	seenMovesMu sync.Mutex
	seenMoves   = map[move]bool{}
)

func allowed(m move) bool {
	seenMovesMu.Lock()
	seenMoves[m] = true
	seenMovesMu.Unlock()
	return true
}
