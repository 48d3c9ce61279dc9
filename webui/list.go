package webui

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/godagger/dagger/workflow"
)

// page of a list.
type page struct {
	Instances []instance       `json:"instances"`
	Cursor    string           `json:"cursor,omitempty"` // of the next page
	At        string           `json:"at,omitempty"`     // the moment, as event numbers: ?at= of the next page
	AsOf      map[int32]uint64 `json:"asOf"`             // event number up to which each partition is told
}

func (s *past) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := workflow.Filter{Definition: q.Get("definition"), Status: workflow.Status(q.Get("status")), IDPrefix: q.Get("prefix"), Cursor: q.Get("cursor")}
	p := unknown(q, "definition", "status", "prefix", "cursor", "limit", "at")
	if q.Has("limit") && p == nil {
		f.Limit, p = limit(q)
	}
	if p == nil {
		p = badStatus(q)
	}
	if p != nil {
		fail(w, *p)
		return
	}
	ctx, cancel, l, at, p := s.lister(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer cancel()
	found, err := l.List(ctx, f)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	answer := page{Instances: []instance{}, Cursor: found.Cursor, At: at, AsOf: found.AsOf}
	for _, i := range found.Instances {
		answer.Instances = append(answer.Instances, view(i))
	}
	send(w, http.StatusOK, answer)
}

// counts is how many instances there are.
type counts struct {
	Counts []count          `json:"counts"`
	Total  int64            `json:"total"`
	At     string           `json:"at,omitempty"` // the moment, as event numbers
	AsOf   map[int32]uint64 `json:"asOf"`
}

type count struct {
	Definition string          `json:"definition"`
	Status     workflow.Status `json:"status"`
	Instances  int64           `json:"instances"`
}

func (s *past) count(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := workflow.Filter{Definition: q.Get("definition"), Status: workflow.Status(q.Get("status"))}
	p := unknown(q, "definition", "status", "at")
	if p == nil {
		p = badStatus(q)
	}
	if p != nil {
		fail(w, *p)
		return
	}
	ctx, cancel, l, at, p := s.lister(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer cancel()
	found, err := l.Count(ctx, f)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	answer := counts{Counts: []count{}, Total: found.Total(), At: at, AsOf: found.AsOf}
	for _, name := range slices.Sorted(maps.Keys(found.Of)) {
		for _, status := range slices.Sorted(maps.Keys(found.Of[name])) {
			answer.Counts = append(answer.Counts, count{name, status, found.Of[name][status]})
		}
	}
	send(w, http.StatusOK, answer)
}

// badStatus refuses a status that no instance can have.
func badStatus(q url.Values) *problem {
	if q.Has("status") && !slices.Contains(statuses, workflow.Status(q.Get("status"))) {
		p := bad(fmt.Sprintf("status is %q; there are %v", q.Get("status"), statuses))
		return &p
	}
	return nil
}

var statuses = []workflow.Status{workflow.Executing, workflow.Completed, workflow.Failure, workflow.Stopped, workflow.Quarantined}
