package engine

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

const (
	// turnUnits are the requests, results, timers and calls that the turns of all partitions of a
	// log take together: some 20 ms of work, for callers wait until those before them have ended.
	turnUnits  = 1024
	leastUnits = 64      // of one partition
	turnEvents = 4096    // events after which a turn takes no more
	turnBytes  = 8 << 20 // of instances that changed, after which it takes no more
	ackDelay   = 1000    // ms that an acknowledgement may wait for another event
	// busyUnits is how many calls may queue before new ones are refused at the door.
	busyUnits = 20_000
)

// loop begins a turn with all that is there, or says until when there is nothing to do.
func (o *owner) loop() op {
	if o.storeErr != nil {
		return o.failedOp(o.storeErr)
	}
	o.phase = ready
	o.project()
	if o.swamped() {
		return opIdle{until: o.now + ackDelay}
	}
	if !o.looked { // twice in a row, and a store that is slow would keep it from all else
		if until, due := o.timers.Read(o.now); due {
			o.phase, o.looked = scanning, true
			o.asked()
			return opIndex{due: until}
		}
	}
	o.looked = false
	o.gather()
	if len(o.queue) == 0 && (o.ackSince == 0 || o.now < o.ackSince+ackDelay) {
		return opIdle{until: o.wake()}
	}
	o.turn = &machine.Turn{S: o.st, Registry: o.registry, App: o.app, Now: o.now, MaxEvent: o.maxEvent, MaxMessage: o.maxMessage}
	o.done, o.replies, o.mended, o.late, o.turnFrom = nil, nil, nil, nil, o.cache.changed.bytes
	o.makeUpdates()
	return o.decide()
}

// wake is the next time at which there is something to do without new input.
func (o *owner) wake() int64 {
	at := o.timers.Wake()
	if o.ackSince > 0 {
		at = min(at, o.ackSince+ackDelay)
	}
	return at
}

// gather queues what the turn will do: first what must be next, then what others wait for,
// then new work.
func (o *owner) gather() {
	// What callers wait for is not kept out by the rest.
	theirs := min(len(o.calls), o.maxTurn/4)
	room := o.maxTurn - theirs
	add := func(l *[]unit) {
		n := min(room, len(*l))
		o.queue = append(o.queue, (*l)[:n]...)
		*l = (*l)[n:]
		if len(*l) == 0 {
			*l = nil
		}
		room -= n
	}
	for _, id := range sortedIDs(o.st.Frozen) {
		o.queue = append(o.queue, quarantineUnit(id, o.st.Frozen[id]))
	}
	for _, id := range sortedIDs(o.poisoned) {
		o.queue = append(o.queue, quarantineUnit(id, o.poisoned[id]))
	}
	add(&o.results)
	if o.leaving {
		return
	}
	before := len(o.queue)
	add(&o.inbox)
	for k := range o.queue[before:] {
		o.inboxed -= o.queue[before+k].size
	}
	// protocol rule 10: what the inbox held at recovery may have the result of a handler that
	// seems to have been cut short.
	if o.offset >= o.inboxEnd || o.rules.interruptEarly {
		add(&o.orphans)
	}
	for fired := 0; fired < o.maxTimers && room > 0; fired++ {
		d, forgotten, ok := o.timers.Due(o.now)
		if !ok {
			break
		}
		o.queue = append(o.queue, unit{offset: -1, request: d.Request(), found: forgotten})
		room--
	}
	if msg, ok := o.st.FanOut(); ok {
		o.queue = append(o.queue, unit{offset: -1, request: eventlog.Request{Type: machine.FanOut, Msg: msg}})
	}
	room += theirs
	add(&o.calls)
}

// hasRunUnit says that a handler has run for a second.
func hasRunUnit(k jobKey) unit {
	return unit{offset: -1, request: eventlog.Request{V: 1, Type: machine.HasRun, ID: k.instance, Run: k.run, Path: k.work.Path, Act: k.work.Act, Attempt: k.work.Attempt}}
}

