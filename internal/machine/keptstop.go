package machine

import (
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// A stop may overtake the start that it is meant for: topics whose records start and stop
// instances are read each at its own speed. One that comes from such a record is kept for a
// day and stops the instance as soon as that starts. Protocol rule 19.

const (
	stopMemory = 24 * 3600_000 // ms
	keptStops  = 16            // definitions that an id is kept a stop for
)

// KeptStop is a stop of an instance that does not exist yet.
type KeptStop struct {
	N          uint64            `json:"n"` // of its StopKept
	Definition string            `json:"definition"`
	Request    string            `json:"request"`
	Reason     string            `json:"reason,omitempty"`
	Message    *eventlog.Message `json:"message"` // record that asked for it
	Expires    int64             `json:"expires"`
}

// keepStop keeps a stop, instead of another one for the same definition. Who waits for an
// answer gets it, and so does who means an instance that was deleted.
func (t *Turn) keepStop(i *Instance, r *eventlog.Request) string {
	switch {
	case r.Message == nil, r.Definition == "", r.Request == "", t.S.Rules.NoStopKept,
		i != nil && len(i.Applied) > 0,
		i != nil && len(i.Stops) >= keptStops && i.stop(r.Definition) == nil,
		t.MaxEvent > 0 && 2*messageSize(r.Message) > t.MaxEvent-eventOverhead:
		return t.refuse(r, NotFound)
	}
	t.emit(&eventlog.Event{Type: eventlog.StopKept, ID: r.ID, Definition: r.Definition, Request: r.Request, Reason: r.Reason,
		Message: r.Message, Expires: max(t.Now, t.S.At) + t.S.Rules.Limits.stop()})
	return OK
}

func messageSize(m *eventlog.Message) int {
	n := len(m.Topic) + len(m.Key) + len(m.Value) + len(m.Bytes)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// stop is what is kept for a definition, or nil.
func (i *Instance) stop(definition string) *KeptStop {
	for k := range i.Stops {
		if i.Stops[k].Definition == definition {
			return &i.Stops[k]
		}
	}
	return nil
}

// overtaken ends a kept stop of an instance that has just started, or was released after its
// start had brought it into quarantine: the instance is stopped, unless it was given a state in
// which it has ended.
func (t *Turn) overtaken(id string) (over bool) {
	i := t.S.Instances[id]
	if i == nil || i.Run == 0 || i.Quarantined != "" || t.S.Frozen[id] != "" || t.S.Rules.NoStopFollows {
		return false
	}
	s := i.stop(i.Definition)
	switch {
	case s == nil:
		return false
	case i.active():
		t.stop(i, &eventlog.Event{Reason: s.Reason, Request: s.Request})
	default:
		t.emit(&eventlog.Event{Type: eventlog.StopExpired, ID: id, Msg: s.N, Reason: Terminal})
	}
	return true
}

// StopWaits says that an instance in quarantine will be stopped when it is released, and by what;
// or "".
func (i *Instance) StopWaits() string {
	if i.Quarantined == "" || i.Run == 0 {
		return ""
	}
	for _, s := range i.Stops {
		if i.Definition == "" || i.Definition == s.Definition { // "" when its start was not folded
			return fmt.Sprintf("an instance of %s is stopped when it is released: %s", s.Definition, s.Reason)
		}
	}
	return ""
}

// expireStop sets a stop aside for which no instance has started in its time.
func (t *Turn) expireStop(i *Instance, r *eventlog.Request) string {
	if i == nil {
		return Ignored
	}
	k := slices.IndexFunc(i.Stops, func(s KeptStop) bool { return s.N == r.Msg && s.Expires == r.Expires })
	if k < 0 || r.Expires > max(t.Now, t.S.At) {
		return Ignored
	}
	s := i.Stops[k]
	const why = "not found in 24 hours"
	t.emit(&eventlog.Event{Type: eventlog.StopExpired, ID: i.ID, Msg: s.N, Reason: why})
	m := s.Message
	t.setAside(&eventlog.Request{Type: eventlog.StopInstance, ID: i.ID, Topic: m.Topic, Message: m,
		Source: &eventlog.Source{TopicID: m.TopicID, Partition: m.Partition}, Mark: &eventlog.Mark{Pos: m.Offset}}, why)
	return OK
}

// foldStops keeps and forgets stops; a call that was applied needs to be kept no longer.
func (i *Instance) foldStops(e *eventlog.Event) {
	switch {
	case e.Type == eventlog.StopKept:
		i.Stops = slices.DeleteFunc(i.Stops, func(s KeptStop) bool { return s.Definition == e.Definition })
		i.Stops = append(i.Stops, KeptStop{N: e.N, Definition: e.Definition, Request: e.Request, Reason: e.Reason, Message: e.Message, Expires: e.Expires})
	case e.Type == eventlog.StopExpired:
		i.Stops = slices.DeleteFunc(i.Stops, func(s KeptStop) bool { return s.N == e.Msg })
	case e.Seq > 0 && e.Request != "" && len(i.Stops) > 0:
		i.Stops = slices.DeleteFunc(i.Stops, func(s KeptStop) bool { return s.Request == e.Request })
	}
}
