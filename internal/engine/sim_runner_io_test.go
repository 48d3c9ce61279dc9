package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// apply is a write of the store whose answer may be lost.
func (r *simRunner) apply(b *projection.Batch) error { return r.applyTo(r.store, b) }

func (r *simRunner) applyTo(store projection.Partition, b *projection.Batch) error {
	w := r.w
	if w.fault(w.env.lost / 4) {
		return errSimLost
	}
	if w.rules.noCAS {
		mark, err := store.Watermark(simContext)
		if err == nil && mark.N != b.Expected {
			c := *b
			c.Expected, c.New.Epoch = mark.N, mark.Epoch
			c.New.N = max(c.New.N, mark.N+1)
			b = &c
		}
	}
	err := store.Apply(simContext, *b)
	if err == nil && w.fault(w.env.lost/4) {
		return errSimLost
	}
	if err != nil && !errors.Is(err, projection.ErrFenced) && !errors.Is(err, projection.ErrWatermark) {
		w.violation("apply: %v", err)
	}
	return err
}

func (r *simRunner) base() (res result) {
	res.base = map[projection.Kind][]projection.Row{}
	for _, kind := range []projection.Kind{projection.KindPartition, projection.KindPlan, projection.KindSource, projection.KindAckDue, projection.KindMatched} {
		if res.base[kind], res.at, res.err = scanAll(simContext, r.store, kind, nil, nil); res.err != nil {
			return res
		}
	}
	return res
}

// readTail reads the next events, a few at a time.
func (r *simRunner) readTail(x opTail) (res result) {
	part := r.w.log.parts[r.p]
	stable := part.stable()
	if r.tail < 0 {
		r.tail = 0
	}
	for n := 1 + r.w.rng.IntN(40); n > 0; {
		if r.tail == len(part.events) || part.events[r.tail].offset > x.until || part.events[r.tail].offset >= stable {
			res.done = true
			r.tail = -1
			return res
		}
		e := &part.events[r.tail]
		r.tail++
		if e.state != simCommitted || e.event == nil || e.event.N < x.first() {
			continue
		}
		n--
		// The owner may keep what it is given, so it gets its own.
		ev := &eventlog.Event{}
		if err := eventlog.DecodeEvent(e.value, ev); err != nil {
			return result{err: err}
		}
		res.tail = append(res.tail, tailEvent{event: ev, offset: e.offset, value: e.value})
	}
	return res
}