func quarantineUnit(id, reason string) unit {
	return unit{offset: -1, request: eventlog.Request{Type: machine.Quarantine, ID: id, Reason: reason}}
}

func sortedIDs(m map[string]string) []string {
	if len(m) == 0 {
		return nil
	}
	l := make([]string, 0, len(m))
	for id := range m {
		l = append(l, id)
	}
	sort.Strings(l)
	return l
}

// decide goes through the queue; what a unit told its own partition comes right after it.
func (o *owner) decide() op {
	for {
		u := o.local
		if u == nil {
			if r, ok := o.turn.NextLocal(); ok {
				u = &unit{request: r, offset: -1}
			}
		}
		fromQueue := u == nil
		if fromQueue {
			if len(o.queue) == 0 {
				break
			}
			if len(o.turn.Events) >= turnEvents || o.cache.changed.bytes >= o.turnFrom+turnBytes || o.updates.bytes >= updatesTurn {
				break // the rest waits for the next transaction
			}
			u = &o.queue[0]
			u.events = len(o.turn.Events)
		}
		if m := o.missingFor(u, fromQueue); m != nil {
			if !fromQueue {
				o.local = u
			}
			o.phase = loading
			o.asked()
			return *m
		}
		o.local = nil
		if err := o.unit(u); err != nil {
			return o.fail(err)
		}
		if fromQueue {
			o.done = append(o.done, o.queue[0])
			o.queue = o.queue[1:]
		}
		for _, id := range sortedIDs(o.st.Frozen) { // its next event is the quarantine
			q := quarantineUnit(id, o.st.Frozen[id])
			if err := o.unit(&q); err != nil {
				return o.fail(err)
			}
		}
	}
	return o.close()
}

// missingFor is what a unit lacks, and with it what the rest of the queue does.
func (o *owner) missingFor(u *unit, ahead bool) *opRead {
	id, key, isKey := o.needs(u)
	m := o.missing(nil, id, key, isKey)
	if m == nil || !ahead {
		return m
	}
	for k := 1; k < min(len(o.queue), readAhead); k++ {
		id, key, isKey := o.needs(&o.queue[k])
		m = o.missing(m, id, key, isKey)
	}
	return m
}

func (o *owner) needs(u *unit) (ids []string, key eventlog.KeyRef, isKey bool) {
	if u.bad != nil {
		return nil, key, false
	}
	id, key, isKey := o.turn.Needs(&u.request)
	if id != "" {
		ids = []string{id}
	}
	return ids, key, isKey
}

// loaded goes on with the turn.
func (o *owner) loaded(r result) op {
	if err := o.take(r); err != nil {
		return o.failedOp(err)
	}
	return o.decide()
}

// unit does one thing of the turn. A panic in it drops the batch; the next one begins with
// the quarantine of the instance.
func (o *owner) unit(u *unit) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = o.setAside(u, fmt.Sprintf("decide %s: %v\n%s", u.request.Type, r, debug.Stack()))
		}
	}()
	if u.offset >= 0 {
		o.offset, o.term = u.offset+1, u.term
		if reason, known := o.poison[u.offset]; known && u.bad == nil {
			u.reason = reason
			u.bad = &eventlog.Record{Value: mustEncode(&u.request)}
		}
	}
	switch {
	case u.bad != nil:
		o.deadLetter(u)
		return nil
	case u.read:
		o.read(u)
		return nil
	}
	id := u.request.ID
	answer := o.turn.Decide(&u.request)
	if u.offset >= 0 {
		o.turn.Unanswered(&u.request, answer)
	}
	if id != "" {
		if i, known := o.st.Instances[id]; known {
			o.cache.note(id, i, o.st.IsChanged(i))
		}
	}
	switch u.request.Type {
	case machine.Quarantine:
		delete(o.poisoned, id)
	case machine.Interrupted:
		// Now it may be started again, if it is still wanted.
		k := jobKey{id, u.request.Run, machine.Work{Path: u.request.Path, Act: u.request.Act, Attempt: u.request.Attempt}}
		o.running[id] = slices.DeleteFunc(o.running[id], func(x jobKey) bool { return x == k })
	}
	if u.request.Type == machine.Timer && answer == machine.OK {
		o.late = append(o.late, o.now-u.request.Expires)
	}
	if u.found && answer == machine.OK {
		o.mended = append(o.mended, machine.Due{At: u.request.Expires, Type: u.request.Type, ID: id, Path: u.request.Path})
	}
	if u.token != nil {
		a := Answer{Answer: answer}
		if i := o.st.Instances[id]; i != nil {
			a.Run = i.Run
		}
		o.replies = append(o.replies, reply{token: u.token, answer: a})
	}
	return nil
}

