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

// simRunner does for a simulated owner what a runner does for a real one. What an op does
// happens some time after it was asked for, and its answer arrives some time after that.
type simRunner struct {
	w        *world
	wk       *simWorker
	p        int32
	o        *owner
	life     int // of the owner's lives
	stopping bool
	gone     bool

	inbox   []unit
	results []unit
	calls   []unit
	applied []error
	upto    uint64

	idle     bool
	idleSeq  int
	epoch    int // fence
	store    projection.Partition
	tail     int // next entry to read; -1 = not begun
	next     int // next request to read; -1 = it does not read
	reading  bool
	forward  []told
	sending  bool
	project  int64
	scanFrom int64
}

func newSimRunner(wk *simWorker, p int32) *simRunner {
	w := wk.w
	c := ownerConfig{app: simApp, partition: p, partitions: w.env.partitions, worker: fmt.Sprintf("w%d", wk.index), registry: wk,
		rules: w.rules.owner, machine: w.rules.machine, maxEvent: 1 << 20, maxMessage: func(string) int { return 1 << 20 },
		horizon: 2 * simInterval, rescan: simInterval, cacheSize: w.env.cache, maxTurn: 1 + w.rng.IntN(12), gatherRows: 1 + w.rng.IntN(30), updatesTopic: simUpdatesOf(&w.env)}
	if wk.version == 1 {
		c.inject = simPanics(w.env.poison)
	}
	return &simRunner{w: w, wk: wk, p: p, o: newOwner(c), tail: -1, next: -1}
}

// busy says what is under way.
func (r *simRunner) busy() string {
	o := r.o
	reqs := r.w.log.parts[r.p].requests
	switch {
	case o.phase != ready || !r.idle:
		return fmt.Sprintf("phase %d", o.phase)
	case len(r.inbox)+len(r.results)+len(r.calls)+len(o.inbox)+len(o.results)+len(o.calls)+len(o.queue) > 0:
		return "mail"
	case len(reqs) > 0 && reqs[len(reqs)-1].Offset >= o.st.Offset:
		return fmt.Sprintf("requests up to %d, consumed %d", reqs[len(reqs)-1].Offset, o.st.Offset)
	case len(o.outbox) > 0 || len(r.forward) > 0:
		return fmt.Sprintf("outbox of %d", len(o.outbox))
	case len(o.orphans) > 0:
		return "orphans"
	case len(o.st.AckDue) > 0:
		return "acknowledgement due"
	case len(o.st.Frozen) > 0:
		return "frozen"
	case o.st.N != o.mark.N:
		return "not projected"
	}
	for _, x := range r.wk.pool.jobs {
		if x.id.partition == r.p {
			return fmt.Sprintf("%d jobs; one is %+v in state %d, lost %v, unwanted %v", len(r.wk.pool.jobs), x.id.key, x.state, x.lost, x.unwanted)
		}
	}
	return ""
}

// advance hands over what follows from the last step and does the next op.
func (r *simRunner) advance(next op) {
	r.dispatch(r.o.takeEffects())
	if f, failed := next.(opFail); failed {
		r.w.tracef("w%d p%d fails: %.120v", r.wk.index, r.p, f.err)
		if strings.Contains(f.err.Error(), "gap in the events") {
			r.w.violation("partition %d: %v", r.p, f.err)
		}
		r.release()
		if r.stopping {
			r.end()
			return
		}
		backoff := r.w.between(50, 400)
		if errors.Is(f.err, errRefused) || errors.Is(f.err, errPoison) {
			backoff = 0
		}
		life := r.life
		r.wk.then(backoff, func() {
			if r.gone || r.life != life {
				return
			}
			if r.stopping {
				r.end()
				return
			}
			r.advance(r.o.restart())
		})
		return
	}
	r.do(next)
}

// release ends a life of the owner.
func (r *simRunner) release() {
	r.life++
	r.idle, r.tail, r.next, r.reading, r.sending = false, -1, -1, false, false
	r.forward, r.inbox, r.results, r.applied, r.upto = nil, nil, nil, nil, 0
	r.scanFrom = math.MinInt64
}

// stop takes the partition away: an owner in its loop goes on to the end of its turn.
func (r *simRunner) stop() {
	r.stopping = true
	r.w.tracef("w%d p%d stops", r.wk.index, r.p)
	switch {
	case r.o.phase == ready && r.idle:
		r.wake()
	case r.o.phase < ready || r.o.phase == failed:
		r.release()
		r.end()
	}
}

// end answers those who wait and goes.
func (r *simRunner) end() {
	if r.gone {
		return
	}
	calls := append(slices.Clone(r.calls), r.o.calls...)
	for _, u := range append(calls, r.o.undecided()...) {
		u.token.(*simToken).reply(reply{err: errMoved})
	}
	for _, id := range sortedTokens(r.o.waiters) {
		for _, t := range r.o.waiters[id] {
			if !t.(*simToken).used {
				t.(*simToken).reply(reply{err: errMoved})
			}
		}
	}
	r.wk.removed(r)
}

func sortedTokens(m map[string][]any) []string {
	l := make([]string, 0, len(m))
	for id := range m {
		l = append(l, id)
	}
	slices.Sort(l)
	return l
}

// finish hands the partition over in good order, or not quite.
func (r *simRunner) finish() {
	o := r.o
	for o.flight == nil && o.storeErr == nil && r.w.chance(500) && o.rest() {
		if err := r.store.Apply(simContext, *o.flight); err == nil {
			o.applied(nil)
		}
	}
	r.dispatch(o.takeEffects())
	r.release()
	r.end()
}

