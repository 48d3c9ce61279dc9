package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// recoverBytes is by how much what a recovery has in memory may exceed its cache before it is
// written, in fewer rows.
const recoverBytes = 32 << 20

// acquired looks at where the store stands.
func (o *owner) acquired(r result) op {
	o.mark, o.logID, o.flight, o.cuts, o.cutBytes = r.watermark, r.topicID, nil, nil, 0
	switch {
	case o.lost:
		return o.drop()
	case o.mark.N > 0 && o.mark.LogID != o.logID:
		return o.fail(fmt.Errorf("%w: it has folded the events topic %s, this log's is %s; use an empty store with this log", ErrForeignStore, o.mark.LogID, o.logID))
	case o.mark.N > o.epoch && !o.folding: // protocol rule 25: the store is ahead of its log
		return o.drop()
	}
	o.phase = basing
	return opBase{}
}

// based begins with the partition's own rows, which are always in memory.
func (o *owner) based(r result) op {
	if r.at != o.mark.N {
		return o.fail(errStoreMoved)
	}
	s := machine.NewState(o.partition, o.partitions)
	s.Rules, s.Inject, s.N = o.machine, o.inject, o.mark.N
	if err := restore(s, r.base); err != nil {
		return o.failedOp(err)
	}
	o.st, o.cache = s, newCache()
	s.BeforeChange = o.cache.before
	if o.rules.marksFromStore {
		o.storedMarks = maps.Clone(s.Sources)
	}
	o.outbox, o.running, o.timers = nil, map[string][]jobKey{}, o.newTimers()
	o.last = tailEvent{offset: o.mark.Offset, sum: o.mark.Sum}
	o.chunk, o.chunkLast = nil, false
	o.from, o.met = 1, &met{}
	if o.mark.N > 0 {
		o.from, o.met = o.mark.N, nil
		if !o.rules.foldedForward {
			o.from = min(o.from, s.Forwarded+1)
		}
	}
	o.block = blockAt(o.mark.N)
	return o.tail()
}

// restore fills the partition's own part of a state from its rows.
func restore(s *machine.State, base map[projection.Kind][]projection.Row) error {
	for _, r := range base[projection.KindPartition] {
		var p positionRow
		if err := decodeRow(r.Value, &p); err != nil {
			return err
		}
		s.At, s.Epoch, s.RequestsID, s.Offset, s.Term, s.Forwarded = p.At, p.Epoch, p.RequestsID, p.Offset, p.Term, p.Forwarded
	}
	for _, r := range base[projection.KindPlan] {
		if len(r.Value) == 0 || r.Value[0] != formatJSON {
			return fmt.Errorf("%w: plan row of an unknown format", projection.ErrStateLost)
		}
		if err := s.AddPlan(string(r.Key), json.RawMessage(r.Value[1:])); err != nil {
			return fmt.Errorf("%w: %v", projection.ErrStateLost, err)
		}
	}
	for _, r := range base[projection.KindSource] {
		k := keyReader{rest: r.Key}
		source := eventlog.Source{TopicID: k.string(), Partition: int32(k.uint64()), Key: k.string()}
		var m eventlog.Mark
		if err := cmpErr(k.lost("source"), decodeRow(r.Value, &m)); err != nil {
			return err
		}
		s.Sources[source] = m
	}
	for _, r := range base[projection.KindAckDue] {
		k := keyReader{rest: r.Key}
		partition := int32(k.uint64())
		var m eventlog.Mark
		if err := cmpErr(k.lost("acknowledgement"), decodeRow(r.Value, &m)); err != nil {
			return err
		}
		s.AckDue[partition] = m
	}
	var matched []*machine.Matched
	for _, r := range base[projection.KindMatched] {
		m := &machine.Matched{}
		if err := decodeRow(r.Value, m); err != nil {
			return err
		}
		matched = append(matched, m)
	}
	s.Restore(matched)
	return nil
}

// cmpErr is the first error.
func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// tail asks for the next piece of the log. The first piece begins at the store's last event,
// whose checksum shows that the store has the same history, and as far below it as the
// forward cursor lies back; protocol rule 7. It also has the beginning of the block of events at
// hand, if the log does.
func (o *owner) tail() op {
	o.phase = recovering
	x := opTail{from: o.from, early: min(o.from, o.block.n+1), hint: o.last.offset, until: o.barrier}
	if x.early < o.st.N {
		x.hint -= int64(o.st.N - x.early) // each event takes an offset
	}
	return x
}

// took is called with a piece of the log: the next one begins after it, also when all of it
// was folded before.
func (o *owner) took(r result) op {
	o.chunk, o.chunkLast = r.tail, r.done
	if n := len(r.tail); n > 0 {
		o.from = r.tail[n-1].event.N + 1
	}
	return o.recover()
}

