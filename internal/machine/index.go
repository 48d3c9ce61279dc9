package machine

import (
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Due is something that becomes due: the request that it makes proves itself against the
// state when its time comes.
type Due struct {
	At      int64
	Type    eventlog.RequestType // Timer, ExpireBuffer, ExpireKept, ExpireStop, Forget or Outlived
	ID      string
	Key     eventlog.KeyRef // ExpireKept
	Path    string
	Run     uint64
	Act     uint64
	Attempt int
	Msg     uint64
}

// Request is what the owner decides when the time has come.
func (d Due) Request() eventlog.Request {
	return eventlog.Request{V: 1, Type: d.Type, ID: d.ID, Path: d.Path, Run: d.Run, Act: d.Act, Attempt: d.Attempt, Msg: d.Msg, Expires: d.At,
		Topic: d.Key.Topic, Key: d.Key.Key, Value: d.Key.Value}
}

// Dues are the instance's entries of the due index.
func (i *Instance) Dues() []Due {
	var l []Due
	if i.active() {
		for _, k := range i.Tasks {
			if k.Status == Executing && k.Due > 0 {
				l = append(l, Due{At: k.Due, Type: Timer, ID: i.ID, Path: k.Path, Run: i.Run, Act: k.Act, Attempt: k.Attempt})
			}
		}
	}
	if i.Quarantined == "" {
		for _, b := range i.Buffer {
			l = append(l, Due{At: b.Expires, Type: ExpireBuffer, ID: i.ID, Act: b.Seq, Msg: b.Msg})
		}
		for _, s := range i.Stops {
			l = append(l, Due{At: s.Expires, Type: ExpireStop, ID: i.ID, Msg: s.N})
		}
	}
	if i.DeleteAt > 0 && i.Terminal() && i.Quarantined == "" {
		l = append(l, Due{At: i.DeleteAt, Type: Outlived, ID: i.ID, Run: i.Run})
	}
	if at := i.forgetAt(); at > 0 {
		l = append(l, Due{At: at, Type: Forget, ID: i.ID})
	}
	return l
}

// forgetAt is when the oldest remembered answer is past its time; those of applied calls, and
// at last the greatest Made that was forgotten, count when there is no instance. 0 = there is none.
func (i *Instance) forgetAt() (at int64) {
	if len(i.Refused) > 0 {
		at = i.Refused[0].At + answerMemory
	}
	if i.Run == 0 && len(i.Applied) > 0 && (at == 0 || i.Applied[0].At+answerMemory < at) {
		at = i.Applied[0].At + answerMemory
	}
	if i.Run == 0 && at == 0 && i.Floor > 0 {
		at = i.Floor + answerMemory
	}
	return at
}

// Due is the kept message's entry of the due index.
func (k Kept) Due(key eventlog.KeyRef) Due {
	return Due{At: k.Expires, Type: ExpireKept, Key: key, Msg: k.Msg}
}

// Work is user code that should be running for an instance: the handler of a task, or with
// an empty path the functions that give its correlation keys.
type Work struct {
	Path    string
	Act     uint64
	Attempt int
}

// Works are the instance's entries of the run index. Protocol rule 10: a new owner finds
// and restarts them.
func (i *Instance) Works() []Work {
	if !i.active() {
		return nil
	}
	var l []Work
	if i.Evaluate != 0 {
		l = append(l, Work{Act: i.Evaluate})
	}
	for _, k := range i.Tasks {
		if k.Status == Executing && k.Phase == Running {
			l = append(l, Work{Path: k.Path, Act: k.Act, Attempt: k.Attempt})
		}
	}
	return l
}

// StatusName is the instance's status for lists; a quarantined instance has one of its own.
func (i *Instance) StatusName() string {
	if i.Quarantined != "" {
		return "QUARANTINED"
	}
	return string(i.Status)
}

// WaitsFor says in a sentence what a task waits for; "" when it does not wait. plan may be
// nil: then a listener's topic is not named.
func (i *Instance) WaitsFor(plan *Plan, path string) string {
	t := i.Task(path)
	if t != nil && t.Status == Submitted {
		return fmt.Sprintf("waits for a worker with %s@%s, since %s", i.Definition, i.Plan, clock(t.Since))
	}
	if t == nil || t.Status != Executing || i.Terminal() {
		return ""
	}
	since := clock(t.Since)
	var n *Node
	if plan != nil {
		n = plan.Task(path)
	}
	switch t.Phase {
	case Inside:
		if t.Due > 0 {
			return "its deadline is " + clock(t.Due)
		}
		return ""
	case Waiting:
		switch {
		case t.Kind == eventlog.Monitor && t.Due == 0:
			return "watches; its time has no value yet, since " + since
		case t.Kind == eventlog.Monitor:
			return "watches; runs at " + clock(t.Due)
		case t.Kind == eventlog.At && t.Due == 0:
			return "waits for a time that has no value yet, since " + since
		case t.Kind == eventlog.At:
			return "waits until " + clock(t.Due)
		case t.Kind == eventlog.Every && t.Due == 0:
			return "waits for its period, which has no value yet, since " + since
		case t.Kind == eventlog.Every:
			return "runs again at " + clock(t.Due)
		case n == nil:
			return "waits for a message, since " + since
		case i.KeyValue(path) == "":
			return fmt.Sprintf("waits for a message on %s; its key %s has no value yet, since %s", n.Topic, n.Key, since)
		}
		return fmt.Sprintf("waits for a message on %s with %s=%s, since %s", n.Topic, n.Key, i.KeyValue(path), since)
	case Retrying:
		of := ""
		if n != nil && n.Retry != nil {
			of = fmt.Sprintf(" of %d", n.Retry.Attempts)
		}
		return fmt.Sprintf("attempt %d%s at %s, after: %s", t.Attempt+1, of, clock(t.Due), t.Error)
	}
	return fmt.Sprintf("attempt %d runs, since %s", t.Attempt, since)
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z") }
