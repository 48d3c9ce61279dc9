package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/machine"
)

// simAudit judges a world that has come to rest, mostly from its log alone.
type simAudit struct {
	w      *world
	full   []*machine.State // the fold of each partition's whole log
	blocks []block          // of the events folded
	reset  map[string]bool  // instances that were in quarantine
}

func (w *world) audit() {
	if len(w.faults) > 0 {
		return
	}
	a := &simAudit{w: w, reset: map[string]bool{}}
	judge := audit.New(w.env.partitions, audit.Options{Settled: true, Buffered: w.env.limits.Buffer})
	w.eachEvent(func(p int32, offset int64, e *eventlog.Event) { judge.Event(p, offset, e) })
	for _, v := range judge.Finish().First {
		w.violation("%s", v)
	}
	if !a.fold() {
		return
	}
	a.calls()
	a.triggers()
	a.messages()
	a.order()
	a.subscriptions()
	a.sent()
	a.attempts()
	a.states()
	a.rows()
}

// eachEvent gives the committed events, partition by partition.
func (w *world) eachEvent(f func(p int32, offset int64, e *eventlog.Event)) {
	for p := range w.log.parts {
		for _, x := range w.log.parts[p].events {
			if x.state == simCommitted && x.event != nil {
				f(int32(p), x.offset, x.event)
			}
		}
	}
}

// fold builds each partition's state from all its events.
func (a *simAudit) fold() bool {
	w := a.w
	for p := range w.env.partitions {
		s := machine.NewState(p, w.env.partitions)
		s.Rules = w.rules.machine
		a.full, a.blocks = append(a.full, s), append(a.blocks, blockAt(0))
	}
	ok := true
	w.eachEvent(func(p int32, _ int64, e *eventlog.Event) {
		if e.Type == eventlog.InstanceQuarantined {
			a.reset[e.ID] = true
		}
		var own eventlog.Event
		if err := eventlog.DecodeEvent(eventlog.AppendEvent(nil, e), &own); err != nil {
			w.violation("event %d of partition %d: %v", e.N, p, err)
		}
		if err := a.full[p].Evolve(&own); err != nil && ok {
			w.violation("fold of partition %d: %v", p, err)
			ok = false
		}
		a.blocks[p].note(&own)
	})
	return ok
}

// calls compares what callers were told with what the log says.
func (a *simAudit) calls() {
	w := a.w
	applied := map[string]int{}
	w.eachEvent(func(_ int32, _ int64, e *eventlog.Event) {
		if e.Request != "" {
			applied[e.Request]++
		}
	})
	for _, c := range w.clients.calls {
		r := c.request
		switch n := applied[r.Request]; {
		case n > 1:
			w.violation("call %s was applied %d times", r.Request, n)
		case c.answer == machine.OK && n == 0:
			w.violation("call %s %s of %s was answered ok and is not in the log", r.Request, r.Type, r.ID)
		case c.done && c.answer != machine.OK && c.answer != machine.Expired && n > 0:
			w.violation("call %s %s of %s was answered %q although it was applied", r.Request, r.Type, r.ID, c.answer)
		}
	}
	for _, x := range w.clients.waits {
		i := a.full[eventlog.PartitionOf(x.id, w.env.partitions)].Instances[x.id]
		if i != nil && i.Run > 0 && i.Terminal() && i.Quarantined == "" && !x.done {
			w.violation("a wait for %s never ends", x.id)
		}
	}
}

type simMessage struct {
	p   int32
	msg uint64
}

