package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// host is an engine in this process.
type host struct {
	engine *workflow.Engine
	prefix string // of the ids: a log may have had a load before
	stop   context.CancelFunc
	ended  chan error
}

// openHost opens log and store and lets an engine run the definitions.
func openHost(ctx context.Context, s *settings, stderr io.Writer, c workflow.Config, definitions ...workflow.AnyDefinition) (*host, error) {
	c.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if c.OpenedLog == nil {
		c.Log = s.log
	}
	c.Store = s.store
	e, err := workflow.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := e.Register(definitions...); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	h := &host{engine: e, prefix: strconv.FormatInt(time.Now().UnixNano(), 36) + "-", ended: make(chan error, 1)}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	go func() { h.ended <- e.Run(life) }() // waited for by finish
	return h, nil
}

// finish ends the engine's work; the log can still be read.
func (h *host) finish() error {
	if h.stop == nil {
		return nil
	}
	h.stop()
	h.stop = nil
	return <-h.ended
}

func (h *host) close() error {
	return errors.Join(h.finish(), h.engine.Close())
}

// ready waits until every partition is owned.
func (h *host) ready(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		l := h.engine.Partitions()
		return len(l) == int(h.engine.Log().Partitions()) && !slices.ContainsFunc(l, func(p workflow.PartitionStatus) bool { return !p.Ready }), nil
	})
}

// projected waits until the store has everything.
func (h *host) projected(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		return !slices.ContainsFunc(h.engine.Partitions(), func(p workflow.PartitionStatus) bool { return p.Stored < p.Event || p.Queued > 0 }), nil
	})
}

// poll asks until it is so.
func poll(ctx context.Context, is func() (bool, error)) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := is(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// together runs n clients, which take numbers from 0 on, until all return or one fails.
func together(ctx context.Context, n int, client func(ctx context.Context, next func() int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var count atomic.Int64
	next := func() int { return int(count.Add(1) - 1) }
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := client(ctx, next); err != nil {
				cancel(err) // the first one counts
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// each calls do for 0 to n-1, from as many clients as the settings say.
func (s *settings) each(ctx context.Context, n int, do func(ctx context.Context, k int) error) error {
	return together(ctx, min(s.clients, n), func(ctx context.Context, next func() int) error {
		for k := next(); k < n; k = next() {
			if err := do(ctx, k); err != nil {
				return fmt.Errorf("instance %d: %w", k, err)
			}
		}
		return nil
	})
}

// until waits for a time.
func until(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tally counts events of a type, of one definition where name is given, and tells when there
// are as many as wanted.
type tally struct {
	typ    eventlog.Type
	name   string
	wanted int64
	n      atomic.Int64
	all    chan struct{}
}

func newTally(typ eventlog.Type, name string, wanted int) *tally {
	return &tally{typ: typ, name: name, wanted: int64(wanted), all: make(chan struct{})}
}

func (t *tally) event(typ eventlog.Type, definition string) {
	if typ == t.typ && definition == t.name && t.n.Add(1) == t.wanted {
		close(t.all)
	}
}

func (t *tally) wait(ctx context.Context) error {
	select {
	case <-t.all:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d of %d %s: %w", t.n.Load(), t.wanted, t.typ, context.Cause(ctx))
	}
}

func scheme(url string) string {
	name, _, _ := strings.Cut(url, ":")
	return name
}

// setup is what ran.
type setup struct {
	Workflow   string `json:"workflow"`
	Log        string `json:"log"`
	Store      string `json:"store"`
	CPUs       int    `json:"cpus"`
	Partitions int32  `json:"partitions"`
	Clients    int    `json:"clients"`
	Fsync      bool   `json:"fsync"` // each commit was synced to this machine's disk
}

// latency is a distribution, in ms.
type latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// distribution sorts what it is given.
func distribution(took []time.Duration) latency {
	if len(took) == 0 {
		return latency{}
	}
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(int(q*float64(len(took))), len(took)-1)].Microseconds()) / 1000
	}
	return latency{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

func (l latency) String() string {
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, max %.2f ms", l.P50, l.P99, l.Max)
}
