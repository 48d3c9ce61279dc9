package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

const (
	// foldedSecond is how many events a worker folds in a second at least.
	foldedSecond = 200_000
	// doctorTail is how far back from its end a partition's last event is looked for.
	doctorTail = 200
)

// store looks at the store: whether it is this log's, and how far it is behind. away is why
// it can't be reached.
func (x *examined) store(ctx context.Context, e *env) (away, err error) {
	if err := e.hasStore(); err != nil {
		x.add("store", eventlog.LevelUnknown, "store", err.Error(), "nothing, if no worker ran here: it folds the events from the beginning")
		return nil, nil
	}
	log, err := e.openLog(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	store, err := e.openStore(ctx, log, false)
	switch {
	case errors.Is(err, projection.ErrForeign):
		x.add("store", eventlog.LevelWrong, "store", err.Error(), "name the right store, or delete this one: the log has everything")
		return nil, nil
	case errors.Is(err, projection.ErrStateLost):
		x.add("store", eventlog.LevelWrong, "store", err.Error(), "daggerctl rebuild")
		return nil, nil
	case err != nil && ctx.Err() == nil:
		return err, nil
	case err != nil:
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	events, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return nil, fmt.Errorf("describe the events topic: %w", err)
	}
	var s storeState
	for p := range log.Partitions() {
		if err := x.partition(ctx, log, events, store, p, &s); err != nil {
			return nil, err
		}
	}
	x.sum(s, int(log.Partitions()))
	return nil, nil
}

// hasStore is nil unless the store's directory is missing.
func (e *env) hasStore() error {
	_, raw, err := e.urls()
	if err != nil {
		return err
	}
	return exists("store", "pebble:", raw)
}

// storeState is what all partitions together come to.
type storeState struct {
	behind, most uint64   // events, in all and of the partition that has most
	missing      []string // partitions with events that the store has nothing of
	wrong        int
}

// partition compares one partition's watermark with the log.
func (x *examined) partition(ctx context.Context, log eventlog.Log, events eventlog.Topic, store projection.Store, p int32, s *storeState) error {
	subject := "partition " + strconv.Itoa(int(p))
	wrong := func(text, do string) {
		s.wrong++
		x.add("store", eventlog.LevelWrong, subject, text, do)
	}
	const rebuild = "daggerctl rebuild; the log has everything"
	w, err := watermark(ctx, store, p)
	switch {
	case errors.Is(err, projection.ErrStateLost):
		wrong("damaged: "+err.Error(), rebuild)
		return nil
	case err != nil:
		return fmt.Errorf("read the store's watermark of partition %d: %w", p, err)
	}
	if w.N > 0 && w.LogID != events.ID {
		wrong(fmt.Sprintf("it was folded from another log (events topic %s, this one is %s)", w.LogID, events.ID), "name the right store, or "+rebuild)
		return nil
	}
	n, sum, err := lastEvent(ctx, log, events, p)
	if err != nil {
		return err
	}
	switch {
	case w.N > n:
		wrong(fmt.Sprintf("it stands at event %d, but the log ends with event %d: the log has lost events", w.N, n), "find out why before anything else writes to the log; then "+rebuild)
	case w.N == n && n > 0 && w.Sum != sum:
		wrong(fmt.Sprintf("event %d is not the one that it has folded: the log has another history", n), "find out why; then "+rebuild)
	case w.N == 0 && n > 0:
		s.missing = append(s.missing, strconv.Itoa(int(p)))
	default:
		s.behind += n - w.N
		s.most = max(s.most, n-w.N)
	}
	return nil
}

func watermark(ctx context.Context, store projection.Store, p int32) (w projection.Watermark, err error) {
	view, err := store.View(ctx, p)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	return view.Watermark(ctx)
}

// lastEvent is the number and the checksum of a partition's last event; 0 = it has none.
func lastEvent(ctx context.Context, log eventlog.Log, events eventlog.Topic, p int32) (n, sum uint64, err error) {
	part := events.Partitions[p]
	if part.Start >= part.End {
		return 0, 0, nil
	}
	err = follow(ctx, log, events, p, max(part.Start, part.End-doctorTail), part.End, func(r *eventlog.Record) error {
		var ev eventlog.Event
		if err := eventlog.DecodeEvent(r.Value, &ev); err != nil {
			return fmt.Errorf("decode the event at offset %d of partition %d: %w", r.Offset, p, err)
		}
		n, sum = ev.N, eventlog.Checksum(r.Value)
		return nil
	})
	return n, sum, err
}

// sum tells how far the whole store is behind.
func (x *examined) sum(s storeState, partitions int) {
	if n := len(s.missing); n > 0 {
		x.add("store", eventlog.LevelSlow, "partitions", fmt.Sprintf("nothing of %d of %d: %s", n, partitions, strings.Join(s.missing, ", ")),
			"nothing: a worker that gets them folds their events from the beginning")
	}
	text := fmt.Sprintf("%d events behind the log", s.behind)
	switch seconds := s.most / foldedSecond; {
	case s.wrong > 0:
	case seconds > 0:
		x.add("store", eventlog.LevelSlow, "watermarks", fmt.Sprintf("%s: the next worker folds them in some %d s before it goes on", text, seconds), "nothing while a worker runs and it gets less")
	default:
		x.add("store", eventlog.LevelOK, "watermarks", text, "")
	}
}
