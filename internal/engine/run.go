package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// Engine runs the partitions that its consumer group gives to this process. It owns every
// goroutine: Run returns when all have ended.
type Engine struct {
	cfg        Config
	log        eventlog.Log
	store      projection.Store
	logger     *slog.Logger
	registry   *registry
	followers  *followers
	pool       *pool
	eventsID   string
	maxEvent   int
	maxMessage func(topic string) int
	problems   problems
	absence    absence
	owners     owners
	peers      *http.Client // asks other workers
	failed     chan error   // the log's end, for Run

	mu       sync.Mutex
	runners  map[int32]*runner
	member   eventlog.Member
	handlers context.Context // of user code, while Run runs
	state    runState
	known    map[string]int // bytes that fit a user's topic
}

type runState int

const (
	notRunning runState = iota
	isRunning
	isDraining
	isClosed
)

// New makes an engine. It reads the log's topics and the store's watermarks, and changes
// nothing. ErrForeignStore: the store has folded another log. ErrUnfinished: the log was filled
// only in part.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Log == nil || cfg.Store == nil {
		return nil, errors.New("engine: a log and a store are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Worker == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		cfg.Worker = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	defaults(&cfg.Slots, 256)
	defaults(&cfg.TriggerInterval, time.Minute)
	defaults(&cfg.MaxPerTrigger, 1000)
	defaults(&cfg.ProjectInterval, 200*time.Millisecond)
	defaults(&cfg.CacheBytes, 64<<20)
	defaults(&cfg.ShutdownTimeout, 25*time.Second)
	cfg.Observer.DeadLetter = (&letters{logger: cfg.Logger, next: cfg.Observer.DeadLetter}).add
	e := &Engine{cfg: cfg, log: cfg.Log, store: cfg.Store, logger: cfg.Logger, runners: map[int32]*runner{}, owners: newOwners(), known: map[string]int{}, failed: make(chan error, 1)}
	topic, err := e.log.Topic(ctx, eventlog.EventsTopic(e.log.App()))
	if err != nil {
		return nil, fmt.Errorf("describe the events topic: %w", err)
	}
	if err := CheckStore(ctx, e.store, topic.ID); err != nil {
		return nil, err
	}
	e.eventsID = topic.ID
	if e.maxEvent, err = e.limitOfEvents(ctx, topic.MaxRecord); err != nil {
		return nil, err
	}
	e.maxMessage = e.limitOf
	if err := e.openUpdates(ctx); err != nil {
		return nil, err
	}
	e.followers = newFollowers(e.log, e.eventsID)
	if e.registry, err = newRegistry(e); err != nil {
		return nil, err
	}
	if err := e.registry.refresh(ctx); err != nil {
		return nil, err
	}
	if err := e.registry.filling.whole(e.log); err != nil {
		return nil, err
	}
	e.pool = newPool(cfg.Slots, e.logger, e.registry.code, e.deliver)
	e.pool.handler = cfg.Observer.Handler
	if e.peers = cfg.PeerClient; e.peers == nil {
		e.peers = newPeerClient()
	}
	return e, nil
}

// CheckStore refuses a store that has folded another events topic: ErrForeignStore. Without
// it the owners would be fenced by the other log's epochs, which are higher, and never say
// why. The first partition that has something and can be read speaks for all: what can't be
// read is for the owners, who check again; protocol rule 27.
func CheckStore(ctx context.Context, store projection.Store, eventsID string) error {
	partitions, err := store.Partitions(ctx)
	if err != nil {
		return fmt.Errorf("list the store's partitions: %w", err)
	}
	for _, p := range partitions {
		w, err := watermark(ctx, store, p)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case err != nil || w.N == 0:
		case w.LogID != eventsID:
			return foreign(store, w.LogID, eventsID)
		default:
			return nil
		}
	}
	return nil
}

func watermark(ctx context.Context, store projection.Store, partition int32) (projection.Watermark, error) {
	v, err := store.View(ctx, partition)
	if err != nil {
		return projection.Watermark{}, err
	}
	w, err := v.Watermark(ctx)
	return w, errors.Join(err, v.Close())
}

