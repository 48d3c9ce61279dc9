package webui

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// api adds what programs and people use to look at instances and to change them.
func (s *server) api(mux *http.ServeMux) {
	const instances = "/api/v1/instances"
	past := newPast(s)
	mux.HandleFunc("GET "+instances, past.list)
	mux.HandleFunc("GET /api/v1/counts", past.count)
	mux.HandleFunc("POST "+instances, s.start)
	mux.HandleFunc("GET "+instances+"/{id}", past.get)
	mux.HandleFunc("GET "+instances+"/{id}/events", past.events)
	mux.HandleFunc("GET "+instances+"/{id}/history", past.history)
	mux.HandleFunc("GET "+instances+"/{id}/diff", past.diff)
	mux.HandleFunc("GET "+instances+"/{id}/export", past.exportOne)
	mux.HandleFunc("GET /api/v1/export", past.exportAll)
	if len(s.Imports) > 0 {
		mux.HandleFunc("POST /api/v1/import", past.load)
	}
	(&operations{server: s}).routes(mux)
	mux.HandleFunc("POST "+instances+"/{id}/stop", s.act((*workflow.Engine).Stop, s.tell))
	mux.HandleFunc("POST "+instances+"/{id}/retry", s.act((*workflow.Engine).Retry, s.tell))
	mux.HandleFunc("DELETE "+instances+"/{id}", s.act((*workflow.Engine).Delete, func(_ context.Context, w http.ResponseWriter, _ string) {
		w.WriteHeader(http.StatusNoContent)
	}))
}

// unknown refuses parameters of a query that would be ignored: unknown ones, and the second of a name.
func unknown(q url.Values, known ...string) *problem {
	for k, values := range q {
		if len(values) > 1 {
			p := bad(fmt.Sprintf("parameter %q is there %d times", k, len(values)))
			return &p
		}
		if !slices.Contains(known, k) {
			p := bad(fmt.Sprintf("parameter %q; there are %s", k, strings.Join(known, ", ")))
			if len(known) == 0 {
				p = bad(fmt.Sprintf("parameter %q; there is none here", k))
			}
			return &p
		}
	}
	return nil
}

// maxBody is the most bytes that a request may have; what fits the log is less.
const maxBody = 16 << 20

// body decodes a request's JSON object into v; none at all is allowed where optional.
func body(w http.ResponseWriter, r *http.Request, v any, optional bool) *problem {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return &problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Detail: fmt.Sprintf("the body has more than %d bytes", maxBody)}
		}
		p := bad("read the body: " + err.Error())
		return &p
	}
	if len(data) == 0 && optional {
		return nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return &problem{Status: http.StatusUnsupportedMediaType, Code: "media_type", Detail: "the body must be application/json"}
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	if err != nil {
		p := bad("decode the body: " + mistake(err))
		return &p
	}
	return nil
}

// mistake says what is wrong with JSON, to those who do not write Go.
func mistake(err error) string {
	if errors.Is(err, io.EOF) {
		return "it is empty"
	}
	t, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	wanted := map[reflect.Kind]string{
		reflect.Struct: "an object", reflect.Map: "an object", reflect.Slice: "an array", reflect.String: "a string", reflect.Bool: "true or false",
	}[t.Type.Kind()]
	return fmt.Sprintf("%s is of the kind %s; it must be %s", cmp.Or(t.Field, "the body"), t.Value, cmp.Or(wanted, "a whole number in its limits"))
}

// start answers 201 when the instance was started, and 200 when the id existed already.
func (s *server) start(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Definition string          `json:"definition"`
		ID         string          `json:"id"`
		Parameters json.RawMessage `json:"parameters"`
	}
	p := body(w, r, &in, false)
	if p == nil {
		p = badID(in.ID, true)
	}
	if p == nil && in.Definition == "" {
		none := bad("definition is needed: the name of one that is registered")
		p = &none
	}
	if p != nil {
		fail(w, *p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	if h := r.Header; len(h.Values(eventlog.TraceParent)) == 1 {
		ctx = workflow.WithTrace(ctx, h.Get(eventlog.TraceParent), strings.Join(h.Values(eventlog.TraceState), ","))
	}
	id, started, err := s.eng.Start(ctx, in.Definition, in.ID, in.Parameters)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	status := http.StatusOK
	if started {
		status = http.StatusCreated
	}
	w.Header().Set("Location", "instances/"+url.PathEscape(id))
	send(w, status, map[string]any{"id": id, "started": started})
}

func badID(id string, optional bool) *problem {
	if id == "" && optional {
		return nil
	}
	if err := eventlog.ValidateID(id); err != nil {
		p := bad(err.Error())
		return &p
	}
	return nil
}

// tell answers with the instance as it is now.
func (s *server) tell(ctx context.Context, w http.ResponseWriter, id string) {
	if p := badID(id, false); p != nil {
		fail(w, *p)
		return
	}
	i, err := s.eng.Get(ctx, id)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	send(w, http.StatusOK, view(i))
}

// act makes the handler of what changes an instance and takes a reason.
func (s *server) act(f func(*workflow.Engine, context.Context, string, string) error, tell func(context.Context, http.ResponseWriter, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Reason string `json:"reason"`
		}
		id := r.PathValue("id")
		p := badID(id, false)
		if p == nil {
			p = body(w, r, &in, true)
		}
		if p != nil {
			fail(w, *p)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), callTime)
		defer cancel()
		if err := f(s.eng, ctx, id, in.Reason); err != nil {
			fail(w, problemOf(err))
			return
		}
		tell(ctx, w, id)
	}
}
