package webui

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// keepOperations is how many are remembered.
const keepOperations = 32

// operation is work that goes on behind its request.
type operation struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"`
	Caller  string    `json:"caller,omitempty"`
	State   string    `json:"state"` // running, done, failed or cancelled
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Done    int64     `json:"done"` // of Total units
	Total   int64     `json:"total"`
	Unit    string    `json:"unit"`
	Rate    float64   `json:"rate"`                  // units a second
	Left    *float64  `json:"secondsLeft,omitempty"` // at that rate
	Result  any       `json:"result,omitempty"`
	Problem *problem  `json:"problem,omitempty"`

	of     map[int32]int64 // done, by partition
	cancel context.CancelFunc
}

// view is the operation as it is told at a time.
func (o *operation) view(now time.Time) operation {
	v := *o
	if !o.Ended.IsZero() {
		now = o.Ended
	}
	if took := now.Sub(o.Started).Seconds(); took > 0 {
		v.Rate = float64(o.Done) / took
	}
	if v.Rate > 0 && o.Ended.IsZero() {
		left := float64(max(o.Total-o.Done, 0)) / v.Rate
		v.Left = &left
	}
	return v
}

// operations of a server: one at a time.
type operations struct {
	*server
	mu   sync.Mutex
	list []*operation // the newest last
}

func (s *operations) routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/v1/verify", s.verify)
	mux.HandleFunc("POST /api/v1/rebuild", s.rebuild)
	mux.HandleFunc("POST /api/v1/snapshots", s.takeSnapshots)
	mux.HandleFunc("GET /api/v1/snapshots", s.snapshots)
	mux.HandleFunc("GET /api/v1/operations", s.all)
	mux.HandleFunc("GET /api/v1/operations/{id}", s.one)
	mux.HandleFunc("DELETE /api/v1/operations/{id}", s.stop)
}

// begin lets work go on until it has ended, its operation is cancelled, or the engine closed. It
// answers 202 with the operation, and 409 while there is another one.
func (s *operations) begin(w http.ResponseWriter, r *http.Request, kind, unit string, total int64, work func(context.Context, *operation) (any, error)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	o := &operation{Kind: kind, Caller: workflow.CallerFrom(ctx), State: "running", Started: time.Now().UTC(), Total: total, Unit: unit, of: map[int32]int64{}, cancel: cancel}
	s.mu.Lock()
	if n := len(s.list); n > 0 && s.list[n-1].Ended.IsZero() {
		other := s.list[n-1]
		s.mu.Unlock()
		cancel()
		w.Header().Set("Location", "operations/"+other.ID)
		fail(w, problem{Status: http.StatusConflict, Code: "operation", Detail: other.ID + " is under way"})
		return
	}
	for o.ID == "" || slices.ContainsFunc(s.list, func(x *operation) bool { return x.ID == o.ID }) {
		if o.ID != "" {
			o.Started = o.Started.Add(time.Millisecond)
		}
		o.ID = kind + "-" + o.Started.Format("20060102T150405.000Z")
	}
	s.list = append(s.list, o)
	s.list = s.list[max(0, len(s.list)-keepOperations):]
	v := o.view(o.Started)
	s.mu.Unlock()
	go func() { // Engine.Close ends it and waits
		defer cancel()
		result, err := work(ctx, o)
		s.end(ctx, o, result, err)
	}()
	w.Header().Set("Location", "operations/"+o.ID)
	send(w, http.StatusAccepted, v)
}

func (s *operations) end(ctx context.Context, o *operation, result any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.Ended, o.Result = time.Now().UTC(), result
	switch {
	case err == nil:
		o.State, o.Done = "done", o.Total
	case ctx.Err() != nil:
		o.State, o.Result = "cancelled", nil
	default:
		p := problemOf(err)
		p.Type, p.Title = "about:blank", http.StatusText(p.Status)
		o.State, o.Result, o.Problem = "failed", nil, &p
	}
}

// progress notes how far a partition is.
func (s *operations) progress(o *operation) func(partition int32, done, total int64) {
	return func(partition int32, done, _ int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		o.Done += done - o.of[partition]
		o.of[partition] = done
	}
}

// partitions are those that a request names, else those of this engine, and how many records of
// the events topic they have.
func (s *operations) partitions(ctx context.Context, given []int32) (l []int32, records int64, p *problem) {
	l = given
	if l == nil {
		for _, x := range s.eng.Partitions() {
			l = append(l, x.Partition)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	log := s.eng.Log()
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		x := problemOf(err)
		return nil, 0, &x
	}
	if l == nil {
		for k := range topic.Partitions {
			l = append(l, int32(k))
		}
	}
	for k, x := range l {
		if x < 0 || int(x) >= len(topic.Partitions) || slices.Contains(l[:k], x) {
			y := bad(fmt.Sprintf("partition %d; there are 0 to %d, each to be named once", x, len(topic.Partitions)-1))
			return nil, 0, &y
		}
		records += topic.Partitions[x].End - topic.Partitions[x].Start
	}
	return l, records, nil
}

func (s *operations) all(w http.ResponseWriter, r *http.Request) {
	if p := unknown(r.URL.Query()); p != nil {
		fail(w, *p)
		return
	}
	s.mu.Lock()
	l := []operation{}
	for _, o := range slices.Backward(s.list) {
		l = append(l, o.view(time.Now()))
	}
	s.mu.Unlock()
	send(w, http.StatusOK, map[string]any{"operations": l})
}

// find is the operation that a request names.
func (s *operations) find(r *http.Request) (o *operation, p *problem) {
	id := r.PathValue("id")
	for _, o := range s.list {
		if o.ID == id {
			return o, nil
		}
	}
	return nil, &problem{Status: http.StatusNotFound, Code: "not_found", Detail: fmt.Sprintf("there is no operation %q", id)}
}

func (s *operations) one(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	o, p := s.find(r)
	if p != nil {
		s.mu.Unlock()
		fail(w, *p)
		return
	}
	v := o.view(time.Now())
	s.mu.Unlock()
	send(w, http.StatusOK, v)
}

// stop cancels an operation. What it has done stays.
func (s *operations) stop(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	o, p := s.find(r)
	if p == nil && !o.Ended.IsZero() {
		p = &problem{Status: http.StatusConflict, Code: "ended", Detail: o.ID + " has ended"}
	}
	if p != nil {
		s.mu.Unlock()
		fail(w, *p)
		return
	}
	o.cancel()
	v := o.view(time.Now())
	s.mu.Unlock()
	send(w, http.StatusAccepted, v)
}
