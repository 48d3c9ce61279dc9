package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// pool runs user code in a bounded number of goroutines. It outlives the owners: a result is
// kept until its event was seen, and a new owner in this process adopts what still runs;
// protocol rule 10.
type pool struct {
	slots   int
	code    func(plan string) *Code // nil: this worker has not the code
	deliver func(partition int32, u unit)
	logger  *slog.Logger
	handler func(definition, path string, took time.Duration, ok bool) // may be nil

	mu     sync.Mutex
	wg     sync.WaitGroup
	closed error // cause; no job starts any more
	jobs   map[jobID]*poolJob
	queue  []*poolJob // wait for a slot
	active int
	limits map[limit]*limited
	missed map[string]bool // plans whose code was missed, and said so
}

type jobID struct {
	partition int32
	key       jobKey
}

// compare orders keys, so that what maps hold comes out the same each time.
func (k jobKey) compare(o jobKey) int {
	return cmp.Or(cmp.Compare(k.instance, o.instance), cmp.Compare(k.run, o.run), cmp.Compare(k.work.Act, o.work.Act),
		cmp.Compare(k.work.Path, o.work.Path), cmp.Compare(k.work.Attempt, o.work.Attempt))
}

// keyOf is the key of the job that a result is of.
func keyOf(r *eventlog.Request) jobKey {
	return jobKey{r.ID, r.Run, machine.Work{Path: r.Path, Act: r.Act, Attempt: r.Attempt}}
}

type jobState int

const (
	jobQueued  jobState = iota
	jobParked           // this worker has not the code
	jobRunning          //
	jobDone             // its result is not in the log yet
)

type poolJob struct {
	id       jobID
	job      job
	state    jobState
	since    time.Time
	cancel   context.CancelCauseFunc
	result   eventlog.Request
	hasRun   bool // reported
	unwanted bool
	lost     bool // its partition went elsewhere while it ran
}

func newPool(slots int, logger *slog.Logger, code func(string) *Code, deliver func(int32, unit)) *pool {
	return &pool{slots: slots, logger: logger, code: code, deliver: deliver, jobs: map[jobID]*poolJob{}, limits: map[limit]*limited{}, missed: map[string]bool{}}
}

// start runs a job as soon as a slot is free. A job that is known already is left alone.
func (p *pool) start(ctx context.Context, partition int32, j job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := jobID{partition, j.key}
	// One that was told to end does not count: what it was for is wanted again.
	if x := p.jobs[id]; x != nil && !x.lost && !x.unwanted || p.closed != nil {
		return
	}
	x := &poolJob{id: id, job: j}
	p.jobs[id] = x
	if p.code(j.plan) == nil {
		x.state = jobParked // its task waits for a worker with the code
		if !p.missed[j.plan] {
			p.missed[j.plan] = true
			p.logger.Warn("instances wait for a definition that is not registered here", "definition", j.definition, "plan", j.plan, "instance", j.key.instance)
		}
		return
	}
	p.queue = append(p.queue, x)
	p.spawn(ctx)
}

// unpark starts what waited for code.
func (p *pool) unpark(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*poolJob
	for _, x := range p.jobs {
		if x.state == jobParked && p.code(x.job.plan) != nil {
			found = append(found, x)
		}
	}
	slices.SortFunc(found, func(a, b *poolJob) int { return a.id.key.compare(b.id.key) })
	for _, x := range found {
		x.state = jobQueued
		p.queue = append(p.queue, x)
	}
	p.spawn(ctx)
}

// parked says whether a job waits for a worker with its code.
func (p *pool) parked(partition int32, k jobKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.jobs[jobID{partition, k}]
	return x != nil && x.state == jobParked
}

func (p *pool) spawn(ctx context.Context) {
	for n := len(p.queue); n > 0 && p.active < p.slots && p.closed == nil; n-- {
		p.active++
		p.wg.Go(func() { p.work(ctx) })
	}
}

// work runs jobs until the queue is empty.
func (p *pool) work(ctx context.Context) {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 || p.closed != nil {
			p.active--
			p.mu.Unlock()
			return
		}
		x := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		code := p.code(x.job.plan)
		if x.unwanted || !p.admit(code, x) {
			p.mu.Unlock()
			continue
		}
		jobCtx, cancel := context.WithCancelCause(ctx)
		x.state, x.since, x.cancel = jobRunning, time.Now(), cancel
		p.mu.Unlock()
		p.do(ctx, jobCtx, code, x)
		cancel(nil)
	}
}

// do runs a job and sees to its result, also when the handler ends the goroutine, as t.FailNow
// of a test does: then another one goes on in its place.
func (p *pool) do(life, ctx context.Context, code *Code, x *poolJob) {
	var r eventlog.Request
	returned := false
	defer func() {
		if !returned {
			r = resultOf(x.job)
			r.Error = "the handler ended its goroutine (runtime.Goexit, or FailNow of a test)"
		}
		if err := r.Validate(); err != nil { // else its event could not be written
			r.OK, r.Params, r.More, r.Record, r.Terminal = false, nil, false, nil, true
			r.Error = "the handler's outcome can't be recorded: " + err.Error()
		}
		p.warn(&r)
		if p.handler != nil && r.Path != "" {
			p.handler(x.job.definition, r.Path, time.Since(x.since), r.OK)
		}
		p.leave(code, x)
		if p.ended(x, r, context.Cause(ctx)) {
			p.deliver(x.id.partition, resultUnit(x))
		}
		if !returned {
			x.cancel(nil)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.active--
			p.spawn(life)
		}
	}()
	r = run(ctx, code, x.job)
	returned = true
}

