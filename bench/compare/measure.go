package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A system is something that does three durable tasks, one after the other.
type system struct {
	name  string
	needs string // variable of the environment without which it can't run
	open  func(ctx context.Context, s *settings) (*opened, error)
}

// opened is a system that is ready.
type opened struct {
	version    string
	storage    string
	durability string
	server     int // process that stores for it, with its children; 0 = none or unknown
	// one starts the instance of this id and waits until it has completed.
	one   func(ctx context.Context, id string) error
	close func() error
}

// measurement is one system in one round.
type measurement struct {
	Version            string  `json:"version"`
	Storage            string  `json:"storage"`
	Durability         string  `json:"durability"`
	Clients            int     `json:"clients"`
	Instances          int     `json:"instances"`
	ElapsedS           float64 `json:"elapsed_s"`
	InstancesPerSecond float64 `json:"instances_per_second"`
	P50MS              float64 `json:"p50_ms"` // from start to completed
	P99MS              float64 `json:"p99_ms"`
	CPUS               float64 `json:"cpu_s"` // of the process, and of the server that stores for it
	Load               float64 `json:"load"`  // of the machine in the minute before
}

// measureOne measures in this process the system that -one names.
func (s *settings) measureOne(ctx context.Context) (m measurement, err error) {
	y, err := find(s.one)
	if err != nil {
		return m, err
	}
	if !s.has(y.needs) {
		return m, fmt.Errorf("it needs %s", y.needs)
	}
	dir, err := os.MkdirTemp(s.dir, "compare-")
	if err != nil {
		return m, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	load := loadAverage()
	o, err := y.open(ctx, s)
	if err != nil {
		return m, fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, o.close()) }()
	m, err = s.measure(ctx, o)
	m.Version, m.Storage, m.Durability, m.Clients, m.Load = o.version, o.storage, o.durability, s.clients, load
	return m, err
}

// completion is an instance that completed.
type completion struct {
	at   time.Time
	took time.Duration
}

// measure lets the clients work through the warm-up and the measured part without a break.
// What completed in the measured part counts, whenever it was started.
func (s *settings) measure(ctx context.Context, o *opened) (m measurement, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var ended atomic.Bool
	done := make([][]completion, s.clients)
	var wg sync.WaitGroup
	for c := range s.clients {
		wg.Go(func() {
			for k := 0; !ended.Load() && ctx.Err() == nil; k++ {
				start := time.Now()
				if err := o.one(ctx, strconv.Itoa(c)+"-"+strconv.Itoa(k)); err != nil {
					cancel(fmt.Errorf("instance %d-%d: %w", c, k, err)) // the first one counts
					return
				}
				now := time.Now()
				done[c] = append(done[c], completion{now, now.Sub(start)})
			}
		})
	}
	sleep(ctx, s.warmUp)
	cpu, err := cpuSeconds(o.server)
	from := time.Now()
	sleep(ctx, s.duration)
	to := time.Now()
	after, afterErr := cpuSeconds(o.server)
	ended.Store(true)
	wg.Wait()
	if err := errors.Join(context.Cause(ctx), err, afterErr); err != nil {
		return m, err
	}
	var took []time.Duration
	for _, d := range done {
		for _, one := range d {
			if one.at.After(from) && !one.at.After(to) {
				took = append(took, one.took)
			}
		}
	}
	if len(took) == 0 {
		return m, errors.New("nothing completed in the measured time")
	}
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	m.Instances, m.ElapsedS, m.CPUS = len(took), to.Sub(from).Seconds(), after-cpu
	m.InstancesPerSecond = float64(m.Instances) / m.ElapsedS
	m.P50MS, m.P99MS = at(0.5), at(0.99)
	return m, nil
}

// sleep waits for a time or until the work has failed.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// moduleVersion is the version of a module that is linked into this program; of ours, the
// commit.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, d := range info.Deps {
		if d.Path == path && d.Replace == nil {
			return d.Version
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 10)]
		}
	}
	return "unknown"
}

func loadAverage() float64 {
	b, _ := os.ReadFile("/proc/loadavg") // not on every system; then it is 0
	first, _, _ := strings.Cut(string(b), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}
