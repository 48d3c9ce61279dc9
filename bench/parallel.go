package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/godagger/dagger/workflow"
)

const parallelRounds = 5

// parallel compares n tasks in branches of a Parallel with the same n tasks in a row: CPU time
// of the process, round by round.
func parallel(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	defs := [2]*workflow.Definition[Params]{
		workflow.New("BenchSequence", workflow.Process("Work", nothings(s.tasks)...)),
		workflow.New("BenchParallel", workflow.Parallel("Work", workflow.All, nothings(s.tasks)...)),
	}
	l := &load{s: s, def: defs[0], params: Params{OrderID: "4711", CustomerID: "7"}}
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{}, defs[0], defs[1]); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	r := &parallelResult{setup: s.setup("parallel", l.host), Tasks: s.tasks, Instances: s.instances}
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	sides := [2]*side{&r.Sequence, &r.Parallel}
	n := max(1, s.instances/parallelRounds)
	for round := range parallelRounds + 1 { // the first one warms up
		count := n
		if round == 0 {
			count = max(1, n/4)
		}
		for k, def := range defs {
			l.def = def
			cpu, start := cpuSeconds(), time.Now()
			if err := s.each(ctx, count, func(ctx context.Context, i int) error {
				return l.one(ctx, fmt.Sprintf("%d-%d-%s", round, k, strconv.Itoa(i)))
			}); err != nil {
				return nil, errors.Join(err, endProfile())
			}
			if err := l.projected(ctx); err != nil { // its cost is this side's
				return nil, errors.Join(err, endProfile())
			}
			if round > 0 {
				sides[k].n += count
				sides[k].CPUS += cpuSeconds() - cpu
				sides[k].ElapsedS += time.Since(start).Seconds()
			}
		}
	}
	for _, x := range sides {
		x.CPUMSPerInstance = x.CPUS / float64(x.n) * 1000
		x.InstancesPerSecond = float64(x.n) / x.ElapsedS
	}
	r.CPURatio = r.Parallel.CPUMSPerInstance / r.Sequence.CPUMSPerInstance
	r.PeakRSSMB = peakRSS()
	return r, endProfile()
}

// parallelResult is what parallel measured.
type parallelResult struct {
	setup
	Tasks     int     `json:"tasks"`
	Instances int     `json:"instances"` // of each
	Sequence  side    `json:"sequence"`
	Parallel  side    `json:"parallel"`
	CPURatio  float64 `json:"cpu_ratio"` // parallel divided by sequence
	PeakRSSMB float64 `json:"peak_rss_mb"`
}

type side struct {
	n                  int
	ElapsedS           float64 `json:"elapsed_s"`
	CPUS               float64 `json:"cpu_s"`
	InstancesPerSecond float64 `json:"instances_per_second"`
	CPUMSPerInstance   float64 `json:"cpu_ms_per_instance"`
}

func (r *parallelResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, `sequence           %.2f ms of CPU an instance of %d tasks, %.0f instances/s
parallel           %.2f ms of CPU an instance of %d branches, %.0f instances/s
ratio              %.2f (peak %.0f MB)
`, r.Sequence.CPUMSPerInstance, r.Tasks, r.Sequence.InstancesPerSecond, r.Parallel.CPUMSPerInstance, r.Tasks, r.Parallel.InstancesPerSecond, r.CPURatio, r.PeakRSSMB)
	return err
}