// ended keeps the result of a job, if anybody may want it. The partition of a lost job may
// have come back meanwhile: then its result is as good as any, and is offered again to each
// owner until its event was seen, unless another run of the job took its place.
func (p *pool) ended(x *poolJob, r eventlog.Request, cause error) (kept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A handler that failed because it was told to end says nothing about its task.
	aborted := !r.OK && r.Type == eventlog.Result && (errors.Is(cause, ErrPartitionLost) || errors.Is(cause, ErrShutdown))
	if x.unwanted || aborted {
		p.forget(x)
		return false
	}
	x.state, x.result, x.lost = jobDone, r, false
	return true
}

// warn says that a payload is large: it is carried by every event, row and message of its
// way, and the log refuses what is four times as large.
func (p *pool) warn(r *eventlog.Request) {
	n := len(r.Params)
	if r.Record != nil {
		n = max(n, len(r.Record.Value))
	}
	if n > eventlog.PayloadWarning {
		p.logger.Warn("large payload: keep large data elsewhere and refer to it", "instance", r.ID, "path", r.Path, "bytes", n)
	}
}

// forget drops the job, unless the partition came back and another one took its place.
func (p *pool) forget(x *poolJob) {
	if p.jobs[x.id] == x {
		delete(p.jobs, x.id)
	}
}

func resultUnit(x *poolJob) unit {
	k := x.id.key
	return unit{request: x.result, offset: -1, result: &k}
}

// end ends a job that is not wanted any more.
func (p *pool) end(partition int32, k jobKey, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := jobID{partition, k}
	x := p.jobs[id]
	if x == nil {
		return
	}
	x.unwanted = true
	if x.cancel != nil {
		x.cancel(cause)
	}
	if x.state != jobRunning {
		delete(p.jobs, id)
	}
}

// settle forgets a result whose event was seen.
func (p *pool) settle(partition int32, k jobKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := jobID{partition, k}
	if x := p.jobs[id]; x != nil && x.state == jobDone {
		delete(p.jobs, id)
	}
}

// replace changes the result that is offered from now on.
func (p *pool) replace(partition int32, r replacement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.jobs[jobID{partition, r.key}]; x != nil && x.state == jobDone {
		x.result = r.result
	}
}

// adopt says what a new owner of the partition finds: the jobs that run (or wait), and the
// results that nobody has seen in the log.
func (p *pool) adopt(partition int32) (running []jobKey, results []unit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, x := range p.jobs {
		if id.partition != partition || x.unwanted || x.lost {
			continue
		}
		x.hasRun = false // the last owner may not have recorded it
		running = append(running, id.key)
		if x.state == jobDone {
			results = append(results, resultUnit(x))
		}
	}
	slices.SortFunc(running, jobKey.compare)
	slices.SortFunc(results, func(a, b unit) int { return a.result.compare(*b.result) })
	return running, results
}

// lost ends the partition's jobs and gives the results that nobody has seen: their partition
// is elsewhere, so they go there through its inbox.
func (p *pool) lost(partition int32, cause error) []eventlog.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var results []eventlog.Request
	for id, x := range p.jobs {
		if id.partition != partition {
			continue
		}
		switch x.state {
		case jobDone:
			results = append(results, x.result)
			delete(p.jobs, id)
		case jobRunning:
			x.lost = true
			x.cancel(cause)
		default:
			x.unwanted = true
			delete(p.jobs, id)
		}
	}
	slices.SortFunc(results, func(a, b eventlog.Request) int { return keyOf(&a).compare(keyOf(&b)) })
	return results
}

// longRunners are the jobs that have run for a second since they were started and were not
// given before.
func (p *pool) longRunners(now time.Time) []jobID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var l []jobID
	for id, x := range p.jobs {
		if x.state == jobRunning && !x.hasRun && id.key.work.Path != "" && now.Sub(x.since) >= time.Second {
			x.hasRun = true
			l = append(l, id)
		}
	}
	slices.SortFunc(l, func(a, b jobID) int { return cmp.Or(cmp.Compare(a.partition, b.partition), a.key.compare(b.key)) })
	return l
}

// count says how busy the pool is.
func (p *pool) count() Slots {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Slots{Total: p.slots, Running: p.active}
	for _, x := range p.jobs {
		switch x.state {
		case jobQueued:
			s.Queued++
		case jobParked:
			s.Parked++
		}
	}
	return s
}

// busy is the number of jobs that run or wait for a slot.
func (p *pool) busy() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.jobs {
		if x.state == jobQueued || x.state == jobRunning {
			n++
		}
	}
	return n
}

// some are the names of a few jobs that run.
func (p *pool) some(most int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var l []string
	for id, x := range p.jobs {
		if x.state == jobRunning {
			l = append(l, id.key.instance+" "+id.key.work.Path)
		}
	}
	slices.Sort(l)
	return l[:min(most, len(l))]
}

// drain starts nothing new.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == nil {
		p.closed = ErrShutdown
	}
	p.queue = nil
	for _, l := range p.limits {
		l.queue = nil
	}
	for id, x := range p.jobs {
		if x.state == jobQueued {
			delete(p.jobs, id)
		}
	}
}

// close ends what still runs. ended is closed when nothing does: user code can't be made to end.
func (p *pool) close() (ended <-chan struct{}) {
	p.drain()
	p.mu.Lock()
	for _, x := range p.jobs {
		if x.cancel != nil {
			x.cancel(ErrShutdown)
		}
	}
	p.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the handlers, which Run waits for
		p.wg.Wait()
		close(done)
	}()
	return done
}