// recover folds the piece at hand, with reads and writes of the store where it must.
func (o *owner) recover() op {
	s := o.st
	for len(o.chunk) > 0 {
		t := o.chunk[0]
		e := t.event
		if e.N > s.N {
			if missing := o.missingOf(o.chunk); missing != nil {
				o.phase = fetching
				o.asked()
				return *missing
			}
			if err := s.Evolve(e); err != nil {
				return o.fail(err)
			}
			o.touched, _, _ = machine.AppendTouched(o.touched[:0], e)
			for _, id := range o.touched {
				i := s.Instances[id]
				o.cache.note(id, i, s.IsChanged(i))
			}
			o.cache.changed.bytes += int64(len(t.value))
			o.last = tailEvent{offset: t.offset, value: t.value}
		} else if e.N == o.mark.N && t.checksum() != o.mark.Sum {
			return o.drop() // protocol rule 25: the store is of another history
		}
		o.block.note(e)
		if e.N > s.Forwarded && (e.N > o.mark.N || !o.rules.foldedForward) {
			o.tell(e)
		}
		o.chunk = o.chunk[1:]
		if (o.gathered(o.gatherRows) || o.cache.total >= o.cacheSize+recoverBytes) && (len(s.Frozen) == 0 || o.rules.projectFrozen) {
			o.phase = flushing
			return opApply{o.batch()}
		}
	}
	o.chunk = nil
	if !o.chunkLast {
		return o.tail()
	}
	if s.N < o.epoch && !o.rules.recoverFirst {
		return o.fail(fmt.Errorf("%w: the log ends at event %d, but event %d was committed", machine.ErrGap, s.N, o.epoch))
	}
	// What was passed on since the cursor stands in later events; protocol rule 7.
	o.outbox = slices.DeleteFunc(o.outbox, func(t told) bool { return t.n <= s.Forwarded })
	if len(o.outbox) > 0 {
		o.effects.forward = append(o.effects.forward, o.outbox...)
	}
	o.phase, o.met = indexing, nil
	return opIndex{due: o.timers.ReadNow(o.now), recovery: true}
}

// tell notes what an event has for other partitions.
func (o *owner) tell(e *eventlog.Event) {
	for k := range e.Out {
		o.outbox = append(o.outbox, told{e.N, e.Out[k].To, machine.Told(e, k, o.partition)})
	}
}

// forwarded says that everything up to an event has reached its targets.
func (o *owner) forwarded(upto uint64) {
	k := 0
	for k < len(o.outbox) && o.outbox[k].n <= upto {
		k++
	}
	o.outbox = o.outbox[k:]
}

// missing asks for the entities that are not in memory, or is nil.
func (o *owner) missing(m *opRead, ids []string, key eventlog.KeyRef, isKey bool) *opRead {
	empty := o.cutAt() == 0
	for _, id := range ids {
		if _, known := o.st.Instances[id]; known || m != nil && m.asksID[id] {
			continue
		}
		if o.met != nil && !o.met.instance(id) || empty {
			o.st.Instances[id] = nil
			continue
		}
		if m == nil {
			m = &opRead{}
		}
		m.askID(id)
	}
	if !isKey {
		return m
	}
	if _, known := o.st.Keys[key]; known || m != nil && m.asksKey[key] {
		return m
	}
	if o.met != nil && !o.met.key(key) || empty {
		o.st.Keys[key] = &machine.KeyState{}
		o.cache.keys = append(o.cache.keys, key)
		return m
	}
	if m == nil {
		m = &opRead{}
	}
	m.askKey(key)
	return m
}

func (m *opRead) askID(id string) {
	if m.asksID == nil {
		m.asksID = map[string]bool{}
	}
	m.ids, m.asksID[id] = append(m.ids, id), true
}

func (m *opRead) askKey(key eventlog.KeyRef) {
	if m.asksKey == nil {
		m.asksKey = map[eventlog.KeyRef]bool{}
	}
	m.keys, m.asksKey[key] = append(m.keys, key), true
}

// readAhead bounds what one read fetches.
const readAhead = 2000

// missingOf is what the first event of the piece lacks, and with it what the rest does.
func (o *owner) missingOf(chunk []tailEvent) *opRead {
	ids, key, isKey := machine.AppendTouched(o.touched[:0], chunk[0].event)
	o.touched = ids
	m := o.missing(nil, ids, key, isKey)
	if m == nil {
		return nil
	}
	for _, t := range chunk[1:min(len(chunk), readAhead)] {
		ids, key, isKey = machine.AppendTouched(ids[:0], t.event)
		m = o.missing(m, ids, key, isKey)
	}
	o.touched = ids
	return m
}

// fetched goes on folding.
func (o *owner) fetched(r result) op {
	if err := o.take(r); err != nil {
		return o.failedOp(err)
	}
	return o.recover()
}

