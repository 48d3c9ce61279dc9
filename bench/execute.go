package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
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

// load is instances of tasks that do nothing.
type load struct {
	*host
	s      *settings
	def    *workflow.Definition[Params]
	params Params
}

func newLoad(s *settings) *load {
	return &load{s: s, def: workflow.New("Bench"+strconv.Itoa(s.tasks), workflow.Process("Work", nothings(s.tasks)...)),
		params: Params{OrderID: "4711", CustomerID: "7", Payload: strings.Repeat("x", s.payload)}}
}

// nothings are n tasks that do nothing.
func nothings(n int) (tasks []workflow.Node[Params]) {
	for k := range n {
		tasks = append(tasks, workflow.Execute("task"+strconv.Itoa(k+1), func(context.Context, *Params) error { return nil }))
	}
	return tasks
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
	err := l.s.each(ctx, 8*int(l.engine.Log().Partitions()), func(ctx context.Context, k int) error { return l.one(ctx, "w"+strconv.Itoa(k)) })
	if err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	return nil
}

// run lets n instances run and says how long each took. With a rate, an instance's latency
// counts from the time at which it was to be started: a late start is not forgiven.
func (l *load) run(ctx context.Context, ids string, n int, rate float64, done *atomic.Int64) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	start := time.Now()
	return took, l.s.each(ctx, n, func(ctx context.Context, k int) error {
		begin := time.Now()
		if rate > 0 {
			begin = start.Add(time.Duration(float64(k) / rate * 1e9))
			if err := until(ctx, begin); err != nil {
				return err
			}
		}
		if err := l.one(ctx, ids+strconv.Itoa(k)); err != nil {
			return err
		}
		took[k] = time.Since(begin)
		done.Add(1)
		return nil
	})
}

// execute measures the whole way of tasks that do nothing.
func execute(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	l := newLoad(s)
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{}, l.def); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warmUp(ctx); err != nil {
		return nil, err
	}
	before, err := l.ends(ctx)
	if err != nil {
		return nil, err
	}
	var done atomic.Int64
	stopBar := bar(stderr, s.instances, &done)
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	cpu, start := cpuSeconds(), time.Now()
	took, err := l.run(ctx, "", s.instances, s.rate, &done)
	elapsed := time.Since(start).Seconds()
	cpu = cpuSeconds() - cpu
	stopBar()
	if err := errors.Join(err, endProfile()); err != nil {
		return nil, err
	}
	if err := l.finish(); err != nil {
		return nil, err
	}
	n := float64(s.instances)
	r := &result{
		setup: s.setup(strconv.Itoa(s.tasks)+" x Execute", l.host), Payload: s.payload, Rate: s.rate, Instances: s.instances, ElapsedS: elapsed,
		InstancesPerSecond: n / elapsed, TransitionsPerSecond: 2 * float64(s.tasks) * n / elapsed, LatencyMS: distribution(took),
		CPUS: cpu, PeakRSSMB: peakRSS(),
	}
	events, bytes, err := l.written(ctx, before)
	if err != nil {
		return nil, err
	}
	r.EventsPerInstance, r.LogBytesPerInstance = float64(events)/n, float64(bytes)/n
	if s.payload > 0 {
		r.LogMBPerSecond = float64(bytes) / 1e6 / elapsed
		if r.RawLogMBPerSecond, err = l.raw(ctx, int(bytes/max(events, 1))); err != nil {
			return nil, err
		}
		r.LogShare = r.LogMBPerSecond / r.RawLogMBPerSecond
	}
	return r, nil
}

// result is what execute measured.
type result struct {
	setup
	Payload              int     `json:"payload"`
	Rate                 float64 `json:"rate"` // wanted; 0 = as fast as it goes
	Instances            int     `json:"instances"`
	ElapsedS             float64 `json:"elapsed_s"`
	InstancesPerSecond   float64 `json:"instances_per_second"`
	TransitionsPerSecond float64 `json:"transitions_per_second"` // status changes of tasks
	LatencyMS            latency `json:"latency_ms"`             // from start to completed
	CPUS                 float64 `json:"cpu_s"`                  // of this process, user and system
	PeakRSSMB            float64 `json:"peak_rss_mb"`
	LogBytesPerInstance  float64 `json:"log_bytes_per_instance"` // values and headers of its events
	EventsPerInstance    float64 `json:"events_per_instance"`
	LogMBPerSecond       float64 `json:"log_mb_per_second,omitempty"`     // with a payload: of events
	RawLogMBPerSecond    float64 `json:"raw_log_mb_per_second,omitempty"` // what the log takes when nothing else is done
	LogShare             float64 `json:"log_share,omitempty"`             // the one divided by the other
}

func (r *result) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, `instances          %d in %.2f s
throughput         %.0f instances/s, %.0f transitions/s
latency            %v
cost               %.2f CPU seconds (%.0f us an instance), peak %.0f MB
log                %.1f events and %.0f bytes an instance
`, r.Instances, r.ElapsedS, r.InstancesPerSecond, r.TransitionsPerSecond,
		r.LatencyMS, r.CPUS, r.CPUS/float64(r.Instances)*1e6, r.PeakRSSMB, r.EventsPerInstance, r.LogBytesPerInstance)
	if err == nil && r.Payload > 0 {
		_, err = fmt.Fprintf(w, "bytes              %.1f MB/s of events; the log alone takes %.1f MB/s (%.0f %%)\n", r.LogMBPerSecond, r.RawLogMBPerSecond, 100*r.LogShare)
	}
	return err
}

func (h *host) ends(ctx context.Context) ([]eventlog.Partition, error) {
	t, err := h.engine.Log().Topic(ctx, eventlog.EventsTopic(h.engine.Log().App()))
	if err != nil {
		return nil, fmt.Errorf("describe the events topic: %w", err)
	}
	return t.Partitions, nil
}

// written counts the events that were appended since, and their bytes.
func (h *host) written(ctx context.Context, since []eventlog.Partition) (events, bytes int64, err error) {
	now, err := h.ends(ctx)
	if err != nil {
		return 0, 0, err
	}
	log := h.engine.Log()
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

const (
	rawTime  = 3 * time.Second
	rawBatch = 256 << 10 // bytes of an append
)

// raw is how many MB of records of a size the log takes a second, durable, when nothing else
// is done: one writer for each partition appends to a topic that has as many.
func (h *host) raw(ctx context.Context, size int) (mbPerSecond float64, err error) {
	log := h.engine.Log()
	topic := log.App() + ".bench-raw"
	if err := log.EnsureTopic(ctx, topic, log.Partitions()); err != nil {
		return 0, fmt.Errorf("create a topic for the raw append: %w", err)
	}
	value := []byte(strings.Repeat("x", max(size, 1)))
	batch := max(1, rawBatch/len(value))
	var bytes atomic.Int64
	start := time.Now()
	err = together(ctx, int(log.Partitions()), func(ctx context.Context, next func() int) error {
		p := int32(next())
		for time.Since(start) < rawTime {
			records := make([]eventlog.Record, batch)
			for k := range records {
				records[k] = eventlog.Record{Topic: topic, Partition: p, Value: value}
			}
			if err := log.Publish(ctx, records...); err != nil {
				return fmt.Errorf("raw append: %w", err)
			}
			bytes.Add(int64(batch * len(value)))
		}
		return nil
	})
	return float64(bytes.Load()) / 1e6 / time.Since(start).Seconds(), err
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