// wake ends an idle owner's rest.
func (r *simRunner) wake() {
	if !r.idle || r.gone {
		return
	}
	r.idle = false
	r.idleSeq++
	life := r.life
	r.wk.then(r.w.between(0, 3), func() {
		if !r.gone && r.life == life {
			r.step(result{})
		}
	})
}

// step goes on with the answer of an op.
func (r *simRunner) step(res result) {
	o := r.o
	if r.stopping && o.phase == ready {
		r.finish()
		return
	}
	o.inbox = append(o.inbox, r.inbox...)
	o.results = append(o.results, r.results...)
	o.calls = append(o.calls, r.calls...)
	r.inbox, r.results, r.calls = nil, nil, nil
	for _, err := range r.applied {
		o.applied(err)
	}
	r.applied = nil
	o.forwarded(r.upto)
	if r.w.now >= r.project {
		r.project = r.w.now + 200
		o.projectDue = true
	}
	r.advance(o.step(r.wk.clock(), res))
}

func (r *simRunner) result(u unit) {
	r.results = append(r.results, u)
	r.wake()
}

// call does something outside and steps with the answer.
func (r *simRunner) call(f func() result) {
	life := r.life
	r.w.after(r.w.delay(), func() {
		res := f()
		r.wk.then(r.w.delay(), func() {
			if !r.gone && r.life == life {
				r.step(res)
			}
		})
	})
}

// do executes an op.
func (r *simRunner) do(next op) {
	w, l, p := r.w, r.w.log, r.p
	epoch := r.epoch
	switch x := next.(type) {
	case opIdle:
		r.idle = true
		r.idleSeq++
		seq, life := r.idleSeq, r.life
		until := x.until
		if r.o.st.N != r.o.mark.N && r.o.flight == nil {
			until = min(until, r.project+r.wk.clock()-w.now)
		}
		if r.stopping || len(r.inbox)+len(r.results)+len(r.calls)+len(r.applied) > 0 {
			r.wake()
			return
		}
		r.wk.then(until-r.wk.clock(), func() {
			if r.life == life && r.idleSeq == seq {
				r.wake()
			}
		})
	case opAwait:
		r.do(opIdle{until: r.wk.clock() + w.between(0, 3)})
	case opProve:
		r.call(func() result {
			if w.assign[p] != r.wk.index && !w.fault(w.env.stale) {
				return result{err: eventlog.ErrNotMember}
			}
			return result{}
		})
	case opOwn:
		life := r.life
		r.call(func() result {
			e := l.own(p)
			if r.life == life {
				r.epoch = e
			}
			return result{}
		})
	case opAppend:
		r.call(func() (res result) {
			if w.rules.noFence {
				epoch = l.parts[p].epoch
			}
			res.offset, res.err = l.append(p, epoch, x.events, x.messages)
			return res
		})
	case opCommit:
		r.call(func() result {
			if w.rules.noFence {
				epoch = l.parts[p].epoch
			}
			return result{err: l.commit(p, epoch)}
		})
	case opAbort:
		r.call(func() result { return result{err: l.abort(p, epoch)} })
	case opLast:
		r.call(func() (res result) {
			res.n, res.time = l.last(p, x.before)
			return res
		})
	case opAcquire:
		r.tail = -1
		r.call(func() (res result) {
			res.topicID = simEventsID
			if r.store, res.err = w.store.Acquire(simContext, p, x.epoch); res.err == nil {
				res.watermark, res.err = r.store.Watermark(simContext)
			}
			return r.flaky(res)
		})
	case opDrop:
		r.call(func() result { return result{err: w.store.Drop(simContext, p, x.epoch)} })
	case opBase:
		r.call(func() result { return r.flaky(r.base()) })
	case opTail:
		r.call(func() result { return r.flaky(r.readTail(x)) })
	case opApply:
		r.call(func() result { return result{err: r.apply(x.batch)} })
	case opIndex:
		r.call(func() result {
			if r.gone {
				return result{}
			}
			return r.flaky(r.index(x))
		})
	case opRead:
		r.call(func() result { return r.flaky(r.read(x)) })
	case opConsume:
		r.call(func() result { return r.consume(x) })
	default:
		w.violation("unknown op %T", next)
	}
}

// flaky loses an answer now and then.
func (r *simRunner) flaky(res result) result {
	if r.w.fault(r.w.env.lost / 4) {
		return result{err: errSimLost}
	}
	return res
}

// dispatch starts what follows from committed turns.
func (r *simRunner) dispatch(f effects) {
	p, w := r.wk.pool, r.w
	for _, x := range f.replace {
		p.replace(r.p, x)
	}
	for _, k := range f.settled {
		p.settle(r.p, k)
	}
	for _, k := range f.cancel {
		p.end(r.p, k, ErrInstanceEnded)
	}
	for _, j := range f.start {
		p.start(simContext, r.p, j)
	}
	r.wk.work()
	if len(f.forward) > 0 {
		r.forward = append(r.forward, f.forward...)
		r.send()
	}
	if f.apply != nil {
		life, store := r.life, r.store
		w.after(w.delay(), func() {
			err := r.applyTo(store, f.apply)
			r.wk.then(w.delay(), func() {
				if !r.gone && r.life == life {
					r.applied = append(r.applied, err)
					r.wake()
				}
			})
		})
	}
	w.count.mended += len(f.mended)
	for _, d := range f.mended {
		w.tracef("w%d p%d mended %+v", r.wk.index, r.p, d)
		if w.env.jump == 0 {
			w.violation("partition %d: the rescan found what should have been in memory: %+v", r.p, d)
		}
	}
	for _, x := range f.replies {
		x.token.(*simToken).reply(x)
	}
}
