package webui

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/godagger/dagger/workflow"
)

// query reads what a request asks for. The first mistake stays, and what is read after it means
// nothing.
type query struct {
	url.Values
	path    func(name string) string
	problem *problem
}

// queryOf refuses parameters that are not known.
func queryOf(r *http.Request, known ...string) *query {
	q := r.URL.Query()
	return &query{q, r.PathValue, unknown(q, known...)}
}

// read calls f, which may find a mistake, unless there was one before.
func (q *query) read(when bool, f func() *problem) {
	if when && q.problem == nil {
		q.problem = f()
	}
}

// refused answers a request that has a mistake.
func (q *query) refused(w http.ResponseWriter) bool {
	if q.problem != nil {
		fail(w, *q.problem)
	}
	return q.problem != nil
}

// id is that of the instance which the path names.
func (q *query) id() string {
	id := q.path("id")
	q.read(true, func() *problem { return badID(id, false) })
	return id
}

// moment is now where none is given.
func (q *query) moment(name string) (m workflow.Moment) {
	q.read(true, func() (p *problem) {
		m, p = moment(q.Values, name)
		return p
	})
	return m
}

// limit is how much a page has, or what it has otherwise.
func (q *query) limit(otherwise int) (n int) {
	n = otherwise
	q.read(q.Has("limit"), func() (p *problem) {
		n, p = limit(q.Values)
		return p
	})
	return n
}

// event is the number of an event, 0 where none is given.
func (q *query) event(name string) (n uint64) {
	q.read(q.Has(name), func() *problem {
		var err error
		if n, err = strconv.ParseUint(q.Get(name), 10, 64); err != nil {
			p := bad(fmt.Sprintf("%s is %q; it must be the number of an event", name, q.Get(name)))
			return &p
		}
		return nil
	})
	return n
}

var statuses = []workflow.Status{workflow.Executing, workflow.Completed, workflow.Failure, workflow.Stopped, workflow.Quarantined}

// status is one that an instance can have; "" where none is given.
func (q *query) status() workflow.Status {
	s := workflow.Status(q.Get("status"))
	q.read(q.Has("status") && !slices.Contains(statuses, s), func() *problem {
		p := bad(fmt.Sprintf("status is %q; there are %v", s, statuses))
		return &p
	})
	return s
}
