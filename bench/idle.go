package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/godagger/dagger/workflow"
)

const idleTime = 30 * time.Second

// idle measures what an engine without work costs.
func idle(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	if s.duration == 0 {
		s.duration = idleTime
	}
	l := newLoad(s)
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{}, l.def); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warmUp(ctx); err != nil {
		return nil, err
	}
	if err := l.projected(ctx); err != nil {
		return nil, err
	}
	if err := until(ctx, time.Now().Add(2*time.Second)); err != nil { // what the load left is done
		return nil, err
	}
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	cpu, start := cpuSeconds(), time.Now()
	if err := until(ctx, start.Add(s.duration)); err != nil {
		return nil, errors.Join(err, endProfile())
	}
	used, took := cpuSeconds()-cpu, time.Since(start).Seconds()
	return &idleResult{setup: s.setup("idle", l.host), DurationS: took, CPUPercent: 100 * used / took, memory: settled()}, endProfile()
}

// idleResult is what idle measured.
type idleResult struct {
	setup
	DurationS  float64 `json:"duration_s"`
	CPUPercent float64 `json:"cpu_percent"` // of a core
	memory
}

func (r *idleResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "idle               %.2f %% of a core for %.0f s; RSS %.0f MB (Go %.0f MB, live heap %.0f MB)\n", r.CPUPercent, r.DurationS, r.RSS, r.Go, r.Heap)
	return err
}
