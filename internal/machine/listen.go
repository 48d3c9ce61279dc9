package machine

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// transit emits one event of an instance, with the subscriptions that its new state wants.
func (t *Turn) transit(i *Instance, e *eventlog.Event) {
	t.transitWith(t.S.Plans[i.Plan], i, e)
}

// transitWith works out, on a copy that has folded the event, which keys the instance wants
// from now on; protocol rule 20: one subscription for each key, removed in the very event
// after which nothing wants it, together with what was buffered for it.
func (t *Turn) transitWith(plan *Plan, i *Instance, e *eventlog.Event) {
	s := t.S
	if s.Frozen[i.ID] != "" {
		return // protocol rule 12: its next event is InstanceQuarantined
	}
	e.ID, e.Seq, e.Run = i.ID, i.Seq+1, i.Run
	if e.Type == eventlog.InstanceStarted {
		e.Run = s.N + 1
	}
	// A release may have given the instance another plan than that which it subscribed for.
	if plan != nil && (plan.HasListeners() || len(i.Subs)+len(i.Buffer) > 0) {
		t.subscriptions(plan, i, e)
	}
	t.emit(e)
	for _, b := range t.dropped {
		t.emit(&eventlog.Event{Type: eventlog.MessageDropped, ID: i.ID, Topic: b.Topic, Key: b.Key, Value: b.Value, Msg: b.Msg})
		t.deadLetter(b.KeyRef, b.Message, "nothing waits for this copy any more", i.ID)
	}
	t.dropped = nil
}

func (t *Turn) subscriptions(plan *Plan, i *Instance, e *eventlog.Event) {
	s := t.S
	after := i.preview(e)
	wanted := wants(plan, after)
	var unsubs, back, subs []eventlog.Out
	for _, sub := range after.Subs {
		if slices.Contains(e.Unsubs, sub.KeyRef) || slices.Contains(wanted, sub.KeyRef) {
			continue
		}
		e.Unsubs = append(e.Unsubs, sub.KeyRef)
		unsubs = append(unsubs, t.toKey(sub.KeyRef, eventlog.Request{Type: eventlog.Unsubscribe, ID: i.ID, Run: e.Run, Act: sub.Act}))
	}
	for _, b := range after.Buffer {
		if slices.Contains(wanted, b.KeyRef) || s.Rules.NoSurplusBack {
			continue
		}
		e.Back = append(e.Back, b.Seq)
		if !b.Sole { // a copy of a fan-out ends here
			t.dropped = append(t.dropped, b)
			continue
		}
		back = append(back, t.toKey(b.KeyRef, eventlog.Request{Type: eventlog.Returned, ID: i.ID, Run: e.Run, Msg: b.Msg, Message: b.Message, Expires: b.Expires, Sole: true}))
	}
	for _, k := range wanted {
		if after.subscription(k) > 0 || after.buffered(k) >= s.Rules.Limits.buffer() {
			continue
		}
		e.Subs = append(e.Subs, k)
		subs = append(subs, t.toKey(k, eventlog.Request{Type: eventlog.Subscribe, ID: i.ID, Run: e.Run, Act: e.Seq, Sole: plan.one(k)}))
	}
	if s.Rules.UnsubscribeLast {
		e.Out = slices.Concat(back, e.Out, subs, unsubs)
	} else {
		e.Out = slices.Concat(unsubs, e.Out, subs, back)
	}
}

// preview is a copy of the instance with the event folded, as far as wants looks at it.
func (i *Instance) preview(e *eventlog.Event) *Instance {
	c := *i
	c.Tasks = slices.Clone(i.Tasks)
	c.Keys = slices.Clone(i.Keys)
	c.Subs = slices.Clone(i.Subs)
	c.Buffer = slices.Clone(i.Buffer)
	c.Subs = slices.DeleteFunc(c.Subs, func(x Subscription) bool { return slices.Contains(e.Unsubs, x.KeyRef) })
	switch e.Type {
	case eventlog.MessageReceived, eventlog.BufferExpired:
		c.unbuffer(keyOf(e), e.Msg)
	case eventlog.MessageBuffered:
		c.Buffer = append(c.Buffer, Buffered{KeyRef: keyOf(e), Seq: e.Seq, Msg: e.Msg, Message: e.Message, Expires: e.Expires, Sole: e.Sole})
	}
	if e.Type == eventlog.InstanceStarted {
		c.Run = e.Run
	}
	params := e.Params
	if e.Type != eventlog.InstanceStarted {
		e.Params = nil // a merge is not needed to know the keys
	}
	c.fold(e)
	e.Params = params
	return &c
}

