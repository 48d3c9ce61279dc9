package workflow

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Engine runs the instances of the registered definitions, together with all other engines on the
// same log. Its methods may be called from several goroutines, and a process may have several
// engines.
type Engine struct {
	run    runtime
	log    eventlog.Log
	store  projection.Store
	logger *slog.Logger
	close  []func() error // of what Open opened, last first

	snapshots engine.Snapshots // the policy
	errands   errands

	updates    string     // Config.UpdatesTopic
	propagator Propagator // may be nil

	registering chan struct{} // has who registers, which may have to wait for the log
	relays      map[engine.TopicKey]relay

	mu         sync.Mutex
	registered map[string]bool      // hashes of plans
	newest     map[string]*template // of the registered ones, by name
	stop       context.CancelFunc   // ends Run; nil: it does not run
	ended      chan struct{}        // closed when Run has returned
	closed     chan struct{}        // nil: Close was not called; closed when it has ended
	closing    error                // what Close said
}

// relay says by what a correlation key is computed in this engine.
type relay struct {
	definition string
	listener
}

// runtime is what this package needs of internal/engine.
type runtime interface {
	Register(ctx context.Context, codes ...*engine.Code) error
	Run(ctx context.Context) error
	Call(ctx context.Context, r *eventlog.Request) (engine.Answer, error)
	Get(ctx context.Context, id string) (*machine.Instance, error)
	Wait(ctx context.Context, id string) (*machine.Instance, error)
	List(ctx context.Context, f engine.Filter) (engine.Page, error)
	Count(ctx context.Context, f engine.Filter) (map[string]int64, map[int32]uint64, error)
	Events(ctx context.Context, id string) iter.Seq2[*eventlog.Event, error]
	Plan(hash string) *machine.Plan
	FindPlan(ctx context.Context, hash string) *machine.Plan
	Partitions() []engine.PartitionStatus
	Problems() []string
	Slots() engine.Slots
	Peers() http.Handler
	Running() bool
	Close() error
}

// Open connects to the log and the store and checks both. The engine runs nothing before Run, but it
// can already start, stop, retry and inspect instances. The caller closes it with Close. ctx
// counts during Open only.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		log: c.OpenedLog, store: c.OpenedStore, logger: c.Logger,
		registered: map[string]bool{}, newest: map[string]*template{}, relays: map[engine.TopicKey]relay{},
		registering: make(chan struct{}, 1),
		updates:     c.UpdatesTopic, propagator: c.Propagator,
	}
	if e.logger == nil {
		e.logger = slog.Default()
	}
	logURL, storeURL := c.urls()
	if err := e.open(ctx, logURL, storeURL, c); err != nil {
		return nil, errors.Join(err, e.release())
	}
	e.logger.InfoContext(ctx, "engine opened", "app", e.log.App(), "partitions", e.log.Partitions(), "log", e.log.URL(), "store", e.store.URL())
	return e, nil
}

func (e *Engine) open(ctx context.Context, logURL, storeURL string, c Config) (err error) {
	if e.log == nil {
		if e.log, err = eventlog.Open(ctx, logURL); err != nil {
			return err
		}
		e.close = append(e.close, e.log.Close)
	}
	if e.store == nil {
		id := projection.Identity{App: e.log.App(), Partitions: e.log.Partitions()}
		if e.store, err = projection.Open(ctx, storeURL, id); err != nil {
			return err
		}
		e.close = append(e.close, e.store.Close)
	}
	snapshots, closing, err := c.Snapshots.open(ctx)
	if err != nil {
		return err
	}
	if closing != nil {
		e.close = append(e.close, closing)
	}
	e.snapshots = snapshots
	eng, err := engine.New(ctx, engine.Config{
		Log: e.log, Store: e.store, Logger: e.logger, Worker: c.Worker, Address: c.Address, PeerClient: c.PeerClient,
		Slots: c.Slots, TriggerInterval: c.TriggerInterval, MaxPerTrigger: c.MaxPerTrigger,
		ProjectInterval: c.ProjectInterval, CacheBytes: c.CacheBytes, ShutdownTimeout: c.ShutdownTimeout,
		Observer: engine.Observer(c.Observer), UpdatesTopic: c.UpdatesTopic, Snapshots: snapshots, VerifyInterval: c.VerifyInterval,
	})
	if err != nil {
		return fmt.Errorf("open engine: %w", err)
	}
	e.run = eng
	e.close = append(e.close, eng.Close)
	return nil
}

