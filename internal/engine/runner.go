package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// runner drives the owner of one partition: it does what the owner's steps ask for and
// hands it what comes in. It owns all goroutines of the partition.
type runner struct {
	e         *Engine
	partition int32
	o         *owner
	logger    *slog.Logger

	mu       sync.Mutex
	mail     mail
	stopping bool // takes nothing new
	busy     int  // calls queued or in the owner
	ready    bool // the owner is in its loop
	wake     chan struct{}
	room     *sync.Cond // the mail was taken

	// Of the current life of the owner; all ended by release.
	log       eventlog.Owner
	store     projection.Partition
	tail      eventlog.Reader
	tailBuf   []tailEvent
	tailOff   int64
	lent      tailMemory
	life      context.Context
	end       context.CancelCauseFunc
	wg        sync.WaitGroup
	forward   *forwarder
	began     time.Time       // of the open transaction
	events    int             // in it
	status    PartitionStatus // under mu
	sent      time.Time       // when the store was given what it has not answered; under mu
	consumed  []consumed
	trimmed   int64
	scanFrom  int64     // of the due index
	dropsLook time.Time // when blocks that the log has dropped were looked for
	next      time.Time // when the store is brought up to date next
	await     await
}

// mail is what came in since the last step.
type mail struct {
	inbox     []unit
	inboxed   int // bytes of inbox
	results   []unit
	calls     []unit
	left      []unit // waits whose callers have gone
	applied   []error
	forwarded uint64
	failed    error // of a goroutine of this life
}

func (e *Engine) newRunner(partition int32) *runner {
	r := &runner{e: e, partition: partition, wake: make(chan struct{}, 1), await: newAwait(), logger: e.logger.With("partition", partition)}
	r.room = sync.NewCond(&r.mu)
	r.o = newOwner(ownerConfig{
		app: e.log.App(), partition: partition, partitions: e.log.Partitions(), worker: e.cfg.Worker, address: e.cfg.Address,
		registry: e.registry, machine: e.cfg.Rules, maxEvent: e.maxEvent, maxMessage: e.maxMessage,
		horizon: 2 * e.cfg.TriggerInterval.Milliseconds(), rescan: e.cfg.TriggerInterval.Milliseconds(),
		cacheSize: e.cfg.CacheBytes / int64(e.log.Partitions()), maxTurn: max(turnUnits/int(e.log.Partitions()), leastUnits), maxTimers: e.cfg.MaxPerTrigger, observed: e.cfg.Observer.Event != nil,
		updatesTopic: e.cfg.UpdatesTopic,
	})
	return r
}

