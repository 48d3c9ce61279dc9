package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// Due is an instance that waits for a time.
type Due struct {
	K  int   `json:"k"`
	At int64 `json:"at"` // unix ms
}

func waitsUntil(p *Due) time.Time { return time.UnixMilli(p.At) }

const (
	steadyTimers = 10 * time.Second
	timerLead    = 3 * time.Second // between start and time of a timer at a steady rate
	slowStarts   = 3000            // a second: how long the start of many timers may take
	startRate    = 200             // a second, while the many timers fire
)

// timer measures how late timers are: at a steady rate, and many that are due at once, while
// new instances are started.
func timer(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	rate := s.rate
	if rate == 0 {
		rate = 500
	}
	if s.duration == 0 {
		s.duration = steadyTimers
	}
	few := max(1, int(rate*s.duration.Seconds()))
	late := make([]atomic.Int64, max(few, s.timers)) // ns + 1
	def := workflow.New("BenchTimer", workflow.Process("Work", workflow.At("due", waitsUntil, func(_ context.Context, p *Due) error {
		late[p.K].Store(int64(time.Since(time.UnixMilli(p.At))) + 1)
		return nil
	})))
	plain := workflow.New("BenchStart", workflow.Process("Work", nothings(1)...))
	var fired atomic.Pointer[tally]
	h, err := openHost(ctx, s, stderr, workflow.Config{Observer: workflow.Observer{Event: func(typ eventlog.Type, definition string) {
		if t := fired.Load(); t != nil {
			t.event(typ, definition)
		}
	}}}, def, plain)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.ready(ctx); err != nil {
		return nil, err
	}
	r := &timerResult{setup: s.setup("timer", h), Rate: rate, Timers: s.timers}

	// At a steady rate.
	completed := newTally(eventlog.InstanceCompleted, def.Name(), few)
	fired.Store(completed)
	begin := time.Now()
	cpu := cpuSeconds()
	if err := s.each(ctx, few, func(ctx context.Context, k int) error {
		at := begin.Add(time.Duration(float64(k) / rate * 1e9))
		if err := until(ctx, at); err != nil {
			return err
		}
		_, err := def.Start(ctx, h.engine, h.prefix+"s"+strconv.Itoa(k), Due{K: k, At: at.Add(timerLead).UnixMilli()})
		return err
	}); err != nil {
		return nil, err
	}
	if err := completed.wait(ctx); err != nil {
		return nil, err
	}
	r.SteadyCPUS = cpuSeconds() - cpu
	r.SteadyLateMS = lateness(late[:few])
	if s.timers == 0 {
		return r, nil
	}

	// Many at once.
	for k := range late {
		late[k].Store(0)
	}
	completed = newTally(eventlog.InstanceCompleted, def.Name(), s.timers)
	fired.Store(completed)
	start := time.Now()
	due := start.Add(2*time.Second + time.Duration(float64(s.timers)/slowStarts*1e9)).Truncate(time.Millisecond)
	if err := s.each(ctx, s.timers, func(ctx context.Context, k int) error {
		_, err := def.Start(ctx, h.engine, h.prefix+"m"+strconv.Itoa(k), Due{K: k, At: due.UnixMilli()})
		return err
	}); err != nil {
		return nil, err
	}
	r.StartedS = time.Since(start).Seconds()
	if time.Now().After(due) {
		return nil, fmt.Errorf("%d timers could not be started before they were due, %.0f s: give fewer -timers", s.timers, r.StartedS)
	}
	if err := until(ctx, due); err != nil {
		return nil, err
	}
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	cpu = cpuSeconds()
	answered, err := startsMeanwhile(ctx, h, plain, completed.all)
	r.CompletedS, r.CPUS, r.PeakRSSMB = time.Since(due).Seconds(), cpuSeconds()-cpu, peakRSS()
	if err := errors.Join(err, endProfile()); err != nil {
		return nil, err
	}
	r.LateMS = lateness(late[:s.timers])
	r.FiredS = r.LateMS.Max / 1000
	r.Starts, r.StartMS = len(answered), distribution(answered)
	return r, nil
}

func lateness(late []atomic.Int64) latency {
	l := make([]time.Duration, 0, len(late))
	for k := range late {
		l = append(l, time.Duration(late[k].Load()-1))
	}
	return distribution(l)
}

// startsMeanwhile starts instances at a rate until all is closed, and says how long each
// start took, from the time at which it was to be made.
func startsMeanwhile(ctx context.Context, h *host, def *workflow.Definition[Params], all <-chan struct{}) (took []time.Duration, err error) {
	var mu sync.Mutex
	start := time.Now()
	err = together(ctx, startRate, func(ctx context.Context, next func() int) error {
		for {
			k := next()
			at := start.Add(time.Duration(k) * time.Second / startRate)
			select {
			case <-all:
				return nil
			case <-time.After(time.Until(at)):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if _, err := def.Start(ctx, h.engine, h.prefix+"n"+strconv.Itoa(k), Params{OrderID: "4711"}); err != nil {
				return fmt.Errorf("start while timers fire: %w", err)
			}
			mu.Lock()
			took = append(took, time.Since(at))
			mu.Unlock()
		}
	})
	return took, err
}

// timerResult is what timer measured.
type timerResult struct {
	setup
	Rate         float64 `json:"rate"` // timers a second at the steady rate
	SteadyLateMS latency `json:"steady_late_ms"`
	SteadyCPUS   float64 `json:"steady_cpu_s"`
	Timers       int     `json:"timers"`      // due at once
	StartedS     float64 `json:"started_s"`   // what their start took
	FiredS       float64 `json:"fired_s"`     // from their time until the last handler ran
	CompletedS   float64 `json:"completed_s"` // until the last instance had completed
	LateMS       latency `json:"late_ms"`
	Starts       int     `json:"starts"`   // made meanwhile
	StartMS      latency `json:"start_ms"` // until they were answered
	CPUS         float64 `json:"cpu_s"`
	PeakRSSMB    float64 `json:"peak_rss_mb"`
}

func (r *timerResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "at %.0f a second    late %v; %.2f CPU seconds\n", r.Rate, r.SteadyLateMS, r.SteadyCPUS)
	if err != nil || r.Timers == 0 {
		return err
	}
	_, err = fmt.Fprintf(w, `due at once        %d, started in %.1f s
fired              after %.2f s, all completed after %.2f s; late %v
starts meanwhile   %d, answered in %v
cost               %.2f CPU seconds, peak %.0f MB
`, r.Timers, r.StartedS, r.FiredS, r.CompletedS, r.LateMS, r.Starts, r.StartMS, r.CPUS, r.PeakRSSMB)
	return err
}
