package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// Params of an instance.
type Params struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Payload    string `json:"payload,omitempty"`
}

// load is an engine in this process and what it is given to do.
type load struct {
	s      *settings
	engine *workflow.Engine
	def    *workflow.Definition[Params]
	prefix string // of the ids: a log may have had a load before
	params Params
	stop   context.CancelFunc
	ended  chan error
}

func openLoad(ctx context.Context, s *settings, stderr io.Writer) (*load, error) {
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := workflow.Open(ctx, workflow.Config{Log: s.log, Store: s.store, Logger: logger})
	if err != nil {
		return nil, err
	}
	var tasks []workflow.Node[Params]
	for k := range s.tasks {
		tasks = append(tasks, workflow.Execute("task"+strconv.Itoa(k+1), func(context.Context, *Params) error { return nil }))
	}
	l := &load{
		s: s, engine: e, def: workflow.New("Bench"+strconv.Itoa(s.tasks), workflow.Process("Work", tasks...)),
		prefix: strconv.FormatInt(time.Now().UnixNano(), 36) + "-",
		params: Params{OrderID: "4711", CustomerID: "7", Payload: strings.Repeat("x", s.payload)},
		ended:  make(chan error, 1),
	}
	if err := e.Register(l.def); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go func() { l.ended <- e.Run(life) }() // waited for by finish
	return l, nil
}

// finish ends the engine's work; the log can still be read.
func (l *load) finish() error {
	if l.stop == nil {
		return nil
	}
	l.stop()
	l.stop = nil
	return <-l.ended
}

func (l *load) close() error {
	return errors.Join(l.finish(), l.engine.Close())
}

// one starts an instance and waits until it has completed.
func (l *load) one(ctx context.Context, id string) error {
	h, err := l.def.Start(ctx, l.engine, l.prefix+id, l.params)
	if err != nil {
		return err
	}
	_, err = h.Wait(ctx)
	return err
}

// warmUp waits until every partition is likely to be owned, and code and caches are warm.
func (l *load) warmUp(ctx context.Context) error {
	n := 8 * int(l.engine.Log().Partitions())
	return together(ctx, min(l.s.clients, 64), func(ctx context.Context, next func() int) error {
		for k := next(); k < n; k = next() {
			if err := l.one(ctx, "w"+strconv.Itoa(k)); err != nil {
				return err
			}
		}
		return nil
	})
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

// measure runs the load. With a rate, an instance's latency counts from the time at which it
// was to be started: a late start is not forgiven.
func (l *load) measure(ctx context.Context, stderr io.Writer) (*result, error) {
	s := l.s
	before, err := l.ends(ctx)
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, s.instances)
	var done atomic.Int64
	stopBar := bar(stderr, s.instances, &done)
	cpu, start := cpuSeconds(), time.Now()
	err = together(ctx, s.clients, func(ctx context.Context, next func() int) error {
		for k := next(); k < s.instances; k = next() {
			begin := time.Now()
			if s.rate > 0 {
				begin = start.Add(time.Duration(float64(k) / s.rate * 1e9))
				if err := until(ctx, begin); err != nil {
					return err
				}
			}
			if err := l.one(ctx, strconv.Itoa(k)); err != nil {
				return fmt.Errorf("instance %d: %w", k, err)
			}
			took[k] = time.Since(begin)
			done.Add(1)
		}
		return nil
	})
	elapsed := time.Since(start).Seconds()
	cpu = cpuSeconds() - cpu
	stopBar()
	if err != nil {
		return nil, err
	}
	if err := l.finish(); err != nil {
		return nil, err
	}
	n := float64(s.instances)
	r := &result{
		Workflow: strconv.Itoa(s.tasks) + " x Execute", Log: scheme(s.log), Store: scheme(s.store), Partitions: l.engine.Log().Partitions(),
		Clients: s.clients, Payload: s.payload, Rate: s.rate, Instances: s.instances, ElapsedS: elapsed,
		InstancesPerSecond: n / elapsed, TransitionsPerSecond: 2 * float64(s.tasks) * n / elapsed,
		CPUS: cpu, PeakRSSMB: peakRSS(), Fsync: scheme(s.log) == "file",
	}
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(int(q*n), s.instances-1)].Microseconds()) / 1000
	}
	r.LatencyMS = latency{P50: at(0.5), P99: at(0.99), Max: at(1)}
	events, bytes, err := l.written(ctx, before)
	if err != nil {
		return nil, err
	}
	r.EventsPerInstance, r.LogBytesPerInstance = float64(events)/n, float64(bytes)/n
	return r, nil
}

func scheme(url string) string {
	name, _, _ := strings.Cut(url, ":")
	return name
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

func (l *load) ends(ctx context.Context) ([]eventlog.Partition, error) {
	t, err := l.engine.Log().Topic(ctx, eventlog.EventsTopic(l.engine.Log().App()))
	if err != nil {
		return nil, fmt.Errorf("describe the events topic: %w", err)
	}
	return t.Partitions, nil
}

// written counts the events that were appended since, and their bytes.
func (l *load) written(ctx context.Context, since []eventlog.Partition) (events, bytes int64, err error) {
	now, err := l.ends(ctx)
	if err != nil {
		return 0, 0, err
	}
	log := l.engine.Log()
	for p := range now {
		if now[p].End == since[p].End {
			continue
		}
		r, err := log.Read(ctx, eventlog.EventsTopic(log.App()), int32(p), since[p].End, "", eventlog.ReadCommitted)
		if err != nil {
			return 0, 0, fmt.Errorf("read events: %w", err)
		}
		for at := since[p].End; at < now[p].End; {
			var records []eventlog.Record
			if records, at, err = r.Next(ctx); err != nil {
				return 0, 0, errors.Join(fmt.Errorf("read events: %w", err), r.Close())
			}
			for _, rec := range records {
				events++
				bytes += int64(len(rec.Value))
				for _, h := range rec.Headers {
					bytes += int64(len(h.Key) + len(h.Value))
				}
			}
		}
		if err := r.Close(); err != nil {
			return 0, 0, err
		}
	}
	return events, bytes, nil
}

// bar shows how far the load is, at a terminal.
func bar(stderr io.Writer, n int, done *atomic.Int64) (stop func()) {
	f, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	b := progressbar.NewOptions(n, progressbar.OptionSetWriter(stderr), progressbar.OptionShowIts(), progressbar.OptionSetItsString("instances"),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true))
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { // waited for by stop
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = b.Set64(done.Load())
			case <-end:
				_ = b.Clear()
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}