// release closes what Open opened, in the opposite order.
func (e *Engine) release() error {
	var errs []error
	for i := len(e.close) - 1; i >= 0; i-- {
		errs = append(errs, e.close[i]())
	}
	e.close = nil
	return errors.Join(errs...)
}

// registerTime is how long Register may take to create topics and record plans.
const registerTime = time.Minute

// Register makes definitions known to this engine, which can start and run their instances from
// now on, and to the log: it records their plans and creates the topics that they use and that do
// not exist. It may be called while the engine runs, and registering a definition again does no
// harm. Several versions of a definition may be registered; an instance runs the one with which
// it was started.
//
// The error joins all mistakes of all definitions, each with its path; then none of them is
// registered. ErrChanged: under the name and version of a definition another one is registered,
// here or by another process; the error says what differs. ErrClosed: Close was called, or Run has
// ended. Register gives up when the log does not answer for a minute.
func (e *Engine) Register(definitions ...AnyDefinition) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), registerTime, errors.New("the log did not answer in a minute"))
	defer cancel()
	ctx, done, err := e.errands.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	select {
	case e.registering <- struct{}{}:
		defer func() { <-e.registering }()
	case <-ctx.Done():
		return fmt.Errorf("register: %w", ended(ctx, context.Cause(ctx)))
	}
	relays := map[engine.TopicKey]relay{}
	var codes []*engine.Code
	var mistakes []error
	for _, d := range definitions {
		if d == nil || d.definition() == nil {
			mistakes = append(mistakes, errors.New("register: a definition is nil"))
			continue
		}
		c, err := d.definition().compile()
		if err != nil {
			mistakes = append(mistakes, err)
			continue
		}
		mistakes = append(mistakes, e.conflicts(d.Name(), c, relays)...)
		codes = append(codes, c.code)
	}
	if err := errors.Join(mistakes...); err != nil {
		return err
	}
	if err := e.run.Register(ctx, codes...); err != nil {
		return fmt.Errorf("register: %w", ended(ctx, e.told("", changed(err))))
	}
	maps.Copy(e.relays, relays)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range codes {
		e.registered[c.Plan.Hash()] = true
	}
	for _, d := range definitions {
		if t := e.newest[d.Name()]; t == nil || d.definition().version >= t.version {
			e.newest[d.Name()] = d.definition()
		}
	}
	return nil
}

// conflicts finds the mistakes of a definition that show only beside the log and the other
// definitions. It adds the definition's correlation keys to fresh.
func (e *Engine) conflicts(name string, c *compiled, fresh map[engine.TopicKey]relay) []error {
	var mistakes []error
	app := e.log.App()
	own := map[string]bool{
		eventlog.RequestsTopic(app): true, eventlog.EventsTopic(app): true,
		eventlog.DefinitionsTopic(app): true, eventlog.DeadLetterTopic(app): true,
	}
	if e.updates != "" {
		own[e.updates] = true
	}
	for _, s := range c.sends {
		if own[s.topic] {
			mistakes = append(mistakes, fmt.Errorf("register %s: %s: topic %s is one of the engine's own", name, s.path, s.topic))
		}
	}
	for _, t := range c.triggers {
		if own[t.topic] {
			mistakes = append(mistakes, fmt.Errorf("register %s: %s: it is one of the engine's own topics", name, t.path))
		}
	}
	for _, l := range c.listeners {
		if own[l.topic] {
			mistakes = append(mistakes, fmt.Errorf("register %s: %s: topic %s is one of the engine's own", name, l.path, l.topic))
		}
		k := engine.TopicKey{Topic: l.topic, Key: l.match.key}
		have, ok := e.relays[k]
		if !ok {
			have, ok = fresh[k]
		}
		switch {
		case !ok:
			fresh[k] = relay{name, l}
		case have.match.message != l.match.message:
			have.path = have.definition + ": " + have.path
			mistakes = append(mistakes, fmt.Errorf("register %s: %s: %s", name, l.path, differs(have.listener, l)))
		}
	}
	return mistakes
}

