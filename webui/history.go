package webui

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// get answers with an instance as it is, or as it was.
func (s *past) get(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := r.PathValue("id")
	p := badID(id, false)
	if p == nil {
		p = unknown(q, "at")
	}
	var m workflow.Moment
	if p == nil {
		m, p = moment(q, "at")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	if m.IsNow() {
		ctx, cancel := context.WithTimeout(r.Context(), callTime)
		defer cancel()
		s.tell(ctx, w, id)
		return
	}
	ctx, done, p := s.reading(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer done()
	i, err := s.eng.GetAt(ctx, id, m)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	send(w, http.StatusOK, view(i))
}

// eventPage is a page of an instance's events, each as it stands in the log.
type eventPage struct {
	Events []json.RawMessage `json:"events"`
	Next   uint64            `json:"next,omitempty"` // ?after= of the next page
}

func (s *past) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, most, after := r.PathValue("id"), 100, uint64(0)
	p := badID(id, false)
	if p == nil {
		p = unknown(q, "after", "limit")
	}
	if q.Has("limit") && p == nil {
		most, p = limit(q)
	}
	if q.Has("after") && p == nil {
		var err error
		if after, err = strconv.ParseUint(q.Get("after"), 10, 64); err != nil {
			x := bad(fmt.Sprintf("after is %q; it must be the number of an event", q.Get("after")))
			p = &x
		}
	}
	if p != nil {
		fail(w, *p)
		return
	}
	ctx, done, p := s.reading(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer done()
	answer, last := eventPage{Events: []json.RawMessage{}}, uint64(0)
	for e, err := range s.eng.Events(ctx, id) {
		if err != nil {
			fail(w, problemOf(err))
			return
		}
		if e.N <= after {
			continue
		}
		if len(answer.Events) == most {
			answer.Next = last
			break
		}
		answer.Events, last = append(answer.Events, eventlog.AppendEvent(nil, e)), e.N
	}
	if len(answer.Events) == 0 && after == 0 {
		fail(w, problemOf(fmt.Errorf("%w: %s", workflow.ErrNotFound, id)))
		return
	}
	send(w, http.StatusOK, answer)
}

// timeline is what happened to an instance.
type timeline struct {
	ID    string `json:"id"`
	Steps []step `json:"steps"`
	Open  []span `json:"open"` // what goes on
}

type step struct {
	N      uint64        `json:"n"`
	At     time.Time     `json:"at"`
	Type   eventlog.Type `json:"type"`
	Path   string        `json:"path,omitempty"`
	By     string        `json:"by"`
	Worker string        `json:"worker,omitempty"`
	Text   string        `json:"text,omitempty"`
	Ended  []span        `json:"ended,omitempty"`
}

// span is how long a task did one thing.
type span struct {
	Path    string    `json:"path,omitempty"`
	What    string    `json:"what"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to,omitzero"`
	Seconds float64   `json:"seconds"` // of what goes on: up to now, or to the last step before the moment
}

func (s *past) history(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := r.PathValue("id")
	p := badID(id, false)
	if p == nil {
		p = unknown(q, "at")
	}
	var m workflow.Moment
	if p == nil {
		m, p = moment(q, "at")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	ctx, done, p := s.reading(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer done()
	h, err := s.eng.History(ctx, id, m)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	answer := timeline{ID: id, Steps: []step{}}
	end := time.Now()
	for _, x := range h.Steps {
		answer.Steps = append(answer.Steps, step{N: x.N, At: x.At, Type: x.Type, Path: x.Path, By: x.By, Worker: x.Worker, Text: x.Text, Ended: spans(x.Ended, x.At)})
		if !m.IsNow() {
			end = x.At
		}
	}
	answer.Open = spans(h.Open, end)
	if answer.Open == nil {
		answer.Open = []span{}
	}
	send(w, http.StatusOK, answer)
}

func spans(l []workflow.Span, end time.Time) (out []span) {
	for _, x := range l {
		to := x.To
		if to.IsZero() {
			to = end
		}
		out = append(out, span{x.Path, x.What, x.From, x.To, to.Sub(x.From).Seconds()})
	}
	return out
}

// difference is what differs in an instance between two moments.
type difference struct {
	ID      string   `json:"id"`
	Changes []change `json:"changes"`
}

// change has no From of what came, and no To of what went.
type change struct {
	Path string          `json:"path"`
	From json.RawMessage `json:"from,omitempty"`
	To   json.RawMessage `json:"to,omitempty"`
}

func (s *past) diff(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := r.PathValue("id")
	p := badID(id, false)
	if p == nil {
		p = unknown(q, "from", "to")
	}
	if p == nil && !q.Has("from") {
		x := bad("from is needed: the earlier moment")
		p = &x
	}
	var from, to workflow.Moment
	if p == nil {
		from, p = moment(q, "from")
	}
	if p == nil {
		to, p = moment(q, "to")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	ctx, done, p := s.reading(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer done()
	found, err := s.eng.Diff(ctx, id, from, to)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	answer := difference{ID: id, Changes: []change{}}
	for _, c := range found {
		answer.Changes = append(answer.Changes, changeOf(c))
	}
	send(w, http.StatusOK, answer)
}

func changeOf(c workflow.Change) change {
	return change{c.Path, raw(c.From), raw(c.To)}
}

// raw is JSON as it is, and anything else as a string.
func raw(s string) json.RawMessage {
	if s == "" || json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	data, _ := json.Marshal(s) // a string never fails
	return data
}