// setAside sees to it that what panicked is not decided again: the instance goes to
// quarantine, else the request to the dead letters, else the caller is told. One that is in
// quarantine, or would be but for the request, is not at fault. A request of the engine's own that
// has none of these is tried again, slowly.
func (o *owner) setAside(u *unit, reason string) error {
	id := u.request.ID
	i := o.st.Instances[id]
	switch {
	case id != "" && i != nil && i.Run > 0 && i.Quarantined == "" && o.poisoned[id] == "" && u.request.Type != eventlog.ReleaseInstance:
		o.poisoned[id] = reason
	case u.offset >= 0:
		o.poison[u.offset] = reason
	case u.token != nil:
		o.effects.replies = append(o.effects.replies, reply{token: u.token, err: fmt.Errorf("engine: %s", reason)})
		u.token = nil
	default:
		return fmt.Errorf("engine: %s", reason)
	}
	return fmt.Errorf("%w: %s", errPoison, reason)
}

func mustEncode(r *eventlog.Request) []byte {
	data, err := eventlog.AppendRequest(nil, r)
	if err != nil {
		return nil
	}
	return data
}

// deadLetter sets an undecodable request aside; its position stands in the turn's event.
func (o *owner) deadLetter(u *unit) {
	rec := machine.DeadLetter(o.app, u.reason)
	rec.Headers = append(rec.Headers, eventlog.Header{Key: "dagger-topic", Value: []byte(eventlog.RequestsTopic(o.app))})
	if n := len(u.bad.Value); o.maxMessage != nil && len(u.bad.Key)+n+len(u.reason)+deadSlack > o.maxMessage(rec.Topic) {
		rec.Headers = append(rec.Headers,
			eventlog.Header{Key: "dagger-omitted-bytes", Value: strconv.AppendInt(nil, int64(n), 10)},
			eventlog.Header{Key: "dagger-partition", Value: strconv.AppendInt(nil, int64(o.partition), 10)},
			eventlog.Header{Key: "dagger-offset", Value: strconv.AppendInt(nil, u.offset, 10)})
	} else {
		rec.Key, rec.Value = u.bad.Key, u.bad.Value
	}
	o.turn.DeadLetter(rec)
}

func (o *owner) read(u *unit) {
	i := o.st.Instances[u.request.ID]
	switch {
	case i == nil || i.Run == 0:
		o.replies = append(o.replies, reply{token: u.token, err: ErrNotFound})
	case u.wait && !i.Terminal():
		if !slices.Contains(o.waiters[i.ID], u.token) {
			o.waiters[i.ID] = append(o.waiters[i.ID], u.token)
		}
	default:
		o.replies = append(o.replies, reply{token: u.token, instance: i.Clone()})
	}
}

// leave forgets a wait, wherever it stands.
func (o *owner) leave(u *unit) {
	same := func(x unit) bool { return x.token == u.token }
	o.calls = slices.DeleteFunc(o.calls, same)
	o.queue = slices.DeleteFunc(o.queue, same)
	id := u.request.ID
	if k := slices.Index(o.waiters[id], u.token); k >= 0 {
		o.waiters[id] = slices.Delete(o.waiters[id], k, k+1)
	}
	if len(o.waiters[id]) == 0 {
		delete(o.waiters, id)
	}
}