// messages looks for each message that somebody sent: it arrived once, and it is somewhere.
func (a *simAudit) messages() {
	w := a.w
	arrived := map[string]simMessage{}
	received := map[simMessage]map[string]int{}
	type given struct {
		simMessage
		id       string
		run, act uint64
	}
	gave := map[given]bool{}
	type keyOfPartition struct {
		p   int32
		key eventlog.KeyRef
	}
	fanning := map[keyOfPartition]uint64{} // messages whose fan-out is not finished
	fan := map[simMessage]keyOfPartition{}
	where := map[simMessage]string{}
	at := func(e *eventlog.Event) simMessage {
		return simMessage{eventlog.PartitionOf(e.Value, w.env.partitions), e.Msg}
	}
	w.eachEvent(func(p int32, _ int64, e *eventlog.Event) {
		for _, o := range e.Out {
			if r := o.Request; r.Type == eventlog.DeliverTo && !a.reset[r.ID] {
				// protocol rule 20: what goes back stands behind the Unsubscribe.
				k := given{simMessage{p, r.Msg}, r.ID, r.Run, r.Act}
				if gave[k] {
					w.violation("message %d of partition %d is given to %s twice under the activation (%d, %d)", r.Msg, p, r.ID, r.Run, r.Act)
				}
				gave[k] = true
			}
		}
		switch k := (keyOfPartition{p, eventlog.KeyRef{Topic: e.Topic, Key: e.Key, Value: e.Value}}); e.Type {
		case eventlog.MessageMatched: // protocol rule 22
			if m := fanning[k]; m != 0 {
				w.violation("partition %d event %d: message %d is matched while the fan-out of %d is not finished", p, e.N, e.Msg, m)
			}
			if e.Until > 0 {
				fanning[k], fan[simMessage{p, e.Msg}] = e.Msg, k
			}
		case eventlog.FanOutPage:
			if e.Until == 0 {
				delete(fanning, fan[simMessage{p, e.Msg}])
			}
		}
		switch e.Type {
		case eventlog.MessageKept, eventlog.MessageMatched:
			if e.Msg != e.N || e.Message == nil {
				return
			}
			name := unitName(e.Message.TopicID, e.Message.Offset, TopicKey{e.Topic, e.Key}, e.Value)
			if _, twice := arrived[name]; twice {
				w.violation("message %s arrived twice", name)
			}
			if w.units[name] == nil {
				w.violation("message %s was never sent", name)
			}
			arrived[name] = simMessage{p, e.Msg}
		case eventlog.MessageReceived:
			m := at(e)
			if received[m] == nil {
				received[m] = map[string]int{}
			}
			received[m][e.ID]++
			if n := received[m][e.ID]; n > 1 && !a.reset[e.ID] {
				w.violation("message %d of partition %d was received %d times by %s", m.msg, m.p, n, e.ID)
			}
		case eventlog.MessageExpired, eventlog.BufferExpired, eventlog.MessageDropped:
			where[at(e)] = "dead"
		}
	})
	for p, s := range a.full {
		for ref, k := range s.Keys {
			if k == nil {
				continue
			}
			if len(k.Kept) > 0 && len(k.Waiters) > 0 {
				w.violation("partition %d: %v has %d messages and %d waiters", p, ref, len(k.Kept), len(k.Waiters))
			}
			for _, m := range k.Kept {
				where[simMessage{int32(p), m.Msg}] = "kept"
			}
		}
		for _, i := range s.Instances {
			if i == nil {
				continue
			}
			for _, b := range i.Buffer {
				where[simMessage{eventlog.PartitionOf(b.Value, w.env.partitions), b.Msg}] = "buffered"
			}
			for _, h := range i.Held {
				if h.Type == eventlog.DeliverTo {
					where[simMessage{eventlog.PartitionOf(h.Value, w.env.partitions), h.Msg}] = "held"
				}
			}
		}
		if n := len(s.Matched); n > 0 && !w.rules.machine.NoAck {
			w.violation("partition %d keeps %d matched messages for ever", p, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.units)) {
		m, ok := arrived[name]
		switch {
		case !ok:
			w.violation("message %s never arrived", name)
		case len(received[m]) == 0 && where[m] == "":
			w.violation("message %s (%d of partition %d) vanished", name, m.msg, m.p)
		case len(received[m]) > 0 && where[m] == "kept":
			w.violation("message %s (%d of partition %d) was received and is kept", name, m.msg, m.p)
		}
	}
}

// order checks that an instance receives the messages of one source and key in their order,
// where nothing was kept, returned or held.
func (a *simAudit) order() {
	w := a.w
	may := map[simMessage]bool{} // be overtaken
	type line struct {
		id, source string
		key        eventlog.KeyRef
	}
	type got struct {
		m     simMessage
		order int
	}
	sent := map[simMessage]int{}
	lines := map[line][]got{}
	source := map[simMessage]string{}
	buffered := map[string]simMessage{}
	w.eachEvent(func(p int32, _ int64, e *eventlog.Event) {
		m := simMessage{eventlog.PartitionOf(e.Value, w.env.partitions), e.Msg}
		switch e.Type {
		case eventlog.MessageMatched, eventlog.MessageKept:
			if e.Msg == e.N && e.Message != nil {
				source[m] = e.Message.TopicID
				if u := w.units[unitName(e.Message.TopicID, e.Message.Offset, TopicKey{e.Topic, e.Key}, e.Value)]; u != nil {
					sent[m] = u.order
				}
			}
			if e.Type == eventlog.MessageKept {
				may[m] = true
			}
		case eventlog.MessageReturned:
			may[m] = true
		case eventlog.MessageBuffered:
			buffered[fmt.Sprint(e.ID, " ", e.Seq)] = m
		}
		for _, seq := range e.Back {
			may[buffered[fmt.Sprint(e.ID, " ", seq)]] = true
		}
	})
	w.eachEvent(func(p int32, _ int64, e *eventlog.Event) {
		m := simMessage{eventlog.PartitionOf(e.Value, w.env.partitions), e.Msg}
		switch e.Type {
		case eventlog.RequestHeld:
			if e.Held.Type == eventlog.DeliverTo {
				may[simMessage{eventlog.PartitionOf(e.Held.Value, w.env.partitions), e.Msg}] = true
			}
		case eventlog.MessageReceived:
			l := line{e.ID, source[m], eventlog.KeyRef{Topic: e.Topic, Key: e.Key, Value: e.Value}}
			lines[l] = append(lines[l], got{m, sent[m]})
		}
	})
	for l, list := range lines {
		for k := 1; k < len(list); k++ {
			if list[k].order < list[k-1].order && !may[list[k].m] && !a.reset[l.id] {
				w.violation("%s received message %d of partition %d (%v) before the older %d", l.id, list[k-1].m.msg, list[k].m.p, l.key, list[k].m.msg)
			}
		}
	}
}

// subscriptions compares what instances want, what they believe to have, and what keys know.
func (a *simAudit) subscriptions() {
	w := a.w
	type sub struct {
		id       string
		run, act uint64
		key      eventlog.KeyRef
	}
	there := map[sub]int{}
	for _, s := range a.full {
		for ref, k := range s.Keys {
			if k == nil {
				continue
			}
			for _, x := range k.Waiters {
				there[sub{x.ID, x.Run, x.Act, ref}]++
			}
		}
	}
	for _, s := range a.full {
		for _, i := range s.Instances {
			if i == nil {
				continue
			}
			for _, x := range i.Subs {
				k := sub{i.ID, i.Run, x.Act, x.KeyRef}
				if there[k] != 1 {
					w.violation("%s is subscribed to %v under (%d, %d), its key knows %d such", i.ID, x.KeyRef, i.Run, x.Act, there[k])
				}
				delete(there, k)
			}
			plan := s.Plans[i.Plan]
			if plan == nil || i.Quarantined != "" || i.Run == 0 || i.Terminal() {
				continue
			}
			plan.Walk(i, func(path string, n *machine.Node, status machine.Status) {
				t, value := i.Task(path), i.KeyValue(path)
				switch {
				case n.Kind != eventlog.Listen, value == "", i.Stopping, i.FlowEnded:
					return
				case t == nil && n.One && n.SkipTo == "", t != nil && status != machine.Executing && !(status == machine.Completed && n.Reprocess):
					return
				}
				ref := eventlog.KeyRef{Topic: n.Topic, Key: n.Key, Value: value}
				has := slices.ContainsFunc(i.Subs, func(x machine.Subscription) bool { return x.KeyRef == ref })
				full := 0
				for _, b := range i.Buffer {
					if b.KeyRef == ref {
						full++
					}
				}
				if !has && full < w.env.limits.Buffer {
					w.violation("%s wants %v and is not subscribed", i.ID, ref)
				}
			})
		}
	}
	for k, n := range there {
		w.violation("a stale subscription of %s to %v under (%d, %d), %d times", k.id, k.key, k.run, k.act, n)
	}
}

// sent compares the messages of Command tasks with the events that say so.
func (a *simAudit) sent() {
	w := a.w
	want := map[string]int{}
	w.eachEvent(func(_ int32, _ int64, e *eventlog.Event) {
		if e.Sent != nil {
			want[e.Sent.Topic+" "+IdempotencyKey(e.ID, e.Run, e.Path, e.Act)]++
		}
	})
	for _, name := range []string{"out", simRefusing} {
		for _, r := range w.log.topics[name].records {
			for _, h := range r.Headers {
				if h.Key == "dagger-idempotency-key" {
					want[name+" "+string(h.Value)]--
				}
			}
		}
	}
	for k, n := range want {
		if n != 0 {
			w.violation("message %s: %+d", k, -n)
		}
	}
}

// attempts checks what the log alone does not show of handlers, interruptions and time-outs.
func (a *simAudit) attempts() {
	w := a.w
	ran := map[simTask]int{}
	cut := map[simTask]int{}
	epoch := make([]uint64, w.env.partitions)
	w.eachEvent(func(p int32, _ int64, e *eventlog.Event) {
		k := simTask{e.ID, e.Run, e.Path, e.Act, e.Attempt}
		switch e.Type {
		case eventlog.PartitionOwned:
			epoch[p] = e.N
		case eventlog.AttemptRunning:
			ran[k]++
		case eventlog.AttemptInterrupted:
			cut[k]++
			if at, ok := w.inInbox[k]; ok && at < w.inboxEnd[simOwned{p, epoch[p]}] {
				w.violation("partition %d event %d: %s of %s is interrupted although its result lay in the inbox", p, e.N, e.Path, e.ID)
			}
		case eventlog.TaskFailed, eventlog.AttemptFailed:
			if !strings.HasPrefix(e.Error, "interrupted:") {
				return
			}
			if t := w.try(k); t.starts < 3 {
				w.violation("partition %d event %d: %s of %s failed as interrupted after %d starts", p, e.N, e.Path, e.ID, t.starts)
			}
			if ran[k] < 3 && cut[k] < 11 {
				w.violation("partition %d event %d: %s of %s failed as interrupted; its handler ran for a second %d times and was cut %d times", p, e.N, e.Path, e.ID, ran[k], cut[k])
			}
			if at, ok := w.inInbox[k]; ok && at < w.inboxEnd[simOwned{p, epoch[p]}] {
				w.violation("partition %d event %d: %s of %s failed as interrupted although its result lay in the inbox", p, e.N, e.Path, e.ID)
			}
		}
	})
	for p, s := range a.full {
		now := s.At
		for id, i := range s.Instances {
			if i == nil || i.Quarantined != "" {
				continue
			}
			if l := i.Works(); len(l) > 0 {
				w.violation("%s works for ever on %v", id, l)
			}
			for _, d := range i.Dues() {
				if r := w.workers[w.assign[p]]; d.At < r.clock()-3*simInterval {
					w.violation("%s: what was due at %d is not done at %d: %+v", id, d.At, now, d)
				}
			}
		}
	}
}

func simJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(data)
}

