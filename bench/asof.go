package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/workflow"
)

const (
	longOnes   = 8           // instances that run beside the others, from the beginning to the end
	longPeriod = time.Second // between two runs of a long one
	looks      = 100         // at each kind of instance
)

// asOf measures how long it takes to say what an instance was at an earlier moment, in a log
// that many others have filled: of instances whose events are near to each other, of some whose
// events are all over the log, of one that was deleted, and of an id of which nothing is known.
func asOf(ctx context.Context, s *settings, stderr io.Writer) (_ report, err error) {
	l := newLoad(s)
	long := workflow.New("BenchLong", workflow.Process("Work", workflow.Every("tick",
		func(*Params) workflow.Interval { return workflow.Interval{Period: longPeriod} },
		func(context.Context, *Params) (bool, error) { return false, nil })))
	if l.host, err = openHost(ctx, s, stderr, workflow.Config{}, l.def, long); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warmUp(ctx); err != nil {
		return nil, err
	}
	begin := time.Now()
	for k := range longOnes {
		if _, err := long.Start(ctx, l.engine, l.prefix+"long"+strconv.Itoa(k), l.params); err != nil {
			return nil, err
		}
	}
	var done atomic.Int64
	stopBar := bar(stderr, s.instances, &done)
	_, err = l.run(ctx, "", s.instances, s.rate, &done)
	stopBar()
	if err != nil {
		return nil, err
	}
	gone := l.prefix + strconv.Itoa(s.instances/2)
	if err := l.engine.Delete(ctx, gone, "bench"); err != nil {
		return nil, err
	}
	if err := l.projected(ctx); err != nil {
		return nil, err
	}
	r := &asOfResult{setup: s.setup("asof", l.host), Instances: s.instances}
	for _, p := range l.engine.Partitions() {
		r.Events += int64(p.Event)
	}
	filled := time.Since(begin)
	endProfile, err := s.profile()
	if err != nil {
		return nil, err
	}
	if r.ShortMS, err = l.look(ctx, looks, func() string { return l.prefix + strconv.Itoa(rand.IntN(s.instances)) }, begin, filled, gone); err != nil {
		return nil, err
	}
	if r.LongMS, err = l.look(ctx, looks, func() string { return l.prefix + "long" + strconv.Itoa(rand.IntN(longOnes)) }, begin, filled, gone); err != nil {
		return nil, err
	}
	if r.DeletedMS, err = l.look(ctx, 1, func() string { return gone }, begin, filled, gone); err != nil {
		return nil, err
	}
	if r.UnknownMS, err = l.look(ctx, looks, func() string { return "nobody" + strconv.Itoa(rand.Int()) }, begin.Add(filled), 0, gone); err != nil {
		return nil, err
	}
	return r, endProfile()
}

// look looks at instances as of moments: one in their life, or one in a span where that is not
// known.
func (l *load) look(ctx context.Context, n int, id func() string, from time.Time, span time.Duration, gone string) (latency, error) {
	var took []time.Duration
	for range n {
		id := id()
		at := from.Add(time.Duration(rand.Int64N(int64(span) + 1)))
		i, err := l.engine.Get(ctx, id)
		switch {
		case err == nil && i.Ended.IsZero():
			at = i.Created.Add(time.Duration(rand.Int64N(int64(i.Updated.Sub(i.Created)) + 1)))
		case err == nil:
			at = i.Created.Add(time.Duration(rand.Int64N(int64(i.Ended.Sub(i.Created)) + 1)))
		case !errors.Is(err, workflow.ErrNotFound):
			return latency{}, err
		}
		start := time.Now()
		_, err = l.engine.GetAt(ctx, id, workflow.AtTime(at))
		if err != nil && (i.ID != "" || !errors.Is(err, workflow.ErrNotFound)) {
			return latency{}, fmt.Errorf("%s as of %v: %w", id, at, err)
		}
		took = append(took, time.Since(start))
	}
	return distribution(took), nil
}

// asOfResult is what asOf measured.
type asOfResult struct {
	setup
	Instances int     `json:"instances"`
	Events    int64   `json:"events"`
	ShortMS   latency `json:"short_ms"`   // events near to each other
	LongMS    latency `json:"long_ms"`    // an event each second, all over the log
	DeletedMS latency `json:"deleted_ms"` // its calls are still remembered
	UnknownMS latency `json:"unknown_ms"` // nothing is known of the id: blocks that may name it are read
}

func (r *asOfResult) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, `log                %d events, %d instances
short              %v
all over the log   %v
deleted            %.2f ms
unknown            %v
`, r.Events, r.Instances, r.ShortMS, r.LongMS, r.DeletedMS.Max, r.UnknownMS)
	return err
}
