package engine

import (
	"errors"
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// simLog is the log of a simulated world: partitions of events and requests, and users'
// topics. Offsets have gaps, as a real log's have.
type simLog struct {
	w      *world
	parts  []*simPart
	topics map[string]*simTopic
	dead   []eventlog.Record // dead letters
	// byCall has what was answered in the log, by instance and request id.
	byCall map[[2]string]string
}

type simPart struct {
	epoch    int // of the owner's fence
	events   []simEntry
	end      int64
	messages []eventlog.Record // of the open transaction
	requests []eventlog.Record
	reqEnd   int64
	owner    string // worker of the last PartitionOwned
	owned    int64  // since when
}

type simState byte

const (
	simOpen simState = iota
	simCommitted
	simAborted
)

type simEntry struct {
	offset int64
	value  []byte
	state  simState
	event  *eventlog.Event // nil for a barrier
}

// simTopic is a user's topic of one partition.
type simTopic struct {
	name    string
	id      string
	made    int // how often it was created
	records []eventlog.Record
	end     int64
}

var (
	errSimUnknown = errors.New("sim: connection lost, outcome unknown")
	errSimLost    = errors.New("sim: connection lost")
)

func newSimLog(w *world) *simLog {
	l := &simLog{w: w, topics: map[string]*simTopic{}, byCall: map[[2]string]string{}}
	for range w.env.partitions {
		l.parts = append(l.parts, &simPart{})
	}
	return l
}

// own fences a partition: what the last owner left open is aborted.
func (l *simLog) own(p int32) int {
	x := l.parts[p]
	l.abortOpen(x)
	x.epoch++
	return x.epoch
}

func (l *simLog) abortOpen(x *simPart) {
	open := false
	for k := len(x.events) - 1; k >= 0 && x.events[k].state == simOpen; k-- {
		x.events[k].state = simAborted
		open = true
	}
	if open {
		x.end++ // the marker
	}
	x.messages = nil
}

func (l *simLog) append(p int32, epoch int, events [][]byte, messages []eventlog.Record) (int64, error) {
	x := l.parts[p]
	if epoch != x.epoch {
		l.w.count.fenced++
		return 0, eventlog.ErrFenced
	}
	for k := range messages {
		if messages[k].Topic == simRefusing && l.w.fault(l.w.env.refuse) {
			return 0, &eventlog.RefusedError{Index: k, Err: eventlog.ErrTooLarge}
		}
	}
	x.end += l.w.gap()
	first := x.end
	for _, value := range events {
		entry := simEntry{offset: x.end, value: append([]byte(nil), value...)}
		if !eventlog.IsBarrier(value) {
			entry.event = &eventlog.Event{}
			if err := eventlog.DecodeEvent(entry.value, entry.event); err != nil {
				l.w.violation("an event can't be decoded: %v", err)
			}
		}
		x.events = append(x.events, entry)
		x.end++
	}
	x.messages = append(x.messages, messages...)
	return first, nil
}

func (l *simLog) commit(p int32, epoch int) error {
	x := l.parts[p]
	if epoch != x.epoch {
		l.w.count.fenced++
		return eventlog.ErrFenced
	}
	if !l.w.fault(l.w.env.unknown) {
		l.settle(p)
		return nil
	}
	l.w.count.unknown++
	switch l.w.rng.IntN(3) {
	case 0:
		l.settle(p)
	case 1: // later, unless it is fenced first
		l.w.after(l.w.between(1, 200), func() {
			if x.epoch == epoch {
				l.settle(p)
			}
		})
	}
	return errSimUnknown
}

// settle commits what is open.
func (l *simLog) settle(p int32) {
	x := l.parts[p]
	from := len(x.events)
	for from > 0 && x.events[from-1].state == simOpen {
		from--
	}
	if from == len(x.events) {
		return
	}
	l.w.count.commits++
	x.end++ // the marker
	for k := from; k < len(x.events); k++ {
		x.events[k].state = simCommitted
		if e := x.events[k].event; e != nil {
			l.w.count.events++
			l.noteCall(e)
			l.interrupted(x, e)
			if e.Type == eventlog.InstanceQuarantined && l.w.env.poison == 0 {
				l.w.violation("partition %d event %d: instance %s is quarantined: %s", p, e.N, e.ID, e.Reason)
			}
			l.w.tracef("p%d event %d %s %s seq %d %s act %d att %d msg %d %s %s%s", p, e.N, e.Type, e.ID, e.Seq, e.Path, e.Act, e.Attempt, e.Msg, e.Value, simOuts(e), simPos(e))
		}
	}
	for _, m := range l.takeUpdates(p, x.events[from:], x.messages) {
		if m.Topic == eventlog.DeadLetterTopic(simApp) {
			l.dead = append(l.dead, m)
			continue
		}
		l.produce(l.topics[m.Topic], m)
	}
	x.messages = nil
}

// interrupted checks that no attempt is interrupted whose result its owner's own process has;
// protocol rule 10.
func (l *simLog) interrupted(x *simPart, e *eventlog.Event) {
	switch e.Type {
	case eventlog.PartitionOwned:
		x.owner, x.owned = e.Worker, l.w.now
	case eventlog.AttemptInterrupted:
		p, ok := l.w.finished[simTask{e.ID, e.Run, e.Path, e.Act, e.Attempt}]
		if !ok || p.worker != x.owner || p.at >= x.owned {
			return // one that came after the take-over counts like any other result
		}
		for _, wk := range l.w.workers {
			if fmt.Sprintf("w%d", wk.index) == p.worker && wk.life == p.life {
				l.w.violation("event %d: %s of %s is interrupted although %s has its result", e.N, e.Path, e.ID, p.worker)
			}
		}
	}
}

func (l *simLog) noteCall(e *eventlog.Event) {
	if e.Request != "" {
		l.byCall[[2]string{e.ID, e.Request}] = "ok"
	}
	if e.Pos != nil {
		for _, r := range e.Pos.Refused {
			l.byCall[[2]string{r.ID, r.Request}] = r.Answer
		}
	}
}

func (l *simLog) abort(p int32, epoch int) error {
	x := l.parts[p]
	if epoch != x.epoch {
		return eventlog.ErrFenced
	}
	l.abortOpen(x)
	return nil
}

// stable is the offset up to which committed events can be read: an open transaction stops
// the reader.
func (x *simPart) stable() int64 {
	end := x.end
	for k := len(x.events) - 1; k >= 0 && x.events[k].state == simOpen; k-- {
		end = x.events[k].offset
	}
	return end
}

func (l *simLog) last(p int32, before int64) (n uint64, at int64) {
	x := l.parts[p]
	before = min(before, x.stable())
	for k := len(x.events) - 1; k >= 0; k-- {
		if e := &x.events[k]; e.offset < before && e.state == simCommitted && e.event != nil {
			return e.event.N, e.event.At
		}
	}
	return 0, 0
}

// request appends to the inbox of a partition.
func (l *simLog) request(p int32, r eventlog.Record) {
	x := l.parts[p]
	x.reqEnd += l.w.gap()
	r.Topic, r.Partition, r.Offset = eventlog.RequestsTopic(simApp), p, x.reqEnd
	x.requests = append(x.requests, r)
	x.reqEnd++
	l.w.wakeReaders(p)
}

func (l *simLog) topic(name string) *simTopic {
	t := l.topics[name]
	if t == nil {
		t = &simTopic{name: name, id: name + "#0"}
		l.topics[name] = t
	}
	return t
}

func (l *simLog) produce(t *simTopic, r eventlog.Record) int64 {
	t.end += l.w.gap()
	r.Topic, r.Partition, r.Offset = t.name, 0, t.end
	t.records = append(t.records, r)
	t.end++
	return r.Offset
}

// recreate deletes a topic and makes it again: offsets start anew under another id.
func (t *simTopic) recreate() {
	t.made++
	t.id, t.records, t.end = fmt.Sprintf("%s#%d", t.name, t.made), nil, 0
}

// simOuts and simPos are parts of an event in few words, for traces.
func simOuts(e *eventlog.Event) (s string) {
	for _, o := range e.Out {
		s += fmt.Sprintf(" ->p%d %s %s %s msg %d", o.To, o.Request.Type, o.Request.ID, o.Request.Value, o.Request.Msg)
	}
	return s
}

func simPos(e *eventlog.Event) string {
	if e.Pos == nil {
		return ""
	}
	return fmt.Sprintf(" at %d fwd %d sources %v refused %v", e.Pos.Offset, e.Pos.Forwarded, e.Pos.Sources, e.Pos.Refused)
}