// states compares what owners have in memory with the fold of the log.
func (a *simAudit) states() {
	w := a.w
	for p, s := range a.full {
		live := w.workers[w.assign[p]].runners[int32(p)].o.st
		differ := func(what string, x, y any) {
			if a, b := simJSON(x), simJSON(y); a != b {
				w.violation("partition %d: %s in memory is %s, in the log %s", p, what, a, b)
			}
		}
		differ("position", []any{live.N, live.At, live.Epoch, live.Offset, live.Forwarded, live.RequestsID}, []any{s.N, s.At, s.Epoch, s.Offset, s.Forwarded, s.RequestsID})
		differ("acknowledgements", live.AckDue, s.AckDue)
		differ("matched", live.Matched, s.Matched)
		for k, m := range s.Sources {
			differ(fmt.Sprint("source ", k), live.Sources[k], m)
		}
		if len(live.Sources) != len(s.Sources) {
			w.violation("partition %d: %d sources in memory, %d in the log", p, len(live.Sources), len(s.Sources))
		}
		for id, i := range live.Instances {
			j := s.Instances[id]
			if a.reset[id] && j != nil && j.Quarantined != "" && i != nil && i.Quarantined != "" {
				continue
			}
			differ("instance "+id, i, j)
		}
		for ref, k := range live.Keys {
			j := s.Keys[ref]
			if j == nil {
				j = &machine.KeyState{}
			}
			if k == nil {
				k = &machine.KeyState{}
			}
			differ(fmt.Sprint("key ", ref), [][]any{{len(k.Waiters), len(k.Kept)}, {append([]machine.Waiter{}, k.Waiters...), append([]machine.Kept{}, k.Kept...)}},
				[][]any{{len(j.Waiters), len(j.Kept)}, {append([]machine.Waiter{}, j.Waiters...), append([]machine.Kept{}, j.Kept...)}})
		}
	}
}

// rows compares the stores with rows made of the fold.
func (a *simAudit) rows() {
	w := a.w
	for p, s := range a.full {
		stored, _, err := dump(simContext, w.store, int32(p))
		if err != nil {
			w.violation("dump the store: %v", err)
			continue
		}
		o := &owner{st: s, cache: newCache(), block: a.blocks[p]}
		m := newScratch()
		m.apply(o.batch())
		var v Verified
		v.compare(int32(p), stored, m.images())
		for _, d := range v.First {
			w.violation("%s", d)
		}
		if v.Unindexed > 0 {
			w.violation("partition %d: %d blocks of events have no index", p, v.Unindexed)
		}
	}
}