// Run runs instances until ctx ends. Then it takes no new work, gives running handlers
// Config.ShutdownTimeout to finish before their contexts end, hands its partitions over, and
// returns nil. It waits for handlers that ignore their contexts. It returns earlier only with an
// error from which the engine can't recover. Run works once. Afterwards methods that ask or
// change instances return ErrClosed; those that read the log or the store work until Close.
func (e *Engine) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(withPropagator(ctx, e.propagator))
	defer stop()
	e.mu.Lock()
	switch {
	case e.closed != nil:
		e.mu.Unlock()
		return ErrClosed
	case e.stop != nil:
		e.mu.Unlock()
		return errors.New("run engine: it runs or has run already")
	}
	e.stop, e.ended = stop, make(chan struct{})
	e.mu.Unlock()
	defer close(e.ended)
	if err := e.run.Run(ctx); err != nil {
		return fmt.Errorf("run engine: %w", err)
	}
	return nil
}

// Close ends Run as if its context had ended, and ends Register, Verify, Rebuild and snapshots that
// are being taken. It waits for all of them and closes what Open has opened. A second Close waits
// too, and returns the same. A handler must not call Close: it would wait for itself.
func (e *Engine) Close() error {
	e.mu.Lock()
	if closed := e.closed; closed != nil {
		e.mu.Unlock()
		<-closed
		return e.closing
	}
	stop, ended := e.stop, e.ended
	e.closed = make(chan struct{})
	e.mu.Unlock()
	defer close(e.closed)
	if stop != nil {
		stop()
		<-ended
	}
	e.errands.close()
	if err := e.release(); err != nil {
		e.closing = fmt.Errorf("close engine: %w", err)
	}
	return e.closing
}

// paramsOf is the type of a definition's parameters; nil when it is not registered here.
func (e *Engine) paramsOf(definition string) reflect.Type {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.newest[definition]; t != nil {
		return t.params
	}
	return nil
}

func (e *Engine) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed != nil
}

// Peers is the handler for questions of other engines on the same log about what is in the store of
// this one, at paths that begin with /peers/v1/. Package webui serves it already; a program without
// webui serves it at Config.Address. It only reads, and asks no other engine itself.
func (e *Engine) Peers() http.Handler { return e.run.Peers() }

// Log returns the engine's log. Use it to publish to topics that definitions listen to, and to read
// topics that they send to. It must not be closed.
func (e *Engine) Log() eventlog.Log { return e.log }

func (e *Engine) isRegistered(plan string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.registered[plan]
}

func (e *Engine) call(ctx context.Context, r *eventlog.Request) (engine.Answer, error) {
	if ctx.Err() != nil { // else the call might be decided all the same
		return engine.Answer{}, context.Cause(ctx)
	}
	r.Caller = CallerFrom(ctx)
	a, err := e.run.Call(ctx, r)
	if err != nil {
		return a, e.told(r.ID, err)
	}
	return a, refusal(r, a.Answer)
}

// told turns the engine's errors into those of this package. id is that of the instance asked for.
func (e *Engine) told(id string, err error) error {
	var elsewhere *engine.ElsewhereError
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	case errors.As(err, &elsewhere):
		return (*ElsewhereError)(elsewhere)
	case errors.Is(err, engine.ErrClosed), (errors.Is(err, eventlog.ErrClosed) || errors.Is(err, projection.ErrClosed)) && e.isClosed():
		return ErrClosed
	case errors.Is(err, engine.ErrBusy):
		return ErrBusy
	case errors.Is(err, eventlog.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}

// refusal is the error for the answer to a call; nil when the call was done, or had been before.
func refusal(r *eventlog.Request, answer string) error {
	var err error
	switch answer {
	case "", machine.OK, machine.Exists:
		return nil
	case machine.NotFound:
		err = ErrNotFound
	case machine.Terminal:
		err = ErrEnded
	case machine.NotEnded:
		err = ErrNotEnded
	case machine.NotFailed:
		err = ErrNotFailed
	case machine.InQuarantine:
		err = ErrQuarantined
	case machine.UnknownPlan:
		err = ErrNotRegistered
	case machine.TooLarge:
		err = ErrTooLarge
	case machine.Expired:
		err = ErrExpired
	case machine.Ahead:
		err = errors.New("workflow: the clock of this process is more than a minute ahead")
	default:
		err = fmt.Errorf("workflow: refused: %s", answer)
	}
	return fmt.Errorf("%w: %s", err, r.ID)
}
