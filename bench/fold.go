package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// fold measures how fast the events of instances that have ended become a store again, and how
// fast the two are compared; each with one partition after the other, and the rebuild with as
// many at once as there are processors, too.
func fold(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	l := newLoad(s)
	log, err := eventlog.Open(ctx, s.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{OpenedLog: log}, l.def); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	var done atomic.Int64
	stopBar := bar(stderr, s.instances, &done)
	_, err = l.run(ctx, "", s.instances, s.rate, &done)
	stopBar()
	if err != nil {
		return nil, err
	}
	if err := l.projected(ctx); err != nil {
		return nil, err
	}
	r := &foldResult{setup: s.setup("fold", l.host), Instances: s.instances}
	if err := l.close(); err != nil {
		return nil, err
	}
	store, err := projection.Open(ctx, s.store, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	err = r.measure(ctx, log, store)
	return r, errors.Join(err, endProfile())
}

func (r *foldResult) measure(ctx context.Context, log eventlog.Log, store projection.Store) (err error) {
	rebuild := func(parallel int) (folded, error) {
		return pace(func() (events int64, err error) {
			parts, err := engine.Rebuild(ctx, log, store, engine.RebuildOptions{Parallel: parallel})
			for _, p := range parts {
				events += p.Events
			}
			return events, err
		})
	}
	if r.Rebuild, err = rebuild(1); err != nil {
		return err
	}
	if r.RebuildAll, err = rebuild(runtime.GOMAXPROCS(0)); err != nil {
		return err
	}
	r.Verify, err = pace(func() (int64, error) {
		v, err := engine.Verify(ctx, log, store, nil)
		if err == nil && v.Differences > 0 {
			err = fmt.Errorf("the store is not what the log says: %v", v.First)
		}
		r.Events = v.Events
		return v.Events, err
	})
	return err
}

// pace measures something that folds events.
func pace(do func() (int64, error)) (folded, error) {
	runtime.GC()
	start, cpu := time.Now(), cpuSeconds()
	events, err := do()
	return folded{PerSecond: float64(events) / time.Since(start).Seconds(), PerCPUSecond: float64(events) / max(1e-9, cpuSeconds()-cpu)}, err
}

// folded is how many events a second.
type folded struct {
	PerSecond    float64 `json:"events_per_second"`
	PerCPUSecond float64 `json:"events_per_cpu_second"` // of this process
}

// foldResult is what fold measured.
type foldResult struct {
	setup
	Instances  int    `json:"instances"`
	Events     int64  `json:"events"`
	Rebuild    folded `json:"rebuild"`
	RebuildAll folded `json:"rebuild_all"` // as many partitions at once as there are processors
	Verify     folded `json:"verify"`
}

func (r *foldResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "folded             %d events of %d instances\n", r.Events, r.Instances)
	for _, x := range []struct {
		name string
		folded
	}{{"rebuild", r.Rebuild}, {fmt.Sprintf("rebuild, %d at once", r.CPUs), r.RebuildAll}, {"verify", r.Verify}} {
		if err == nil {
			_, err = fmt.Fprintf(w, "%-18s %.0f events/s, %.0f for each second of CPU\n", x.name, x.PerSecond, x.PerCPUSecond)
		}
	}
	return err
}
