package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// simWorker is a process: owners, relays and a pool. A crash drops all of them.
type simWorker struct {
	w       *world
	index   int
	life    int
	up      bool
	frozen  int64 // until
	skew    int64
	version int
	without string // a definition that this worker has not the code of
	view    []bool // partitions that it believes to have
	runners map[int32]*simRunner
	relays  []*simRelay
	pool    *pool
}

func (wk *simWorker) clock() int64 { return simBase + wk.w.now + wk.w.wall + wk.skew }

// then does f in this worker after a delay, unless it has crashed; a frozen one does it when
// it wakes.
func (wk *simWorker) then(ms int64, f func()) {
	life := wk.life
	var try func()
	try = func() {
		switch {
		case wk.life != life:
		case wk.frozen > wk.w.now:
			wk.w.after(wk.frozen-wk.w.now, try)
		default:
			f()
		}
	}
	wk.w.after(ms, try)
}

func (wk *simWorker) boot() {
	w := wk.w
	wk.up = true
	wk.life++
	wk.runners = map[int32]*simRunner{}
	wk.relays = nil
	wk.view = make([]bool, w.env.partitions)
	wk.pool = newPool(0, slog.New(slog.DiscardHandler), wk.code, wk.deliver)
	wk.tick()
	wk.see()
	w.tracef("w%d starts", wk.index)
}

func (wk *simWorker) crash() {
	if !wk.up {
		return
	}
	w := wk.w
	w.count.crashes++
	w.tracef("w%d crashes", wk.index)
	for _, r := range wk.runners {
		r.gone = true
	}
	for _, r := range wk.relays {
		r.gone = true
	}
	wk.up = false
	wk.life++
	wk.runners, wk.relays, wk.pool = nil, nil, nil
	life := wk.life
	w.after(w.between(10, 4000), func() {
		if wk.life == life && !wk.up {
			wk.boot()
		}
	})
}

// tick does what a worker does by the clock: it reports handlers that have run for a second
// and brings its owners' stores up to date.
func (wk *simWorker) tick() {
	wk.then(200, func() {
		for _, id := range wk.longRunners() {
			if r := wk.runners[id.partition]; r != nil {
				r.result(hasRunUnit(id.key))
			}
		}
		wk.tick()
	})
}