// post adds to the mail and wakes the owner.
func (r *runner) post(f func(*mail)) {
	r.mu.Lock()
	f(&r.mail)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// submit queues a call or read; false when the partition is not taken here any more.
func (r *runner) submit(u unit) bool {
	r.mu.Lock()
	stopping, full := r.stopping, r.busy >= busyUnits && u.request.Type != eventlog.StopInstance
	if !stopping && !full {
		if u.token.(*call).wait = u.wait; !u.wait {
			r.busy++ // who waits for the end of a run is no work
		}
		r.mail.calls = append(r.mail.calls, u)
	}
	r.mu.Unlock()
	switch {
	case stopping:
		return false
	case full:
		u.token.(*call).reply(reply{err: ErrBusy})
		return true
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true
}

// leave ends a wait whose caller has gone.
func (r *runner) leave(u unit) {
	r.post(func(m *mail) {
		if !r.stopping {
			m.left = append(m.left, u)
		}
	})
}

// result takes what the pool has for this partition.
func (r *runner) result(u unit) {
	r.mu.Lock()
	r.mail.results = append(r.mail.results, u)
	r.mu.Unlock()
	if r.await.came() {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run owns the partition until ctx ends. It returns when nothing of it runs any more.
func (r *runner) run(ctx context.Context) {
	defer r.moved()
	// Each take-over is written to the log: one that is of no use must not come again at once.
	backoff, worked := backoffMin, false
	next := r.o.restart()
	for {
		if x, is := next.(opAwait); is {
			r.await.expect(x.started)
		}
		r.dispatch(r.o.takeEffects())
		if f, failed := next.(opFail); failed {
			r.release(f.err)
			lasted := r.failed(f.err)
			if errors.Is(f.err, eventlog.ErrFailed) {
				r.e.fail(f.err)
			}
			if ctx.Err() != nil {
				return
			}
			switch {
			case errors.Is(f.err, errRefused), errors.Is(f.err, errPoison):
				r.logger.Warn("a batch is decided again", "err", f.err)
			default:
				if worked || lasted > backoffMax {
					backoff = backoffMin
				}
				r.logger.Warn("partition is taken again", "err", f.err, "in", backoff)
				sleep(ctx, backoff)
				backoff = min(2*backoff, backoffMax)
			}
			worked = false
			if ctx.Err() != nil {
				return
			}
			next = r.o.restart()
			continue
		}
		res := r.do(ctx, next)
		if ctx.Err() != nil && r.o.phase == ready {
			r.finish()
			return
		}
		if err := r.collect(ctx); err != nil && res.err == nil {
			res.err = err
		}
		worked = worked || r.o.phase == committing && res.err == nil
		next = r.o.step(r.e.cfg.Now().UnixMilli(), res)
	}
}

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 5 * time.Second
)

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// collect hands the mail to the owner; when ctx has ended, only what ends what was begun.
func (r *runner) collect(ctx context.Context) error {
	r.mu.Lock()
	m := r.mail
	r.mail = mail{forwarded: m.forwarded}
	r.note()
	if inboxFull(len(r.o.inbox), r.o.inboxed) { // it would grow without end under an owner that waits
		r.mail.inbox, m.inbox = m.inbox, nil
		r.mail.inboxed, m.inboxed = m.inboxed, 0
	}
	if ctx.Err() != nil {
		r.mail.inbox, m.inbox = nil, nil // the next owner reads them
		r.mail.inboxed, m.inboxed = 0, 0
		r.mail.calls, m.calls = m.calls, nil
		m.left = nil // all waits end
	}
	r.room.Broadcast()
	r.mu.Unlock()
	r.o.leaving = ctx.Err() != nil
	r.o.inbox = append(r.o.inbox, m.inbox...)
	r.o.inboxed += m.inboxed
	r.o.results = append(r.o.results, m.results...)
	r.o.calls = append(r.o.calls, m.calls...)
	for k := range m.left {
		r.o.leave(&m.left[k])
	}
	for _, err := range m.applied {
		r.o.applied(err)
	}
	r.o.forwarded(m.forwarded)
	if now := time.Now(); !now.Before(r.next) {
		r.next = now.Add(r.e.cfg.ProjectInterval)
		r.o.projectDue = true
	}
	return m.failed
}

// dispatch starts what follows from committed turns.
func (r *runner) dispatch(f effects) {
	p := r.e.pool
	for _, x := range f.replace {
		p.replace(r.partition, x)
	}
	for _, k := range f.settled {
		p.settle(r.partition, k)
	}
	for _, k := range f.cancel {
		p.end(r.partition, k, ErrInstanceEnded)
	}
	for _, j := range f.start {
		p.start(r.e.handlers, r.partition, j)
	}
	if len(f.forward) > 0 {
		r.forward.add(f.forward)
	}
	if f.apply != nil {
		b, store, life := f.apply, r.store, r.life
		began := time.Now()
		r.mu.Lock()
		r.sent = began
		r.mu.Unlock()
		r.wg.Go(func() {
			err := store.Apply(life, *b)
			if f := r.e.cfg.Observer.Store; f != nil {
				f(time.Since(began), len(b.Put)+len(b.Del), err)
			}
			r.post(func(m *mail) { m.applied = append(m.applied, err) })
		})
	}
	r.observe(&f)
	for _, d := range f.mended {
		r.logger.Warn("the rescan found what should have been in memory", "instance", d.ID, "path", d.Path, "type", d.Type, "due", time.UnixMilli(d.At))
	}
	if len(f.replies) > 0 {
		r.mu.Lock()
		for _, x := range f.replies {
			r.submitted(x.instance)
			if !x.token.(*call).wait {
				r.busy--
			}
		}
		r.mu.Unlock()
	}
	for _, x := range f.replies {
		x.token.(*call).reply(x)
	}
}

// submitted gives tasks whose code this worker has not the status that says so; protocol
// rule 13. The instance is the reply's own copy.
func (r *runner) submitted(i *machine.Instance) {
	if i == nil {
		return
	}
	for _, w := range i.Works() {
		if t := i.Task(w.Path); t != nil && r.e.pool.parked(r.partition, jobKey{i.ID, i.Run, w}) {
			t.Status = machine.Submitted
		}
	}
}

// do executes an op.
func (r *runner) do(ctx context.Context, next op) (res result) {
	switch x := next.(type) {
	case opIdle:
		return r.idle(ctx, x.until)
	case opAwait:
		r.await.wait(ctx, x.started)
	case opAppend:
		r.began, r.events = time.Now(), len(x.events)
		if res.offset, res.err = r.log.Append(r.life, x.events, x.types, x.messages); res.err != nil {
			r.turned(res.err)
		}
	case opCommit:
		res.err = r.log.Commit(r.life)
		r.await.took = time.Since(r.began)
		r.turned(res.err)
	case opAbort:
		res.err = r.log.Abort(r.life)
	case opRead:
		return r.read(x)
	case opApply:
		res.err = r.store.Apply(r.life, *x.batch)
	case opProve:
		r.begin(ctx)
		res.err = r.e.prove(r.life, r.partition)
	case opOwn:
		r.log, res.err = r.e.log.Own(r.life, r.partition)
	case opLast:
		if res = r.lastBefore(x.before); res.err == nil {
			r.o.maxEvent, res.err = r.e.limitOfEvents(r.life, res.maxEvent) // it may have changed
		}
	case opAcquire:
		return r.acquire(x.epoch)
	case opDrop:
		r.logger.Warn("the store's partition is rebuilt from the log")
		r.closeStore()
		res.err = steady(r.life, func() error { return r.e.store.Drop(r.life, r.partition, x.epoch) })
	case opBase:
		return r.base()
	case opTail:
		return r.readTail(x)
	case opIndex:
		return r.index(x.due, x.recovery)
	case opConsume:
		return r.consume(x)
	default:
		res.err = fmt.Errorf("engine: unknown op %T", next)
	}
	return res
}

// idle waits for mail, for a time, or for the end.
func (r *runner) idle(ctx context.Context, until int64) result {
	d := time.UnixMilli(until).Sub(r.e.cfg.Now())
	if r.o.st.N != r.o.mark.N && r.o.flight == nil {
		d = min(d, time.Until(r.next))
	}
	// A clock that is set meanwhile moves what until means.
	d = min(d, r.e.cfg.TriggerInterval)
	if d <= 0 {
		return result{}
	}
	r.mu.Lock()
	r.note() // what came since collect, and nothing may come for long
	left := len(r.mail.inbox) > 0 && !inboxFull(len(r.o.inbox), r.o.inboxed)
	r.mu.Unlock()
	if left { // by collect, and its wake is used up
		return result{}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.wake:
	case <-t.C:
	case <-ctx.Done():
	}
	return result{}
}

// handOver is how long an owner that is told to end may take for the turn that it is in: by then
// the partition is another worker's, and a log or store that does not answer would keep it for ever.
const handOver = 10 * time.Second

// begin opens a new life: what is started in it ends with it.
func (r *runner) begin(ctx context.Context) {
	// An owner in its loop ends by finish, so its ops must outlive ctx.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	r.life, r.end = life, end
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		ready := r.ready
		r.mu.Unlock()
		if ready {
			sleep(life, handOver)
		}
		end(context.Cause(ctx))
	})
	r.scanFrom = math.MinInt64
	r.wg.Go(func() {
		<-life.Done()
		stop()
		r.mu.Lock()
		r.room.Broadcast()
		r.mu.Unlock()
	})
	r.forward = r.newForwarder()
}

// release ends a life and waits for all of it.
func (r *runner) release(cause error) {
	if r.end != nil {
		r.end(cause)
	}
	r.wg.Wait()
	if r.log != nil {
		if err := r.log.Close(); err != nil {
			r.logger.Debug("close owner", "err", err)
		}
		r.log = nil
	}
	r.closeTail()
	r.closeStore()
	r.mu.Lock()
	r.ready, r.sent = false, time.Time{}
	r.mail.inboxed = 0
	r.mail.inbox, r.mail.results, r.mail.applied, r.mail.forwarded, r.mail.failed = nil, nil, nil, 0, nil
	r.mu.Unlock()
}

func (r *runner) closeStore() {
	if r.store != nil {
		if err := r.store.Close(); err != nil {
			r.logger.Debug("close store partition", "err", err)
		}
		r.store = nil
	}
}

// finish hands the partition over in good order: the store is brought up to date, so that
// the next owner has little to fold.
func (r *runner) finish() {
	ctx, cancel := context.WithTimeout(r.life, 2*time.Second)
	defer cancel()
	r.wgApply(ctx)
	r.dispatch(r.o.takeEffects())
	r.release(ErrShutdown)
}

// wgApply writes what the store lacks.
func (r *runner) wgApply(ctx context.Context) {
	for r.o.flight != nil {
		select {
		case <-r.wake:
			if r.collect(ctx) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
	for r.o.storeErr == nil && r.o.rest() {
		if err := r.store.Apply(ctx, *r.o.flight); err != nil {
			r.logger.Warn("bring the store up to date", "err", err)
			return
		}
		r.o.applied(nil)
	}
	if err := r.store.Flush(ctx); err != nil {
		r.logger.Warn("flush store", "err", err)
	}
}

// moved answers everybody who still waits: the partition is elsewhere, or will be.
func (r *runner) moved() {
	r.mu.Lock()
	r.stopping = true
	calls := r.mail.calls
	r.mail = mail{}
	r.mu.Unlock()
	calls = append(calls, r.o.calls...)
	calls = append(calls, r.o.undecided()...)
	for _, u := range calls {
		u.token.(*call).reply(reply{err: errMoved})
	}
	for _, tokens := range r.o.waiters {
		for _, t := range tokens {
			t.(*call).reply(reply{err: errMoved})
		}
	}
}