func (r *simRunner) index(x opIndex) (res result) {
	var at uint64
	if x.recovery {
		if res.works, res.at, res.err = scanAll(simContext, r.store, projection.KindRun, nil, nil); res.err != nil {
			return res
		}
		res.adopted, res.results = r.wk.pool.adopt(r.p)
		slices.SortFunc(res.adopted, func(a, b jobKey) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		slices.SortFunc(res.results, func(a, b unit) int { return strings.Compare(simName(&a.request), simName(&b.request)) })
		if r.w.rules.noPool {
			res.results = nil
		}
	}
	if r.scanFrom == 0 {
		r.scanFrom = math.MinInt64
	}
	from := projection.AppendInt64(nil, r.scanFrom)
	if res.dues, at, res.err = scanAll(simContext, r.store, projection.KindDue, from, projection.AppendInt64(nil, x.due+1)); res.err != nil {
		return res
	}
	r.scanFrom = r.wk.clock() - simInterval
	if len(res.dues) > 0 {
		if d, err := parseDue(res.dues[0].Key); err == nil {
			r.scanFrom = min(r.scanFrom, d.At)
		}
	}
	res.at = at
	return res
}

func (r *simRunner) read(x opRead) (res result) {
	res.ids, res.keys = x.ids, x.keys
	at := func(n uint64) {
		if res.at != 0 && res.at != n {
			res.err = errStoreMoved
		}
		res.at = n
	}
	if len(x.ids) > 0 {
		keys := make([][]byte, len(x.ids))
		for k, id := range x.ids {
			keys[k] = []byte(id)
		}
		values, n, err := r.store.Get(simContext, projection.KindInstance, keys)
		if err != nil {
			return result{err: err}
		}
		res.instances = values
		at(n)
	}
	for _, k := range x.keys {
		prefix := keyRefKey(k)
		waiters, n, err := scanAll(simContext, r.store, projection.KindSubscription, prefix, projection.PrefixEnd(prefix))
		if err != nil {
			return result{err: err}
		}
		kept, m, err := scanAll(simContext, r.store, projection.KindKept, prefix, projection.PrefixEnd(prefix))
		if err != nil {
			return result{err: err}
		}
		res.waiters, res.kept = append(res.waiters, waiters), append(res.kept, kept)
		at(n)
		at(m)
	}
	return res
}

func (r *simRunner) consume(x opConsume) result {
	part := r.w.log.parts[r.p]
	from := x.from
	if x.topicID == "" {
		from = 0
	}
	k, _ := slices.BinarySearchFunc(part.requests, from, func(rec eventlog.Record, at int64) int { return int(rec.Offset - at) })
	r.next = k
	r.readLater()
	r.w.inboxEnd[simOwned{r.p, r.o.epoch}] = part.reqEnd
	return result{offset: part.reqEnd, topicID: simRequests}
}

// readLater reads some requests soon.
func (r *simRunner) readLater() {
	part := r.w.log.parts[r.p]
	if r.reading || r.next < 0 || r.next >= len(part.requests) || r.gone {
		return
	}
	r.reading = true
	life := r.life
	r.wk.then(r.w.delay(), func() {
		if r.gone || r.life != life {
			return
		}
		r.reading = false
		for n := 1 + r.w.rng.IntN(6); n > 0 && r.next < len(part.requests); n-- {
			rec := part.requests[r.next]
			r.inbox = append(r.inbox, requestUnit(&rec))
			r.next++
		}
		r.wake()
		r.readLater()
	})
}

// send forwards what other partitions are told: in order, a few at a time; after an error it
// begins again with what was not acknowledged.
func (r *simRunner) send() {
	if r.sending || len(r.forward) == 0 || r.gone {
		return
	}
	r.sending = true
	life := r.life
	l := slices.Clone(r.forward[:min(len(r.forward), 1+r.w.rng.IntN(5))])
	records := make([]eventlog.Record, len(l))
	for k := range l {
		value, err := eventlog.AppendRequest(nil, &l[k].request)
		if err != nil {
			r.w.violation("encode request: %v", err)
		}
		records[k] = eventlog.Record{Partition: l[k].to, Key: []byte(l[k].request.PartitionKey()), Value: value}
	}
	if r.w.rules.direct && r.shortcut(l) {
		records = nil
	}
	r.w.publish(r.wk, records, func(err error) {
		if r.gone || r.life != life {
			return
		}
		r.sending = false
		r.w.tracef("w%d p%d forwards %d to %d: %v", r.wk.index, r.p, l[0].n, l[len(l)-1].n, err)
		if err == nil {
			r.forward = r.forward[len(l):]
			upto := l[len(l)-1].n
			if len(r.forward) > 0 && r.forward[0].n == upto {
				upto--
			}
			r.upto = max(r.upto, upto)
			r.wake()
		}
		r.send()
	})
}

// shortcut gives what is told to owners in the same worker past the inbox, as protocol rule
// 8 forbids.
func (r *simRunner) shortcut(l []told) bool {
	for k := range l {
		if x := r.wk.runners[l[k].to]; x == nil || x.o.phase != ready {
			return false
		}
	}
	for k := range l {
		x := r.wk.runners[l[k].to]
		x.inbox = append(x.inbox, unit{offset: -1, request: l[k].request})
		x.wake()
	}
	return true
}

// publish appends records to inboxes, in order for each partition. After a failure any
// prefix of each partition's may have been written, or is written later.
func (w *world) publish(wk *simWorker, records []eventlog.Record, done func(error)) {
	w.after(w.delay(), func() {
		if !w.fault(w.env.lost) {
			for _, rec := range records {
				w.log.request(rec.Partition, rec)
			}
			wk.then(w.delay(), func() { done(nil) })
			return
		}
		keep := map[int32]int{}
		for p := range w.env.partitions {
			keep[p] = w.rng.IntN(len(records) + 1)
		}
		write := func() {
			left := map[int32]int{}
			for _, rec := range records {
				if left[rec.Partition]++; left[rec.Partition] <= keep[rec.Partition] {
					w.log.request(rec.Partition, rec)
				}
			}
		}
		if w.fault(w.env.late) {
			w.after(w.between(1, 3000), write)
		} else {
			write()
		}
		wk.then(w.delay(), func() { done(errSimLost) })
	})
}
