package webui

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godagger/dagger/workflow"
)

const (
	// foldTime is how long reading much of the log may take.
	foldTime = 10 * time.Minute
	// keepFleet is how long all instances as of a moment stay in memory for further pages.
	keepFleet = time.Minute
	// scans is how many requests read through a partition at once; others wait.
	scans = 4
)

// moment reads a parameter; without it the moment is now.
func moment(q url.Values, name string) (m workflow.Moment, p *problem) {
	if !q.Has(name) {
		return m, nil
	}
	m, err := workflow.ParseMoment(q.Get(name))
	if err != nil {
		x := bad(fmt.Sprintf("%s: %v; it must be a time (2026-11-24T10:00:00Z), how long ago (90m), an event number (117), offset:4711, event numbers or offsets by partition (0:117,1:98, offset:0:4711,1:98), or now", name, err))
		p = &x
	}
	return m, p
}

// past answers what is asked of the past, and of what stands in the log alone.
type past struct {
	*server
	scanning chan struct{} // of those that read through a partition
	loading  chan struct{} // of the import
	fleets   fleets
}

func newPast(s *server) *past {
	return &past{server: s, scanning: make(chan struct{}, scans), loading: make(chan struct{}, 1), fleets: fleets{turn: make(chan struct{}, 1)}}
}

// reading waits until a request may read through a partition.
func (s *past) reading(r *http.Request) (ctx context.Context, done func(), p *problem) {
	ctx, cancel := context.WithTimeout(r.Context(), foldTime)
	select {
	case s.scanning <- struct{}{}:
		return ctx, func() { <-s.scanning; cancel() }, nil
	case <-ctx.Done():
		cancel()
		return nil, nil, &problem{Status: http.StatusServiceUnavailable, Code: "busy", Detail: fmt.Sprintf("%d others read through the log", scans)}
	}
}

// fleets keeps all instances as of the moment that was asked for last.
type fleets struct {
	turn  chan struct{} // of who folds
	mu    sync.Mutex
	fleet *workflow.Fleet
	text  string // the moment as it was asked for, and as event numbers
	at    string
	timer *time.Timer
}

// get folds the log up to a moment, unless that was done just now.
func (f *fleets) get(ctx context.Context, eng *workflow.Engine, text string, m workflow.Moment) (fleet *workflow.Fleet, at string, err error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
	f.mu.Lock()
	if f.fleet != nil && (text == f.at || text == f.text) {
		defer f.mu.Unlock()
		return f.fleet, f.at, nil
	}
	f.mu.Unlock()
	if fleet, err = eng.AsOf(ctx, m); err != nil {
		return nil, "", err
	}
	at = numbers(fleet.AsOf())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fleet, f.at, f.text = fleet, at, ""
	if len(text) > 4 && text[4] == '-' { // a time; what is relative to now is another moment each time
		f.text = text
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(keepFleet, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.fleet == fleet {
			f.fleet = nil
		}
	})
	return fleet, at, nil
}

// numbers writes event numbers as a moment.
func numbers(asOf map[int32]uint64) string {
	var l []string
	for _, p := range slices.Sorted(maps.Keys(asOf)) {
		l = append(l, fmt.Sprintf("%d:%d", p, asOf[p]))
	}
	return strings.Join(l, ",")
}

// lister lists and counts: the engine now, or all instances as of a moment.
type lister interface {
	List(ctx context.Context, f workflow.Filter) (workflow.Page, error)
	Count(ctx context.Context, f workflow.Filter) (workflow.Counts, error)
}

// lister is the one of the moment that a request asks for; at is that moment as event numbers.
func (s *past) lister(r *http.Request) (ctx context.Context, cancel func(), l lister, at string, p *problem) {
	q := r.URL.Query()
	m, p := moment(q, "at")
	if p != nil {
		return nil, nil, nil, "", p
	}
	if m.IsNow() {
		ctx, cancel = context.WithTimeout(r.Context(), callTime)
		return ctx, cancel, s.eng, "", nil
	}
	ctx, cancel = context.WithTimeout(r.Context(), foldTime)
	fleet, at, err := s.fleets.get(ctx, s.eng, q.Get("at"), m)
	if err != nil {
		cancel()
		x := problemOf(err)
		return nil, nil, nil, "", &x
	}
	return ctx, cancel, fleet, at, nil
}