// take puts what was read into memory. Protocol rule 26: a read counts only at the watermark
// that this owner had acknowledged when it asked (or had under way: a batch holds none of what
// is not in memory).
func (o *owner) take(r result) error {
	for _, at := range append(r.parts, r.at) {
		if !o.readAt(at) && !o.rules.staleReads {
			return errStoreMoved
		}
	}
	for k, id := range r.ids {
		if _, known := o.st.Instances[id]; known {
			continue
		}
		if r.instances[k] == nil {
			o.st.Instances[id] = nil
			o.cache.note(id, nil, false)
			continue
		}
		i := &machine.Instance{}
		if err := decodeRow(r.instances[k], i); err != nil {
			return err
		}
		o.st.Instances[id] = i
		o.cache.note(id, i, false)
	}
	for k, ref := range r.keys {
		if _, known := o.st.Keys[ref]; known {
			continue
		}
		ks := &machine.KeyState{}
		for _, row := range r.waiters[k] {
			var w waiterRow
			if err := decodeRow(row.Value, &w); err != nil {
				return err
			}
			ks.Waiters = append(ks.Waiters, machine.Waiter{N: lastUint64(row.Key), ID: w.ID, Run: w.Run, Act: w.Act, One: w.One, Given: w.Given})
		}
		for _, row := range r.kept[k] {
			var m keptRow
			if err := decodeRow(row.Value, &m); err != nil {
				return err
			}
			ks.Kept = append(ks.Kept, machine.Kept{Msg: lastUint64(row.Key), Message: m.Message, Expires: m.Expires})
		}
		o.st.Keys[ref] = ks
		o.cache.keys = append(o.cache.keys, ref)
	}
	return nil
}

// asked notes at which watermarks the read that is asked for now may be answered.
func (o *owner) asked() {
	o.readable, o.reading = [2]uint64{o.mark.N, o.mark.N}, nil
	if o.flight != nil {
		o.readable[1] = o.flight.New.N
		o.reading = append([]*projection.Batch{o.flight}, o.cuts...)
	}
}

func (o *owner) readAt(n uint64) bool { return n == o.readable[0] || n == o.readable[1] }

func lastUint64(key []byte) uint64 {
	n, _, _ := projection.CutUint64(key[len(key)-8:])
	return n
}

// indexed takes the index entries: what is due soon, and whose handlers ran.
func (o *owner) indexed(r result) op {
	if r.at != o.mark.N {
		return o.fail(errStoreMoved)
	}
	for _, row := range r.dues {
		d, err := parseDue(row.Key)
		if err != nil {
			return o.failedOp(err)
		}
		o.timers.Recover(d)
	}
	o.results = append(o.results, r.results...)
	for _, k := range r.adopted {
		o.running[k.instance] = append(o.running[k.instance], k)
	}
	m := (*opRead)(nil)
	for _, row := range r.works {
		k := keyReader{rest: row.Key}
		id := k.string()
		if err := k.lost("run"); err != nil {
			return o.failedOp(err)
		}
		m = o.missing(m, []string{id}, eventlog.KeyRef{}, false)
	}
	o.asked()
	if m != nil {
		o.phase = orphaning
		return *m
	}
	return o.orphaned(result{at: o.mark.N})
}

// orphaned finds the handlers that a dead worker left running; protocol rule 10. Those that
// this process still runs or has the result of are adopted.
func (o *owner) orphaned(r result) op {
	if err := o.take(r); err != nil {
		return o.failedOp(err)
	}
	ids := make([]string, 0, len(o.st.Instances))
	for id := range o.st.Instances {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	for _, id := range ids {
		i := o.st.Instances[id]
		if i == nil {
			continue
		}
		o.cache.note(id, i, false)
		o.arm(i)
		for _, w := range i.Works() {
			k := jobKey{id, i.Run, w}
			if slices.Contains(o.running[id], k) {
				continue
			}
			if w.Path == "" {
				continue // reconcile starts it: computing keys has no history
			}
			o.running[id] = append(o.running[id], k) // not to be started before it is recorded
			o.orphans = append(o.orphans, unit{offset: -1, request: eventlog.Request{V: 1, Type: machine.Interrupted, ID: id, Run: i.Run, Path: w.Path, Act: w.Act, Attempt: w.Attempt}})
		}
		o.reconcile(i)
	}
	for ref, k := range o.st.Keys {
		for _, m := range k.Kept {
			o.armDue(m.Due(ref))
		}
	}
	if o.rules.marksFromStore {
		o.st.Sources = o.storedMarks
	}
	o.offset, o.term = o.st.Offset, o.st.Term
	o.phase = consuming
	return opConsume{from: o.st.Offset, term: o.st.Term, topicID: o.st.RequestsID}
}