func defaults[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// limitOf is what fits a topic; topics are described when a definition is registered.
func (e *Engine) limitOf(topic string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n, ok := e.known[topic]; ok {
		return n
	}
	return e.maxEvent
}

// limitOfEvents is what an event may have: what it tells another partition must fit the requests
// topic too, or the forwarder would try it for ever.
func (e *Engine) limitOfEvents(ctx context.Context, fits int) (int, error) {
	requests, err := e.log.Topic(ctx, eventlog.RequestsTopic(e.log.App()))
	if err != nil {
		return 0, fmt.Errorf("describe the requests topic: %w", err)
	}
	return min(fits, requests.MaxRecord), nil
}

// describe notes what fits a topic.
func (e *Engine) describe(t eventlog.Topic) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known[t.Name] = t.MaxRecord
}

func (e *Engine) runner(partition int32) *runner {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runners[partition]
}

func (e *Engine) running() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state == isRunning
}

// Running says whether Run works at the moment.
func (e *Engine) Running() bool { return e.running() }

// deliver takes a result from the pool: to the owner here, or else to the partition's inbox.
func (e *Engine) deliver(partition int32, u unit) {
	if r := e.runner(partition); r != nil {
		r.result(u)
		return
	}
	e.sendResults(partition, e.pool.lost(partition, ErrPartitionLost))
}

// sendResults appends results of handlers whose partition is elsewhere now to its inbox.
func (e *Engine) sendResults(partition int32, results []eventlog.Request) {
	if len(results) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.handlers), 10*time.Second)
	defer cancel()
	var records []eventlog.Record
	for k := range results {
		value, err := eventlog.AppendRequest(nil, &results[k])
		if err != nil {
			e.logger.Warn("encode result", "instance", results[k].ID, "err", err)
			continue
		}
		records = append(records, eventlog.Record{Topic: eventlog.RequestsTopic(e.log.App()), Partition: partition, Key: []byte(results[k].PartitionKey()), Value: value})
	}
	// A result that does not arrive is an interrupted attempt for the new owner.
	if err := e.log.Publish(ctx, records...); err != nil {
		e.logger.Warn("send results to another worker", "partition", partition, "err", err)
	}
}

// prove shows that this process is still a member of the group, so that two workers can't
// fence each other for ever; protocol rule 4.
func (e *Engine) prove(ctx context.Context, partition int32) error {
	e.mu.Lock()
	m := e.member
	e.mu.Unlock()
	offset, err := m.Committed(ctx, partition)
	if err != nil {
		return fmt.Errorf("read group offset: %w", err)
	}
	if err := m.Commit(ctx, partition, max(offset, 0)); err != nil {
		return fmt.Errorf("prove membership: %w", err)
	}
	return nil
}

// owned is told when an owner is in its loop.
func (e *Engine) owned(partition int32) {
	e.logger.Debug("partition is owned", "partition", partition)
}

// Run owns partitions and runs handlers until ctx ends; then it takes nothing new, lets
// running handlers end (Config.ShutdownTimeout), brings the store up to date, hands its
// partitions over and returns nil. It returns an error when it can't work at all.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.state != notRunning {
		e.mu.Unlock()
		return errors.New("engine: Run was called before, or the engine is closed")
	}
	e.state = isRunning
	e.mu.Unlock()

	detached := context.WithoutCancel(ctx)
	handlers, endHandlers := context.WithCancelCause(detached)
	e.handlers = handlers
	if err := e.join(ctx); err != nil {
		endHandlers(err)
		e.mu.Lock()
		e.state = isClosed
		e.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}

	owners, endOwners := context.WithCancelCause(detached)
	var wg sync.WaitGroup
	assign, endAssign := context.WithCancel(detached)
	wg.Go(func() { e.assignments(assign, owners) })
	wg.Go(func() { e.relays(owners) })
	wg.Go(func() { e.watchHandlers(handlers) })
	wg.Go(func() { e.snapshotsLoop(assign) })
	wg.Go(func() { e.verifierLoop(assign) })
	wg.Go(func() { e.looks(assign) })

	var failed error
	select {
	case <-ctx.Done():
	case failed = <-e.failed: // no handler could report any more
	}
	e.mu.Lock()
	e.state = isDraining
	e.mu.Unlock()
	if failed == nil {
		e.drainHandlers(detached)
	}
	// A handler that goes on although its context has ended does not keep the partitions too.
	ended := e.pool.close()
	late := time.NewTimer(handlerGrace)
	select {
	case <-ended:
	case <-late.C:
		e.logger.Warn("handlers go on although their contexts have ended; Run waits for them", "running", e.pool.busy(), "some", e.pool.some(3))
	}
	late.Stop()
	endHandlers(ErrShutdown)
	endAssign()
	endOwners(ErrShutdown)
	wg.Wait()
	if err := e.member.Close(); err != nil {
		e.logger.Debug("leave the owners' group", "err", err)
	}
	<-ended // what they still report goes to the next owners
	e.mu.Lock()
	e.state = isClosed
	e.mu.Unlock()
	e.followers.close()
	return failed
}