// wants are the keys that justify a subscription: those of listeners that wait, work, or
// have not been reached, in plan order. Protocol rule 20: one that takes messages alone would
// keep them from those that wait, so it is reached first, unless the flow skips to it.
func wants(plan *Plan, i *Instance) []eventlog.KeyRef {
	if i.Terminal() || i.Quarantined != "" || i.Stopping || i.FlowEnded {
		return nil
	}
	var l []eventlog.KeyRef
	plan.listeners(i, func(pl place) bool {
		k := i.Task(pl.path)
		early := k == nil && (!pl.n.One || pl.n.SkipTo != "")
		if early || k != nil && (k.Status == Executing || k.Status == Submitted || k.Status == Completed && pl.n.Reprocess) {
			if ref, ok := keyRef(pl, i); ok && !slices.Contains(l, ref) {
				l = append(l, ref)
			}
		}
		return true
	})
	return l
}

func keyRef(pl place, i *Instance) (eventlog.KeyRef, bool) {
	v := i.KeyValue(pl.path)
	return eventlog.KeyRef{Topic: pl.n.Topic, Key: pl.n.Key, Value: v}, v != ""
}

// listener is the first in plan order that has the key and that the function accepts.
func listener(plan *Plan, i *Instance, key eventlog.KeyRef, accept func(pl place, k *Task) bool) (found place, ok bool) {
	if i.Evaluate != 0 || i.Stopping || i.FlowEnded {
		return found, false // the key may be about to move
	}
	plan.listeners(i, func(pl place) bool {
		if pl.n.Topic != key.Topic || pl.n.Key != key.Key || !accept(pl, i.Task(pl.path)) {
			return true
		}
		if ref, has := keyRef(pl, i); has && ref == key {
			found, ok = pl, true
		}
		return !ok
	})
	return found, ok
}

// takes is the listener that takes a message of the key now: one that waits, else one that
// has completed and works again on what comes later.
func takes(plan *Plan, i *Instance, key eventlog.KeyRef) (place, bool) {
	pl, ok := listener(plan, i, key, func(_ place, k *Task) bool { return k != nil && k.Status == Executing && k.Phase == Waiting })
	if !ok {
		pl, ok = listener(plan, i, key, func(pl place, k *Task) bool { return k != nil && k.Status == Completed && pl.n.Reprocess })
	}
	return pl, ok
}

func (t *Turn) toKey(k eventlog.KeyRef, r eventlog.Request) eventlog.Out {
	r.V, r.Topic, r.Key, r.Value = 1, k.Topic, k.Key, k.Value
	return eventlog.Out{To: eventlog.PartitionOf(k.Value, t.S.Partitions), Request: r}
}