// close ends the turn: one transaction, or nothing at all.
func (o *owner) close() op {
	t := o.turn
	forwarded := o.st.N // an empty outbox: everything there is has reached its targets
	if len(o.outbox) > 0 {
		forwarded = o.outbox[0].n - 1
	} else if n := len(t.Events); n > 0 {
		forwarded = t.Events[0].N - 1
	}
	t.Close(machine.Position{TopicID: o.requestsID, Offset: o.offset, Term: o.term, Forwarded: forwarded,
		AckNow: o.ackSince > 0 && o.now >= o.ackSince+ackDelay})
	if len(t.Events) == 0 {
		return o.committed()
	}
	a := opAppend{events: make([][]byte, len(t.Events)), types: make([]eventlog.Type, len(t.Events)), messages: append(o.messages(), o.updates.records...)}
	if err := o.encode(&a); err != nil {
		return o.fail(err)
	}
	for _, e := range a.events {
		o.cache.changed.bytes += int64(len(e))
	}
	o.last.value = a.events[len(a.events)-1]
	if o.rules.effectsEarly {
		o.follow()
	}
	o.phase = appending
	return a
}

// eventFraming is more than a log adds to an event's bytes.
const eventFraming = 256

// encode writes the turn's events. One that can't be said in JSON, or that the log would not
// take in this attempt nor in any other, is its instance's fault, or that of what was decided.
func (o *owner) encode(a *opAppend) (err error) {
	var buf []byte
	at := 0
	defer func() {
		if r := recover(); r != nil {
			err = o.unfit(at, fmt.Sprintf("encode %s: %v", o.turn.Events[at].Type, r))
		}
	}()
	for k, e := range o.turn.Events {
		at = k
		from := len(buf)
		buf = eventlog.AppendEvent(buf, e)
		// The buffer may move when it grows; earlier slices still hold their bytes.
		a.events[k], a.types[k] = buf[from:len(buf):len(buf)], e.Type
		if n := len(buf) - from; o.maxEvent > 0 && n > o.maxEvent-eventFraming {
			return o.unfit(k, fmt.Sprintf("%s has %d bytes, of which the events topic takes %d", e.Type, n, o.maxEvent-eventFraming))
		}
	}
	return nil
}

// unfit sets aside what made an event of the turn that can't be written.
func (o *owner) unfit(event int, reason string) error {
	at := sort.Search(len(o.done), func(k int) bool { return o.done[k].events > event }) - 1
	cause := &unit{offset: -1}
	if at >= 0 {
		cause = &o.done[at]
	}
	id := cause.request.ID
	defer func() { cause.request.ID = id }()
	switch cause.request.Type {
	case eventlog.DeliverTo, eventlog.ReleaseInstance: // what they bring is too large
		cause.request.ID = ""
	default:
		cause.request.ID = cmp.Or(o.turn.Events[event].ID, id)
	}
	return o.setAside(cause, reason)
}

// messages are the records of the turn for users' topics and the dead letters.
func (o *owner) messages() []eventlog.Record {
	if len(o.turn.Sendings) == 0 {
		return nil
	}
	l := make([]eventlog.Record, len(o.turn.Sendings))
	for k, s := range o.turn.Sendings {
		l[k] = s.Record
		if s.Path != "" {
			e := o.turn.Events[s.Event]
			l[k].Headers = append(slices.Clone(s.Record.Headers),
				eventlog.Header{Key: "dagger-app", Value: []byte(o.app)},
				eventlog.Header{Key: "dagger-instance", Value: []byte(e.ID)},
				eventlog.Header{Key: "dagger-path", Value: []byte(e.Path)},
				eventlog.Header{Key: "dagger-idempotency-key", Value: []byte(IdempotencyKey(e.ID, e.Run, e.Path, e.Act))})
		}
	}
	return l
}

// IdempotencyKey is the same for all attempts of one activation of a task; protocol rule 10.
func IdempotencyKey(id string, run uint64, path string, act uint64) string {
	return fmt.Sprintf("%s/%d/%s/%d", id, run, path, act)
}