// handlerGrace is how long handlers have to return when their contexts have ended.
const handlerGrace = 5 * time.Second

// fail ends Run: the log has failed for good, and all of the owners would only try again.
func (e *Engine) fail(err error) {
	select {
	case e.failed <- err:
	default: // another one was first
	}
}

// join makes this process a member of the group that shares out the partitions.
func (e *Engine) join(ctx context.Context) error {
	member, err := e.log.Join(ctx, e.log.App()+".owners", eventlog.RequestsTopic(e.log.App()))
	if err != nil {
		return fmt.Errorf("join the owners' group: %w", err)
	}
	e.mu.Lock()
	e.member = member
	e.mu.Unlock()
	return nil
}

// drainHandlers waits for running handlers, for a time.
func (e *Engine) drainHandlers(ctx context.Context) {
	e.pool.drain()
	limit, cancel := context.WithTimeout(ctx, e.cfg.ShutdownTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for e.pool.busy() > 0 {
		select {
		case <-tick.C:
		case <-limit.Done():
			e.logger.Warn("handlers are cut short", "running", e.pool.busy())
			return
		}
	}
}

// watchHandlers reports handlers that have run for a second; protocol rule 10.
func (e *Engine) watchHandlers(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, id := range e.pool.longRunners(now) {
				if r := e.runner(id.partition); r != nil {
					r.result(hasRunUnit(id.key))
				}
			}
		}
	}
}

// assignments starts and stops owners as the group says, until ctx ends; then it stops all.
func (e *Engine) assignments(ctx, owners context.Context) {
	a := assigned{
		begin: func(p int32) func(context.Context) {
			r := e.newRunner(p)
			e.mu.Lock()
			e.runners[p] = r
			e.mu.Unlock()
			return r.run
		},
		ended: func(p int32, cause error) {
			e.mu.Lock()
			delete(e.runners, p)
			e.mu.Unlock()
			e.sendResults(p, e.pool.lost(p, cause))
		},
	}
	defer a.close()
	for {
		partitions, err := e.member.Assigned(ctx)
		for backoff := backoffMin; err != nil && ctx.Err() == nil; backoff = min(2*backoff, backoffMax) {
			// Owners go on meanwhile: the group only assigns, fences protect.
			e.logger.Warn("join the owners' group again", "err", err, "in", backoff)
			e.problems.set("the owners' group", err)
			sleep(ctx, backoff)
			if cerr := e.member.Close(); cerr != nil {
				e.logger.Debug("leave the owners' group", "err", cerr)
			}
			if err = e.join(ctx); err == nil {
				partitions, err = e.assignedAnew(ctx)
			}
		}
		e.problems.set("the owners' group", nil)
		if ctx.Err() != nil {
			return
		}
		a.become(owners, e.counted(partitions))
	}
}

// assignedAfter is longer than a group takes to share out its partitions.
const assignedAfter = time.Minute

// assignedAnew is what a member gets that has just joined: nothing where the others have all, of
// which Assigned does not tell.
func (e *Engine) assignedAnew(ctx context.Context) ([]int32, error) {
	limited, cancel := context.WithTimeout(ctx, assignedAfter)
	defer cancel()
	assigned, err := e.member.Assigned(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return assigned, err
}

// counted leaves out partitions that somebody added to the requests topic, and says so: nobody
// reads them, and clients that place requests by the new count put some there.
func (e *Engine) counted(assigned []int32) (l []int32) {
	const part = "the requests topic"
	e.problems.set(part, nil)
	for _, p := range assigned {
		if n := e.log.Partitions(); p >= n {
			e.problems.set(part, fmt.Errorf("%w: it has got more than the %d that the application has: requests in partition %d are read by nobody; no worker will start with it; move to an application with more partitions", eventlog.ErrPartitions, n, p))
			continue
		}
		l = append(l, p)
	}
	return l
}

// Close makes every call fail. It is for an engine whose Run has returned or was not called.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.state == isRunning || e.state == isDraining {
		e.mu.Unlock()
		return errors.New("engine: Close while Run works; end its context first")
	}
	e.state = isClosed
	e.mu.Unlock()
	e.followers.close()
	if e.cfg.PeerClient == nil {
		e.peers.CloseIdleConnections()
	}
	return nil
}