// deliverTo decides a delivery: a listener takes it, or it is buffered, or it goes back.
func (t *Turn) deliverTo(i *Instance, r *eventlog.Request) string {
	s := t.S
	key := eventlog.KeyRef{Topic: r.Topic, Key: r.Key, Value: r.Value}
	b := Buffered{KeyRef: key, Msg: r.Msg, Message: r.Message, Expires: r.Expires, Sole: r.Sole}
	subscribed := i.active() && i.Run == r.Run && i.subscription(key) == r.Act
	if s.Rules.NoActivation {
		subscribed = i.active() && i.subscription(key) > 0
	}
	if subscribed {
		plan := s.Plans[i.Plan]
		if pl, ok := takes(plan, i, key); ok {
			t.take(i, pl, b, r.Oldest)
			return OK
		}
		if i.buffered(key) < s.Rules.Limits.buffer() {
			t.transit(i, &eventlog.Event{Type: eventlog.MessageBuffered, Topic: r.Topic, Key: r.Key, Value: r.Value,
				Msg: r.Msg, Message: r.Message, Expires: r.Expires, Sole: r.Sole, Local: s.local(r.Value) && !r.Oldest})
			if plan.skips {
				t.settle(r.ID)
			}
			return OK
		}
		if !r.Oldest && !s.Rules.NoFull {
			// protocol rule 20: full ends the subscription; room opens a new activation.
			t.transit(i, &eventlog.Event{Type: eventlog.ListenerFull, Topic: r.Topic, Key: r.Key, Value: r.Value, Msg: r.Msg,
				Unsubs: []eventlog.KeyRef{key},
				Out:    []eventlog.Out{t.toKey(key, eventlog.Request{Type: eventlog.Returned, ID: r.ID, Run: r.Run, Act: r.Act, Msg: r.Msg})}})
			return OK
		}
	}
	if r.Oldest { // it counted as taken when it was held
		if !r.Sole {
			t.emit(&eventlog.Event{Type: eventlog.MessageDropped, ID: r.ID, Topic: r.Topic, Key: r.Key, Value: r.Value, Msg: r.Msg})
			t.deadLetter(key, r.Message, "nothing waits for this copy any more", r.ID)
			return OK
		}
		t.emit(&eventlog.Event{Type: eventlog.DeliveryRefused, ID: r.ID, Topic: r.Topic, Key: r.Key, Value: r.Value, Msg: r.Msg,
			Out: []eventlog.Out{t.toKey(key, eventlog.Request{Type: eventlog.Returned, ID: r.ID, Run: r.Run, Act: r.Act, Msg: r.Msg, Message: r.Message, Expires: r.Expires, Sole: true})}})
		return OK
	}
	if s.Rules.NoReturn {
		return Ignored
	}
	t.emit(&eventlog.Event{Type: eventlog.DeliveryRefused, ID: r.ID, Topic: r.Topic, Key: r.Key, Value: r.Value, Msg: r.Msg,
		Out: []eventlog.Out{t.toKey(key, eventlog.Request{Type: eventlog.Returned, ID: r.ID, Run: r.Run, Act: r.Act, Msg: r.Msg})}})
	return OK
}

// take hands a message to a listener.
func (t *Turn) take(i *Instance, pl place, b Buffered, again bool) {
	e := &eventlog.Event{Type: eventlog.MessageReceived, Path: pl.path, Topic: b.Topic, Key: b.Key, Value: b.Value,
		Msg: b.Msg, Message: b.Message, Again: again, Local: t.S.local(b.Value) && !again}
	if slices.ContainsFunc(i.Buffer, func(x Buffered) bool { return x.Msg == b.Msg && x.KeyRef == b.KeyRef }) {
		e.Message = nil // the fold has it
	}
	t.transit(i, e)
}

// settle lets listeners take what was buffered for them, and the flow skip to those for which
// a message came before they were reached.
func (t *Turn) settle(id string) {
	i := t.S.Instances[id]
	for i.active() && t.S.Frozen[id] == "" && len(i.Buffer) > 0 {
		taken := false
		for _, b := range i.Buffer {
			if pl, ok := takes(t.S.Plans[i.Plan], i, b.KeyRef); ok {
				t.take(i, pl, b, true)
				taken = true
				break
			}
		}
		if !taken && !t.skipTo(i) {
			return
		}
	}
}

// skipTo lets the flow skip to a listener for which a message came early, if there is one.
func (t *Turn) skipTo(i *Instance) bool {
	plan := t.S.Plans[i.Plan]
	if !plan.skips {
		return false
	}
	for _, b := range i.Buffer {
		pl, ok := listener(plan, i, b.KeyRef, func(pl place, k *Task) bool { return k == nil && pl.n.SkipTo != "" })
		if !ok {
			continue
		}
		e := &eventlog.Event{Type: eventlog.SkippedTo, Path: pl.path, Msg: b.Msg}
		if f := t.flow(plan, i, e); f.skipTo(pl) {
			t.transit(i, e)
			return true
		}
	}
	return false
}

func (t *Turn) expireBuffer(i *Instance, r *eventlog.Request) string {
	if i == nil {
		return Ignored
	}
	for _, b := range i.Buffer {
		if b.Seq == r.Act && b.Expires <= max(t.Now, t.S.At) {
			t.transit(i, &eventlog.Event{Type: eventlog.BufferExpired, Topic: b.Topic, Key: b.Key, Value: b.Value, Msg: b.Msg})
			t.deadLetter(b.KeyRef, b.Message, "no listener took it in time", i.ID)
			t.settle(r.ID)
			return OK
		}
	}
	return Ignored
}
