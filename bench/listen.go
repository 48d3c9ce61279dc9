package main

import (
	"context"
	"encoding/json"
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

// Waiter is an instance that waits for a message.
type Waiter struct {
	Key string `json:"key"`
}

// Message is what it waits for.
type Message struct {
	Key  string `json:"key"`
	K    int    `json:"k"`
	Sent int64  `json:"sent"` // or was to be sent; unix ns
}

const (
	listenTopic = "bench-messages"
	publishers  = 4
	publishSize = 500 // messages that a publisher hands in at once
)

// listener waits for one message; got is told of it.
func listener(got func(Message)) *workflow.Definition[Waiter] {
	return workflow.New("BenchListen", workflow.Process("Work",
		workflow.Listen("message", listenTopic,
			workflow.By("key", func(p *Waiter) string { return p.Key }, func(m *Message) string { return m.Key }),
			func(_ context.Context, _ *Waiter, m Message) (bool, error) { got(m); return true, nil })))
}

// listen measures messages that find the instances that wait for them: from the topic through
// the relay and the key's owner to the instance, until that has completed.
func listen(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	n := s.instances
	if s.fan > 0 {
		n = s.fan
	}
	took := make([]atomic.Int64, n)
	def := listener(func(m Message) {
		if s.fan == 0 {
			took[m.K].Store(time.Now().UnixNano() - m.Sent)
		}
	})
	subscribed, completed := newTally(eventlog.SubscriptionAdded, "", n), newTally(eventlog.InstanceCompleted, def.Name(), n)
	h, err := openHost(ctx, s, stderr, workflow.Config{Observer: workflow.Observer{Event: func(typ eventlog.Type, definition string) {
		subscribed.event(typ, definition)
		completed.event(typ, definition)
	}}}, def)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	log := h.engine.Log()
	if err := h.ready(ctx); err != nil {
		return nil, err
	}
	key := func(k int) string {
		switch {
		case s.fan > 0:
			return h.prefix + "all"
		case s.local:
			return h.prefix + strconv.Itoa(k)
		}
		return h.prefix + "key-" + strconv.Itoa(k)
	}
	start := time.Now()
	if err := s.each(ctx, n, func(ctx context.Context, k int) error {
		_, err := def.Start(ctx, h.engine, h.prefix+strconv.Itoa(k), Waiter{Key: key(k)})
		return err
	}); err != nil {
		return nil, err
	}
	if err := subscribed.wait(ctx); err != nil {
		return nil, err
	}
	if err := h.projected(ctx); err != nil {
		return nil, err
	}
	r := &listenResult{setup: s.setup("listen", h), Instances: n, Fan: s.fan, Local: s.local, Rate: s.rate, WaitersPerSecond: float64(n) / time.Since(start).Seconds()}

	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	cpu := cpuSeconds()
	start = time.Now()
	messages := n
	if s.fan > 0 {
		messages = 1
	}
	err = publish(ctx, log, messages, s.rate, start, key)
	r.PublishedS = time.Since(start).Seconds()
	if err == nil {
		err = completed.wait(ctx)
	}
	r.ElapsedS = time.Since(start).Seconds()
	r.CPUS, r.PeakRSSMB = cpuSeconds()-cpu, peakRSS()
	if err := errors.Join(err, endProfile()); err != nil {
		return nil, err
	}
	r.MatchedPerSecond = float64(n) / r.ElapsedS
	if s.fan == 0 {
		l := make([]time.Duration, n)
		for k := range took {
			l[k] = time.Duration(took[k].Load())
		}
		d := distribution(l)
		r.LatencyMS = &d
	}
	return r, nil
}

// publish sends n messages, at a rate or as fast as the log takes them.
func publish(ctx context.Context, log eventlog.Log, n int, rate float64, start time.Time, key func(int) string) error {
	size := publishSize
	if rate > 0 {
		size = max(1, int(rate/publishers/200)) // every 5 ms or so
	}
	var mu sync.Mutex
	from := 0
	take := func() (a, b int) {
		mu.Lock()
		defer mu.Unlock()
		a, b = from, min(from+size, n)
		from = b
		return a, b
	}
	return together(ctx, publishers, func(ctx context.Context, _ func() int) error {
		for {
			a, b := take()
			if a == b {
				return nil
			}
			at := time.Now()
			if rate > 0 {
				at = start.Add(time.Duration(float64(a) / rate * 1e9))
				if err := until(ctx, at); err != nil {
					return err
				}
			}
			records := make([]eventlog.Record, 0, b-a)
			for k := a; k < b; k++ {
				value, err := json.Marshal(Message{Key: key(k), K: k, Sent: at.UnixNano()})
				if err != nil {
					return err
				}
				records = append(records, eventlog.Record{Topic: listenTopic, Partition: -1, Key: []byte(key(k)), Value: value})
			}
			if err := log.Publish(ctx, records...); err != nil {
				return fmt.Errorf("publish messages: %w", err)
			}
		}
	})
}

// listenResult is what listen measured.
type listenResult struct {
	setup
	Instances        int      `json:"instances"`
	Fan              int      `json:"fan,omitempty"` // one message for so many
	Local            bool     `json:"local"`         // no hop between partitions
	Rate             float64  `json:"rate"`
	WaitersPerSecond float64  `json:"waiters_per_second"` // started, subscribed and in the store
	PublishedS       float64  `json:"published_s"`        // until the log had the messages
	ElapsedS         float64  `json:"elapsed_s"`          // from the first message until all instances had completed
	MatchedPerSecond float64  `json:"matched_per_second"`
	LatencyMS        *latency `json:"latency_ms,omitempty"` // from publishing to the handler
	CPUS             float64  `json:"cpu_s"`
	PeakRSSMB        float64  `json:"peak_rss_mb"`
}

func (r *listenResult) text(w io.Writer) error {
	what := fmt.Sprintf("%d messages", r.Instances)
	if r.Fan > 0 {
		what = fmt.Sprintf("1 message for %d instances", r.Fan)
	}
	_, err := fmt.Fprintf(w, `waiting            %d instances, started and subscribed at %.0f/s
matched            %s in %.2f s: %.0f/s (published after %.2f s)
cost               %.2f CPU seconds (%.0f us an instance), peak %.0f MB
`, r.Instances, r.WaitersPerSecond, what, r.ElapsedS, r.MatchedPerSecond, r.PublishedS, r.CPUS, r.CPUS/float64(r.Instances)*1e6, r.PeakRSSMB)
	if err == nil && r.LatencyMS != nil {
		_, err = fmt.Fprintf(w, "latency            %v from publishing to the handler\n", r.LatencyMS)
	}
	return err
}
