package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/workflow"
)

// steady runs a load for a time and looks at it in regular intervals: does anything grow.
func steady(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	if s.rate == 0 {
		s.rate = 1000
	}
	l := newLoad(s)
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{}, l.def); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warmUp(ctx); err != nil {
		return nil, err
	}
	r := &steadyResult{setup: s.setup(strconv.Itoa(s.tasks)+" x Execute", l.host), Rate: s.rate, DurationS: s.duration.Seconds()}
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var took []time.Duration
	n := int(s.rate * s.duration.Seconds())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	ended := make(chan error, 1)
	var done atomic.Int64
	stopBar := bar(stderr, n, &done)
	go func() { // waited for below
		ended <- s.each(ctx, n, func(ctx context.Context, k int) error {
			begin := start.Add(time.Duration(float64(k) / s.rate * 1e9))
			if err := until(ctx, begin); err != nil {
				return err
			}
			if err := l.one(ctx, strconv.Itoa(k)); err != nil {
				return err
			}
			done.Add(1)
			mu.Lock()
			took = append(took, time.Since(begin))
			mu.Unlock()
			return nil
		})
	}()
	last, cpu := start, cpuSeconds()
	look := func() {
		mu.Lock()
		these := took
		took = nil
		mu.Unlock()
		now, c := time.Now(), cpuSeconds()
		r.Samples = append(r.Samples, sample{
			AtS: now.Sub(start).Seconds(), Instances: len(these), PerSecond: float64(len(these)) / now.Sub(last).Seconds(), LatencyMS: distribution(these),
			CPU: (c - cpu) / now.Sub(last).Seconds(), Goroutines: runtime.NumGoroutine(), memory: memoryNow(),
			StoreMB: float64(dirBytes(s.store)) / 1e6, LogMB: float64(dirBytes(s.log)) / 1e6,
		})
		last, cpu = now, c
	}
	tick := time.NewTicker(s.sample)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			look()
		case err := <-ended:
			if running = false; err != nil {
				stopBar()
				return nil, errors.Join(err, endProfile())
			}
		}
	}
	if time.Since(last) > s.sample/2 {
		look()
	}
	stopBar()
	r.judge()
	return r, endProfile()
}

// sample is one look.
type sample struct {
	AtS        float64 `json:"at_s"`
	Instances  int     `json:"instances"`
	PerSecond  float64 `json:"instances_per_second"`
	LatencyMS  latency `json:"latency_ms"`
	CPU        float64 `json:"cpu"` // cores
	Goroutines int     `json:"goroutines"`
	memory
	StoreMB float64 `json:"store_mb"`
	LogMB   float64 `json:"log_mb"`
}

// steadyResult is what steady measured.
type steadyResult struct {
	setup
	Rate      float64  `json:"rate"`
	DurationS float64  `json:"duration_s"`
	Samples   []sample `json:"samples"`
	Growth    []growth `json:"growth"`
	Grew      []string `json:"grew"` // what did
}

// growth compares the medians of the second and the last third of the samples: in the first
// third caches fill.
type growth struct {
	Of     string  `json:"of"`
	Middle float64 `json:"middle"`
	Last   float64 `json:"last"`
	Limit  float64 `json:"limit"` // above it, it has grown
}

func (r *steadyResult) judge() {
	r.Grew = []string{}
	third := len(r.Samples) / 3
	if third == 0 {
		return
	}
	for _, x := range []struct {
		name         string
		of           func(sample) float64
		factor, more float64
	}{
		{"RSS, MB", func(s sample) float64 { return s.RSS }, 1.1, 20},
		{"live heap, MB", func(s sample) float64 { return s.Heap }, 1.1, 10},
		{"goroutines", func(s sample) float64 { return float64(s.Goroutines) }, 1.1, 20},
		{"latency p50, ms", func(s sample) float64 { return s.LatencyMS.P50 }, 1.25, 1},
		{"latency p99, ms", func(s sample) float64 { return s.LatencyMS.P99 }, 1.5, 5},
		{"CPU, cores", func(s sample) float64 { return s.CPU }, 1.15, 0.02},
	} {
		of := func(l []sample) float64 {
			var v []float64
			for _, s := range l {
				v = append(v, x.of(s))
			}
			return median(v)
		}
		n := len(r.Samples)
		g := growth{Of: x.name, Middle: of(r.Samples[third : n-third]), Last: of(r.Samples[n-third:])}
		if g.Limit = g.Middle*x.factor + x.more; g.Last > g.Limit {
			r.Grew = append(r.Grew, x.name)
		}
		r.Growth = append(r.Growth, g)
	}
}

func (r *steadyResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "steady             %.0f instances/s for %.0f s\n\n     at  inst/s   p50 ms   p99 ms   max ms  cores  RSS MB  live MB  Go MB  gorout.  store MB  log MB\n", r.Rate, r.DurationS)
	for _, s := range r.Samples {
		if err == nil {
			_, err = fmt.Fprintf(w, "%6.0fs %7.0f %8.2f %8.2f %8.2f %6.2f %7.0f %8.0f %6.0f %8d %9.0f %7.0f\n", s.AtS, s.PerSecond, s.LatencyMS.P50, s.LatencyMS.P99, s.LatencyMS.Max,
				s.CPU, s.RSS, s.Heap, s.Go, s.Goroutines, s.StoreMB, s.LogMB)
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	for _, g := range r.Growth {
		verdict := "steady"
		if g.Last > g.Limit {
			verdict = "GREW"
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "%-18s %-7s median of the second third %.2f, of the last %.2f (limit %.2f)\n", g.Of, verdict, g.Middle, g.Last, g.Limit)
		}
	}
	if err == nil && len(r.Growth) == 0 {
		_, err = fmt.Fprintln(w, "too few samples for a verdict: at least three are needed")
	}
	return err
}
