package webui

import (
	"context"
	"maps"
	"net/http"
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
	q := queryOf(r, "definition", "status", "prefix", "cursor", "limit", "at")
	f := workflow.Filter{Definition: q.Get("definition"), IDPrefix: q.Get("prefix"), Cursor: q.Get("cursor"), Limit: q.limit(0), Status: q.status()}
	s.overview(w, r, q, func(ctx context.Context, l lister, at string) (any, error) {
		found, err := l.List(ctx, f)
		if err != nil {
			return nil, err
		}
		answer := page{Instances: []instance{}, Cursor: found.Cursor, At: at, AsOf: found.AsOf}
		for _, i := range found.Instances {
			answer.Instances = append(answer.Instances, view(i))
		}
		return answer, nil
	})
}

// overview answers what is asked of all instances, as they are or as they were.
func (s *past) overview(w http.ResponseWriter, r *http.Request, q *query, read func(ctx context.Context, l lister, at string) (any, error)) {
	if q.refused(w) {
		return
	}
	ctx, cancel, l, at, p := s.lister(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer cancel()
	found, err := read(ctx, l, at)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	send(w, http.StatusOK, found)
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
	q := queryOf(r, "definition", "status", "at")
	f := workflow.Filter{Definition: q.Get("definition"), Status: q.status()}
	s.overview(w, r, q, func(ctx context.Context, l lister, at string) (any, error) {
		found, err := l.Count(ctx, f)
		if err != nil {
			return nil, err
		}
		answer := counts{Counts: []count{}, Total: found.Total(), At: at, AsOf: found.AsOf}
		for _, name := range slices.Sorted(maps.Keys(found.Of)) {
			for _, status := range slices.Sorted(maps.Keys(found.Of[name])) {
				answer.Counts = append(answer.Counts, count{name, status, found.Of[name][status]})
			}
		}
		return answer, nil
	})
}
