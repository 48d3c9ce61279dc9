package webui

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// seed adds the paths of the seed, Wayfair's dagger for Python, in its shapes.
func (s *server) seed(mux *http.ServeMux) {
	mux.HandleFunc("GET /tasks/instances", s.seedInstances)
	mux.HandleFunc("GET /tasks/instance/{id...}", s.seedInstance)
	mux.HandleFunc("GET /service/ready", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.ready(r)
		send(w, status, map[string]bool{"is_ready": err == nil})
	})
}

// maxPage is the most instances of a page.
const maxPage = 1000

// seedInstances is an array of all instances, oldest first, ended ones too; with a limit a
// page of it.
func (s *server) seedInstances(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := workflow.Filter{Limit: maxPage, Cursor: q.Get("cursor")}
	paged := q.Has("limit")
	if paged {
		var p *problem
		if f.Limit, p = limit(q); p != nil {
			fail(w, *p)
			return
		}
	}
	trees, next, err := s.trees(r, f)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	if paged && next != "" {
		w.Header().Set("Link", fmt.Sprintf(`<?limit=%d&cursor=%s>; rel="next"`, f.Limit, url.QueryEscape(next)))
		w.Header().Set("Dagger-Cursor", next)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := encoder(w)
	_, _ = w.Write([]byte("["))
	for n := 0; ; {
		for _, t := range trees {
			if n++; n > 1 {
				_, _ = w.Write([]byte(","))
			}
			if out.Encode(t) != nil {
				return // the client went away
			}
		}
		if paged || next == "" {
			break
		}
		f.Cursor = next
		if trees, next, err = s.trees(r, f); err != nil {
			panic(http.ErrAbortHandler) // a list that is cut off must not look whole
		}
	}
	_, _ = w.Write([]byte("]\n"))
}

func (s *server) trees(r *http.Request, f workflow.Filter) ([]*workflow.Tree, string, error) {
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	return s.eng.Trees(ctx, f)
}

// limit of a page.
func limit(q url.Values) (int, *problem) {
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > maxPage {
		p := bad(fmt.Sprintf("limit is %q; it must be a number from 1 to %d", q.Get("limit"), maxPage))
		return 0, &p
	}
	return n, nil
}

// seedInstance is one instance with all that is inside it; or of an id that child_dags gave,
// that part of it.
func (s *server) seedInstance(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	id := r.PathValue("id")
	tree, err := s.find(ctx, id)
	switch {
	case err != nil:
		fail(w, problemOf(err))
	case tree == nil:
		fail(w, problem{Status: http.StatusNotFound, Code: "not_found", Detail: "no instance, process or task has this id"})
	default:
		send(w, http.StatusOK, tree)
	}
}

// find is the tree with the id, or nil. Ids of what is inside an instance begin with its own;
// both may have slashes.
func (s *server) find(ctx context.Context, id string) (*workflow.Tree, error) {
	const tries = 8
	cut := len(id)
	for try := 0; try < tries; try++ {
		if eventlog.ValidateID(id[:cut]) == nil {
			tree, err := s.eng.Tree(ctx, id[:cut])
			if err == nil {
				return within(tree, id), nil
			}
			if !errors.Is(err, workflow.ErrNotFound) {
				return nil, err
			}
		}
		from := 0 // the shortest part first: most ids have no slash
		if cut < len(id) {
			from = cut + 1
		}
		next := strings.IndexByte(id[from:], '/')
		if next < 0 {
			break
		}
		cut = from + next
	}
	return nil, nil
}

// within is the part of a tree that has the id, or nil.
func within(t *workflow.Tree, id string) *workflow.Tree {
	if t.ID == id {
		return t
	}
	for k := range t.Children {
		if x := within(&t.Children[k], id); x != nil {
			return x
		}
	}
	return nil
}
