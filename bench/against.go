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

	"github.com/godagger/dagger/workflow"
)

// againstRounds is how often each store has its turn.
const againstRounds = 5

// againstStore runs the same load on two stores, in turn and in one process, each with a log
// and an engine of its own: what else the machine does counts for both.
func againstStore(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	r := &againstResult{Against: scheme(s.against), Instances: s.instances, Rounds: againstRounds}
	var rivals [2]rival
	for k, store := range []string{s.store, s.against} {
		own := *s
		own.store = store
		if k > 0 {
			own.log = s.log2
		}
		x := &rivals[k]
		x.load = newLoad(&own)
		if x.host, err = openHost(ctx, &own, stderr, workflow.Config{Observer: workflow.Observer{Store: x.applies.add}}, x.def); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, x.close()) }()
		if err := x.warmUp(ctx); err != nil {
			return nil, err
		}
	}
	r.setup = s.setup(strconv.Itoa(s.tasks)+" x Execute", rivals[0].host)
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	for round := range againstRounds {
		for k := range rivals {
			if err := rivals[(k+round)%2].round(ctx, round); err != nil { // by turns the first
				return nil, errors.Join(err, endProfile())
			}
		}
	}
	if err := endProfile(); err != nil {
		return nil, err
	}
	var ratios []float64
	for round := range againstRounds {
		ratios = append(ratios, rivals[1].perSecond[round]/rivals[0].perSecond[round])
	}
	r.Ratio, r.PerSecond, r.AgainstPerSecond = median(ratios), median(rivals[0].perSecond), median(rivals[1].perSecond)
	r.CPUUS, r.AgainstCPUUS = rivals[0].cpuUS(), rivals[1].cpuUS()
	r.Applies, r.AgainstApplies = rivals[0].applies.distribution(), rivals[1].applies.distribution()
	return r, nil
}

// rival is one of the two stores.
type rival struct {
	*load
	applies   applies
	perSecond []float64
	cpu       float64
	n         int
}

// round runs a part of the load, until the store has it.
func (x *rival) round(ctx context.Context, round int) error {
	var done atomic.Int64
	n := max(1, x.s.instances/againstRounds)
	start, cpu := time.Now(), cpuSeconds()
	if _, err := x.run(ctx, "r"+strconv.Itoa(round)+"-", n, x.s.rate, &done); err != nil {
		return err
	}
	if err := x.projected(ctx); err != nil {
		return err
	}
	x.perSecond = append(x.perSecond, float64(n)/time.Since(start).Seconds())
	x.cpu += cpuSeconds() - cpu
	x.n += n
	return nil
}

func (x *rival) cpuUS() float64 { return x.cpu / float64(x.n) * 1e6 }

// applies are the writes of a store.
type applies struct {
	mu   sync.Mutex
	took []time.Duration
	rows int
}

func (a *applies) add(took time.Duration, rows int, err error) {
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.took = append(a.took, took)
	a.rows += rows
}

func (a *applies) distribution() stored {
	a.mu.Lock()
	defer a.mu.Unlock()
	return stored{Batches: len(a.took), Rows: float64(a.rows) / float64(max(1, len(a.took))), MS: distribution(a.took)}
}

// stored says how a store took what was written.
type stored struct {
	Batches int     `json:"batches"`
	Rows    float64 `json:"rows_per_batch"`
	MS      latency `json:"ms"`
}

// againstResult is what againstStore measured.
type againstResult struct {
	setup
	Against          string  `json:"against"`
	Instances        int     `json:"instances"`
	Rounds           int     `json:"rounds"`
	PerSecond        float64 `json:"instances_per_second"` // median of the rounds, until the store has them
	AgainstPerSecond float64 `json:"against_per_second"`
	Ratio            float64 `json:"ratio"`  // median of the rounds' own ratios
	CPUUS            float64 `json:"cpu_us"` // an instance, of this process: without a server's
	AgainstCPUUS     float64 `json:"against_cpu_us"`
	Applies          stored  `json:"applies"`
	AgainstApplies   stored  `json:"against_applies"`
}

func (r *againstResult) text(w io.Writer) error {
	line := func(store string, perSecond, cpu float64, a stored) error {
		_, err := fmt.Fprintf(w, "%-18s %.0f instances/s, %.0f us of CPU an instance here; batches of %.0f rows: %v\n", store, perSecond, cpu, a.Rows, a.MS)
		return err
	}
	err := errors.Join(line(r.Store, r.PerSecond, r.CPUUS, r.Applies), line(r.Against, r.AgainstPerSecond, r.AgainstCPUUS, r.AgainstApplies))
	_, err2 := fmt.Fprintf(w, "ratio              %.2f (median of %d rounds)\n", r.Ratio, r.Rounds)
	return errors.Join(err, err2)
}
