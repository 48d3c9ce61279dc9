package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// takeOver measures how long a partition is without owner when another engine takes it: from
// the opening of the store until a start in it is answered; once with the store as the last
// owner left it, once with an empty one.
func takeOver(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	byMessage := listener(func(Message) {})
	def := newLoad(s).def
	log, err := eventlog.Open(ctx, s.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	subscribed := newTally(eventlog.SubscriptionAdded, "", s.instances)
	h, err := openHost(ctx, s, stderr, workflow.Config{OpenedLog: log, Observer: workflow.Observer{Event: subscribed.event}}, byMessage, def)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.ready(ctx); err != nil {
		return nil, err
	}
	r := &takeOverResult{setup: s.setup("takeover", h), Instances: s.instances}
	if err := s.each(ctx, s.instances, func(ctx context.Context, k int) error {
		_, err := byMessage.Start(ctx, h.engine, h.prefix+strconv.Itoa(k), Waiter{Key: h.prefix + "key-" + strconv.Itoa(k)})
		return err
	}); err != nil {
		return nil, err
	}
	if err := subscribed.wait(ctx); err != nil {
		return nil, err
	}
	for _, p := range h.engine.Partitions() {
		r.Events += int64(p.Event)
	}
	stop := time.Now()
	if err := h.close(); err != nil {
		return nil, err
	}
	r.HandedOverMS = ms(time.Since(stop))
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, endProfile()) }()
	if r.WithStoreMS, err = takeAgain(ctx, s, stderr, log, byMessage, def, "a"); err != nil {
		return nil, err
	}
	if other := beside(s.store); other != "" {
		fresh := *s
		fresh.store = other
		if r.EmptyStoreMS, err = takeAgain(ctx, &fresh, stderr, log, byMessage, def, "b"); err != nil {
			return nil, err
		}
		if scheme(other) == "redis" {
			if err := drop(ctx, log, other); err != nil {
				return nil, err
			}
		}
	}
	r.PeakRSSMB = peakRSS()
	return r, nil
}

// beside is the URL of an empty store beside another one; "" where none can be made.
func beside(store string) string {
	name, query, found := strings.Cut(store, "?")
	switch scheme(store) {
	case "mem":
		return store
	case "pebble":
		name += "-empty"
	case "redis":
		if query = strings.Replace(query, "prefix=", "prefix=empty-", 1); !strings.Contains(query, "prefix=") {
			return ""
		}
	default:
		return ""
	}
	if found {
		name += "?" + query
	}
	return name
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// takeAgain lets a new engine take all partitions and says when the first start in each was
// answered.
func takeAgain(ctx context.Context, s *settings, stderr io.Writer, log eventlog.Log, waits *workflow.Definition[Waiter], def *workflow.Definition[Params], ids string) (_ float64, err error) {
	start := time.Now()
	h, err := openHost(ctx, s, stderr, workflow.Config{OpenedLog: log}, waits, def)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.ready(ctx); err != nil {
		return 0, err
	}
	seen := map[int32]bool{}
	for k := 0; len(seen) < int(log.Partitions()); k++ {
		id := h.prefix + ids + strconv.Itoa(k)
		p := eventlog.PartitionOf(id, log.Partitions())
		if seen[p] {
			continue
		}
		seen[p] = true
		if _, err := def.Start(ctx, h.engine, id, Params{OrderID: "4711"}); err != nil {
			return 0, err
		}
	}
	return ms(time.Since(start)), nil
}

// takeOverResult is what takeOver measured.
type takeOverResult struct {
	setup
	Instances    int     `json:"instances"` // that wait, in all partitions together
	Events       int64   `json:"events"`
	HandedOverMS float64 `json:"handed_over_ms"` // until the last owner had let go
	WithStoreMS  float64 `json:"with_store_ms"`
	EmptyStoreMS float64 `json:"empty_store_ms,omitempty"` // 0 where no second store could be made
	PeakRSSMB    float64 `json:"peak_rss_mb"`
}

func (r *takeOverResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, `taken over         %d waiting instances, %d events; the last owner had let go after %.0f ms
with its store     %.0f ms until a start was answered
`, r.Instances, r.Events, r.HandedOverMS, r.WithStoreMS)
	if err == nil && r.EmptyStoreMS > 0 {
		_, err = fmt.Fprintf(w, "with an empty one  %.0f ms (%.0f events/s)\n", r.EmptyStoreMS, float64(r.Events)/(r.EmptyStoreMS/1000))
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "peak               %.0f MB\n", r.PeakRSSMB)
	}
	return err
}
