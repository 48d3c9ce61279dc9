package webui

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// answer sends what is read through a partition.
func (s *past) answer(w http.ResponseWriter, r *http.Request, read func(ctx context.Context) (any, error)) {
	ctx, done, p := s.reading(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer done()
	found, err := read(ctx)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	send(w, http.StatusOK, found)
}

// get answers with an instance as it is, or as it was.
func (s *past) get(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r, "at")
	id, m := q.id(), q.moment("at")
	if q.refused(w) {
		return
	}
	if m.IsNow() {
		ctx, cancel := context.WithTimeout(r.Context(), callTime)
		defer cancel()
		s.tell(ctx, w, id)
		return
	}
	s.answer(w, r, func(ctx context.Context) (any, error) {
		i, err := s.eng.GetAt(ctx, id, m)
		if err != nil {
			return nil, err
		}
		return view(i), nil
	})
}

// eventPage is a page of an instance's events, each as it stands in the log.
type eventPage struct {
	Events []json.RawMessage `json:"events"`
	Next   uint64            `json:"next,omitempty"` // ?after= of the next page
}

func (s *past) events(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r, "after", "limit")
	id, most, after := q.id(), q.limit(100), q.event("after")
	if q.refused(w) {
		return
	}
	s.answer(w, r, func(ctx context.Context) (any, error) {
		answer, last := eventPage{Events: []json.RawMessage{}}, uint64(0)
		for e, err := range s.eng.Events(ctx, id) {
			if err != nil {
				return nil, err
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
			return nil, fmt.Errorf("%w: %s", workflow.ErrNotFound, id)
		}
		return answer, nil
	})
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
	Caller string        `json:"caller,omitempty"` // of a call
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
	q := queryOf(r, "at")
	id, m := q.id(), q.moment("at")
	if q.refused(w) {
		return
	}
	s.answer(w, r, func(ctx context.Context) (any, error) {
		h, err := s.eng.History(ctx, id, m)
		if err != nil {
			return nil, err
		}
		answer := timeline{ID: id, Steps: []step{}, Open: []span{}}
		end := time.Now()
		for _, x := range h.Steps {
			answer.Steps = append(answer.Steps, step{N: x.N, At: x.At, Type: x.Type, Path: x.Path, By: x.By, Caller: x.Caller, Worker: x.Worker, Text: x.Text, Ended: spans(x.Ended, x.At)})
			if !m.IsNow() {
				end = x.At
			}
		}
		answer.Open = append(answer.Open, spans(h.Open, end)...)
		return answer, nil
	})
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
	q := queryOf(r, "from", "to")
	id := q.id()
	q.read(!q.Has("from"), func() *problem {
		p := bad("from is needed: the earlier moment")
		return &p
	})
	from, to := q.moment("from"), q.moment("to")
	if q.refused(w) {
		return
	}
	s.answer(w, r, func(ctx context.Context) (any, error) {
		found, err := s.eng.Diff(ctx, id, from, to)
		if err != nil {
			return nil, err
		}
		answer := difference{ID: id, Changes: []change{}}
		for _, c := range found {
			answer.Changes = append(answer.Changes, changeOf(c))
		}
		return answer, nil
	})
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