func (wk *simWorker) longRunners() []jobID {
	l := wk.pool.longRunners(time.UnixMilli(wk.w.now))
	slices.SortFunc(l, func(a, b jobID) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return l
}

// partitions that have a runner here, in order.
func (wk *simWorker) partitions() []int32 {
	var l []int32
	for p := range wk.w.env.partitions {
		if wk.runners[p] != nil {
			l = append(l, p)
		}
	}
	return l
}

// see takes over what the group has decided.
func (wk *simWorker) see() {
	if !wk.up {
		return
	}
	for p := range wk.view {
		wk.view[p] = wk.w.assign[p] == wk.index
		r := wk.runners[int32(p)]
		switch {
		case wk.view[p] && r == nil:
			r = newSimRunner(wk, int32(p))
			wk.runners[int32(p)] = r
			wk.then(0, func() { r.advance(r.o.restart()) })
		case wk.view[p] && r.stopping:
			// taken away and given back meanwhile: it ends first
		case !wk.view[p] && r != nil && !r.stopping:
			r.stop()
		}
	}
	for _, tk := range simRelays {
		have := slices.IndexFunc(wk.relays, func(r *simRelay) bool { return r.step.tk == tk })
		switch want := wk.w.relayOf[tk] == wk.index; {
		case want && have < 0:
			wk.relays = append(wk.relays, newSimRelay(wk, tk))
		case !want && have >= 0:
			wk.relays[have].gone = true
			wk.relays = slices.Delete(wk.relays, have, have+1)
		}
	}
}

// removed takes a runner off that has ended.
func (wk *simWorker) removed(r *simRunner) {
	r.gone = true
	if wk.runners[r.p] == r {
		delete(wk.runners, r.p)
	}
	wk.sendResults(r.p, wk.pool.lost(r.p, ErrPartitionLost))
	wk.then(wk.w.delay(), wk.see) // it may have come back meanwhile
}

// sendResults appends results of handlers whose partition is elsewhere now to its inbox.
func (wk *simWorker) sendResults(p int32, results []eventlog.Request) {
	slices.SortFunc(results, func(a, b eventlog.Request) int { return strings.Compare(simName(&a), simName(&b)) })
	for k := range results {
		delete(wk.w.finished, taskOf(&results[k]))
		if wk.w.fault(wk.w.env.lost) {
			continue // it is an interrupted attempt then
		}
		if r := &results[k]; r.OK && wk.w.rules.noPool {
			continue
		}
		value, err := eventlog.AppendRequest(nil, &results[k])
		if err != nil {
			wk.w.violation("encode result: %v", err)
		}
		rec := eventlog.Record{Key: []byte(results[k].PartitionKey()), Value: value}
		r := results[k]
		wk.w.after(wk.w.delay(), func() {
			if _, twice := wk.w.inInbox[taskOf(&r)]; r.OK && !twice {
				wk.w.inInbox[taskOf(&r)] = wk.w.log.parts[p].reqEnd
			}
			wk.w.log.request(p, rec)
		})
	}
}

func simName(r *eventlog.Request) string {
	return fmt.Sprintf("%s/%d/%s/%d/%d", r.ID, r.Run, r.Path, r.Act, r.Attempt)
}

// deliver takes a result from the pool.
func (wk *simWorker) deliver(p int32, u unit) {
	if r := wk.runners[p]; r != nil {
		r.result(u)
		return
	}
	wk.sendResults(p, wk.pool.lost(p, ErrPartitionLost))
}

// code is what the worker can run.
func (wk *simWorker) code(plan string) *Code {
	for _, x := range wk.w.plans {
		if x.plan.Hash() == plan && (x.plan.Name != wk.without || wk.w.calm) {
			return x.code
		}
	}
	return nil
}

// Current and Plan make the worker a machine.Registry.
func (wk *simWorker) Current(definition string) *machine.Plan {
	for _, x := range wk.w.plans {
		if x.plan.Name == definition && definition != wk.without {
			return x.plan
		}
	}
	return nil
}

func (wk *simWorker) Plan(hash string) *machine.Plan {
	if c := wk.code(hash); c != nil {
		return c.Plan
	}
	return nil
}

// work begins the jobs that the pool has queued. Their outcome is drawn now; they give it
// when their time is over.
func (wk *simWorker) work() {
	p := wk.pool
	for len(p.queue) > 0 {
		x := p.queue[0]
		p.queue = p.queue[1:]
		if x.unwanted {
			continue
		}
		ctx, cancel := context.WithCancelCause(simContext)
		x.state, x.since, x.cancel = jobRunning, time.UnixMilli(wk.w.now), cancel
		took, outcome := wk.w.handle(wk, x)
		wk.then(took, func() { wk.ended(ctx, x, outcome) })
	}
}

// ended is what the pool does when a handler has returned.
func (wk *simWorker) ended(ctx context.Context, x *poolJob, outcome func() eventlog.Request) {
	p := wk.pool
	if x.unwanted {
		p.forget(x)
		return
	}
	r := outcome()
	if !p.ended(x, r, context.Cause(ctx)) {
		return
	}
	if r.OK && r.Type == eventlog.Result {
		wk.w.finished[taskOf(&r)] = simProcess{fmt.Sprintf("w%d", wk.index), wk.life, wk.w.now}
	}
	wk.w.tracef("w%d ends handler %s ok %v %s", wk.index, simName(&r), r.OK, r.Error)
	p.deliver(x.id.partition, resultUnit(x))
	if wk.w.rules.noPool {
		p.settle(x.id.partition, x.id.key)
	}
}
