package engine

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// committed follows up a turn whose transaction is known to have succeeded; protocol rule 6.
func (o *owner) committed() op {
	if !o.rules.effectsEarly || len(o.turn.Events) == 0 {
		o.follow()
	}
	for _, e := range o.turn.Events {
		o.block.note(e)
	}
	o.turn, o.done = nil, nil
	// A turn that was decided at once would be without the results of these, and they would wait for
	// all of its transaction.
	if n := len(o.effects.start); n > 0 && !o.leaving {
		o.phase = ready
		return opAwait{started: n}
	}
	return o.loop()
}

func (o *owner) follow() {
	before := len(o.outbox)
	for _, e := range o.turn.Events {
		o.tell(e)
		if o.observed {
			x := observed{typ: e.Type}
			if i := o.st.Instances[e.ID]; e.Seq > 0 && i != nil {
				x.definition = i.Definition
			}
			o.effects.events = append(o.effects.events, x)
		}
		if e.Type == eventlog.MessageKept {
			o.armDue(machine.Kept{Msg: e.Msg, Expires: e.Expires}.Due(eventlog.KeyRef{Topic: e.Topic, Key: e.Key, Value: e.Value}))
		}
		if e.Pos != nil {
			for _, r := range e.Pos.Refused {
				if i := o.st.Instances[r.ID]; i != nil {
					o.arm(i)
				}
			}
		}
	}
	o.effects.forward = append(o.effects.forward, o.outbox[before:]...)
	// Before what is wanted is compared with what runs: a result that was not taken may be of
	// something that the same turn wants again (a release).
	for k := range o.done {
		if u := &o.done[k]; u.result != nil {
			o.effects.settled = append(o.effects.settled, *u.result)
			o.forgetRun(*u.result)
		}
	}
	seen := map[string]bool{}
	for _, id := range o.turn.Touched {
		if seen[id] {
			continue
		}
		seen[id] = true
		i := o.st.Instances[id]
		if i == nil { // deleted
			i = &machine.Instance{ID: id}
		}
		o.arm(i)
		o.reconcile(i)
		if i.Run == 0 { // it ended and was deleted in one turn
			for _, token := range o.waiters[id] {
				o.replies = append(o.replies, reply{token: token, err: ErrNotFound})
			}
			delete(o.waiters, id)
		}
		if i.Terminal() && len(o.waiters[id]) > 0 {
			for _, token := range o.waiters[id] {
				o.replies = append(o.replies, reply{token: token, instance: i.Clone()})
			}
			delete(o.waiters, id)
		}
	}
	for _, s := range o.turn.Sendings {
		if s.Path == "" {
			o.effects.letters++
		}
	}
	o.effects.late = append(o.effects.late, o.late...)
	o.effects.replies = append(o.effects.replies, o.replies...)
	o.effects.mended = append(o.effects.mended, o.mended...)
	switch {
	case len(o.st.AckDue) == 0 || o.st.Rules.NoAck:
		o.ackSince = 0
	case o.ackSince == 0:
		o.ackSince = o.now
	}
}

// forgetRun drops a handler that has ended.
func (o *owner) forgetRun(k jobKey) {
	l := slices.DeleteFunc(o.running[k.instance], func(x jobKey) bool { return x == k })
	if len(l) == 0 {
		delete(o.running, k.instance)
	} else {
		o.running[k.instance] = l
	}
}

// arm keeps the instance's due entries of the near future; the rest is in the index.
func (o *owner) arm(i *machine.Instance) {
	for _, d := range i.Dues() {
		o.armDue(d)
	}
}

func (o *owner) armDue(d machine.Due) {
	o.timers.Arm(d, o.now)
}

// reconcile starts the user code that the instance wants and ends what it does not want.
func (o *owner) reconcile(i *machine.Instance) {
	works := i.Works()
	running := o.running[i.ID]
	if len(works) == 0 && len(running) == 0 {
		return
	}
	var still []jobKey
	wanted := setOf(works)
	for _, k := range running {
		if k.run == i.Run && wanted.take(k.work) {
			still = append(still, k)
		} else {
			o.effects.cancel = append(o.effects.cancel, k)
		}
	}
	for _, w := range works {
		if !wanted.take(w) {
			continue // it runs
		}
		k := jobKey{i.ID, i.Run, w}
		still = append(still, k)
		o.effects.start = append(o.effects.start, jobOf(i, k))
	}
	if len(still) == 0 {
		delete(o.running, i.ID)
	} else {
		o.running[i.ID] = still
	}
}

// jobOf is the user code that a work of an instance wants.
func jobOf(i *machine.Instance, k jobKey) job {
	j := job{key: k, definition: i.Definition, plan: i.Plan, scope: i.Scope(k.work.Path), trace: i.Trace}
	if k.work.Path == "" {
		j.params, j.base, j.items = i.Params, i.LastParams(), i.Items
		return j
	}
	j.params, j.base = i.ParamsAt(k.work.Path)
	if t := i.Task(k.work.Path); t != nil {
		j.message, j.due = t.Message, t.Due
		if x := i.ItemsOf(k.work.Path); t.Collect && x != nil {
			j.items = []machine.Items{*x}
		}
		j.collect = t.Collect
	}
	return j
}

// workSet is what an instance wants. Most want one thing: a map is made for many.
type workSet struct {
	few  []machine.Work
	many map[machine.Work]bool
}

func setOf(works []machine.Work) *workSet {
	if len(works) <= 8 {
		return &workSet{few: slices.Clone(works)}
	}
	s := &workSet{many: make(map[machine.Work]bool, len(works))}
	for _, w := range works {
		s.many[w] = true
	}
	return s
}

// take says whether the work is in the set, and takes it out.
func (s *workSet) take(w machine.Work) bool {
	if s.many != nil {
		has := s.many[w]
		delete(s.many, w)
		return has
	}
	k := slices.Index(s.few, w)
	if k >= 0 {
		s.few = slices.Delete(s.few, k, k+1)
	}
	return k >= 0
}

// scanned compares the due index with what is in memory: it should find nothing new but what
// came into the horizon.
func (o *owner) scanned(r result) {
	if !o.readAt(r.at) {
		o.storeErr = errStoreMoved
		return
	}
	o.block.dropped = append(o.block.dropped, r.dropped...)
	for _, row := range r.dues {
		d, err := parseDue(row.Key)
		if err != nil {
			o.storeErr = err
			return
		}
		o.timers.Found(d, o.now)
	}
	for _, b := range o.reading {
		for _, row := range b.Put {
			if row.Kind != projection.KindDue {
				continue
			}
			d, err := parseDue(row.Key)
			if err != nil {
				o.storeErr = err
				return
			}
			o.armDue(d)
		}
	}
	o.reading = nil
	for row := range o.st.Changed {
		switch row.Kind {
		case machine.RowInstance:
			if i := o.st.Instances[row.ID]; i != nil {
				o.arm(i)
			}
		case machine.RowKept:
			if k := o.st.Keys[row.Key].Message(row.N); k != nil {
				o.armDue(k.Due(row.Key))
			}
		}
	}
}
