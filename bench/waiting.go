package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

const waitingRounds = 3

// withWaiting measures throughput, lets many instances wait, and measures it again: what do
// they cost.
func withWaiting(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	l := newLoad(s)
	byMessage := listener(func(Message) {})
	byTime := workflow.New("BenchTimer", workflow.Process("Work", workflow.At("due", waitsUntil, func(context.Context, *Due) error { return nil })))
	subscribed := newTally(eventlog.SubscriptionAdded, "", s.waiting)
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{Observer: workflow.Observer{Event: subscribed.event}}, l.def, byMessage, byTime); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warmUp(ctx); err != nil {
		return nil, err
	}
	r := &waitingResult{setup: s.setup("waiting for a "+s.waitFor, l.host), Waiting: s.waiting, Instances: s.instances}
	rounds := func(name string) (perSecond []float64, cpu float64, err error) {
		n := max(1, s.instances/waitingRounds)
		c := cpuSeconds()
		for k := range waitingRounds {
			var done atomic.Int64
			start := time.Now()
			if _, err := l.run(ctx, name+strconv.Itoa(k)+"-", n, s.rate, &done); err != nil {
				return nil, 0, err
			}
			if err := l.projected(ctx); err != nil {
				return nil, 0, err
			}
			perSecond = append(perSecond, float64(n)/time.Since(start).Seconds())
		}
		return perSecond, (cpuSeconds() - c) / float64(n*waitingRounds) * 1e6, nil
	}
	var perSecond []float64
	if perSecond, r.BeforeCPUUS, err = rounds("b"); err != nil {
		return nil, err
	}
	r.Before, r.MemoryBefore = median(perSecond), settled()
	store, log := storeBytes(s.store), dirBytes(s.log)

	start := time.Now()
	if err := s.each(ctx, s.waiting, func(ctx context.Context, k int) (err error) {
		id := l.prefix + "x" + strconv.Itoa(k)
		if s.waitFor == "time" {
			_, err = byTime.Start(ctx, l.engine, id, Due{K: k, At: time.Now().Add(365 * 24 * time.Hour).UnixMilli()})
		} else {
			_, err = byMessage.Start(ctx, l.engine, id, Waiter{Key: l.prefix + "key-" + strconv.Itoa(k)})
		}
		return err
	}); err != nil {
		return nil, err
	}
	if s.waitFor == "message" {
		if err := subscribed.wait(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.projected(ctx); err != nil {
		return nil, err
	}
	r.WaitersPerSecond = float64(s.waiting) / time.Since(start).Seconds()
	r.MemoryWaitingBusy = memoryNow()
	if r.ListBusyMS, err = pages(ctx, l.engine, workflow.Filter{Status: workflow.Executing}, s.waiting); err != nil {
		return nil, err
	}
	r.MemoryWaiting = settled()
	r.StoreBytes, r.LogBytes = float64(storeBytes(s.store)-store)/float64(s.waiting), float64(dirBytes(s.log)-log)/float64(s.waiting)
	r.HeapBytes = (r.MemoryWaiting.Heap - r.MemoryBefore.Heap) * 1e6 / float64(s.waiting)
	r.RSSBytes = (r.MemoryWaiting.RSS - r.MemoryBefore.RSS) * 1e6 / float64(s.waiting)
	waits := byMessage.Name()
	if s.waitFor == "time" {
		waits = byTime.Name()
	}
	if r.ListMS, err = lists(ctx, l.engine, waits, l.prefix+"x1", s.waiting); err != nil {
		return nil, err
	}
	if s.memProfile != "" {
		if err := heapProfile(s.memProfile); err != nil {
			return nil, err
		}
	}
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	perSecond, r.AfterCPUUS, err = rounds("a")
	if err := errors.Join(err, endProfile()); err != nil {
		return nil, err
	}
	r.After, r.MemoryAfter = median(perSecond), memoryNow()
	r.Change, r.PeakRSSMB = r.After/r.Before-1, peakRSS()
	return r, nil
}

func median(l []float64) float64 {
	l = slices.Sorted(slices.Values(l))
	return l[len(l)/2]
}

// waitingResult is what withWaiting measured.
type waitingResult struct {
	setup
	Waiting           int     `json:"waiting"`
	WaitersPerSecond  float64 `json:"waiters_per_second"` // started, subscribed and in the store
	Instances         int     `json:"instances"`          // before, and again after
	Before            float64 `json:"before_per_second"`  // instances, median of the rounds, until the store has them
	After             float64 `json:"after_per_second"`   // with the others waiting
	Change            float64 `json:"change"`
	BeforeCPUUS       float64 `json:"before_cpu_us"` // an instance
	AfterCPUUS        float64 `json:"after_cpu_us"`
	MemoryBefore      memory  `json:"memory_before"`       // after a garbage collection
	MemoryWaitingBusy memory  `json:"memory_waiting_busy"` // when the last one was in the store
	MemoryWaiting     memory  `json:"memory_waiting"`      // after a garbage collection
	MemoryAfter       memory  `json:"memory_after"`        // at the end of the load
	PeakRSSMB         float64 `json:"peak_rss_mb"`
	HeapBytes         float64 `json:"heap_bytes_per_waiting"`
	RSSBytes          float64 `json:"rss_bytes_per_waiting"`
	StoreBytes        float64 `json:"store_bytes_per_waiting"` // of files, or of the server's memory; 0 where it is not known
	LogBytes          float64 `json:"log_bytes_per_waiting"`   // of the files
	ListBusyMS        latency `json:"list_page_busy_ms"`       // of all that run, from when the last one was in the store
	ListMS            listed  `json:"list_page_ms"`            // after a garbage collection
}

func (r *waitingResult) text(w io.Writer) error {
	m := func(m memory) string {
		return fmt.Sprintf("RSS %.0f MB (Go %.0f MB, live heap %.0f MB)", m.RSS, m.Go, m.Heap)
	}
	_, err := fmt.Fprintf(w, `waiting            %d, started at %.0f/s
before             %.0f instances/s, %.0f us of CPU an instance
with them          %.0f instances/s (%+.1f %%), %.0f us of CPU an instance
memory before      %s
memory, waiting    %s; settled %s
memory at the end  %s; peak %.0f MB
each waiting       %.0f bytes of heap, %.0f of RSS, %.0f in the store, %.0f in the log
a page of a list   of all that run, just after the load %v
                   of all that run, settled %v
                   of all %v
                   of a definition and status %v
                   of an id prefix %v
`, r.Waiting, r.WaitersPerSecond, r.Before, r.BeforeCPUUS, r.After, 100*r.Change, r.AfterCPUUS, m(r.MemoryBefore), m(r.MemoryWaitingBusy), m(r.MemoryWaiting), m(r.MemoryAfter), r.PeakRSSMB,
		r.HeapBytes, r.RSSBytes, r.StoreBytes, r.LogBytes, r.ListBusyMS, r.ListMS.Status, r.ListMS.All, r.ListMS.Definition, r.ListMS.Prefix)
	return err
}
