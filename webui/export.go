package webui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

const jsonLines = "application/jsonl"

// exportOne sends the events of one instance.
func (s *past) exportOne(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	p := badID(id, false)
	if p == nil {
		p = unknown(r.URL.Query())
	}
	if p != nil {
		fail(w, *p)
		return
	}
	s.export(w, r, "instance", func(ctx context.Context, out io.Writer) error { return s.eng.Export(ctx, out, id) })
}

// exportAll sends the events of a partition, or of all.
func (s *past) exportAll(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if p := unknown(q, "partition"); p != nil {
		fail(w, *p)
		return
	}
	if !q.Has("partition") {
		s.export(w, r, "all", s.eng.ExportLog)
		return
	}
	n, err := strconv.ParseInt(q.Get("partition"), 10, 32)
	if last := s.eng.Log().Partitions() - 1; err != nil || n < 0 || int32(n) > last {
		fail(w, bad(fmt.Sprintf("partition is %q; there are 0 to %d", q.Get("partition"), last)))
		return
	}
	s.export(w, r, fmt.Sprint("partition-", n), func(ctx context.Context, out io.Writer) error { return s.eng.ExportPartition(ctx, out, int32(n)) })
}

// export sends lines for as long as the client takes them. One that breaks off has no end line,
// and the connection is cut.
func (s *past) export(w http.ResponseWriter, r *http.Request, name string, write func(context.Context, io.Writer) error) {
	_, done, p := s.reading(r)
	if p != nil {
		fail(w, *p)
		return
	}
	defer done()
	out := &lines{w: w, name: name + ".jsonl"}
	err := write(r.Context(), out)
	switch {
	case err == nil:
	case !out.begun:
		fail(w, problemOf(err))
	default:
		panic(http.ErrAbortHandler)
	}
}

// lines is an answer whose header is sent with its first bytes.
type lines struct {
	w     http.ResponseWriter
	name  string
	begun bool
}

func (l *lines) Write(b []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", jsonLines)
		l.w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": l.name}))
	}
	return l.w.Write(b)
}

// maxImport is the most bytes that an import may have: it is held in memory.
const maxImport = 4 << 30

// imported is what an import did.
type imported struct {
	To         string `json:"to"`
	Instances  int64  `json:"instances"`
	Messages   int64  `json:"messages"`
	Events     int64  `json:"events"` // written
	Read       int64  `json:"read"`   // of the export
	Partitions int32  `json:"partitions"`
}

// load makes a new application of an export, in one of the logs of Options.Imports.
func (s *past) load(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if p := unknown(q, "to"); p != nil {
		fail(w, *p)
		return
	}
	name := q.Get("to")
	url, known := s.Imports[name]
	if !known {
		fail(w, problem{Status: http.StatusNotFound, Code: "no_log", Detail: fmt.Sprintf("to is %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(s.Imports)), ", "))})
		return
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != jsonLines && t != "application/x-ndjson" {
		fail(w, problem{Status: http.StatusUnsupportedMediaType, Code: "media_type", Detail: "the body must be " + jsonLines})
		return
	}
	select {
	case s.loading <- struct{}{}:
		defer func() { <-s.loading }()
	default:
		fail(w, problem{Status: http.StatusServiceUnavailable, Code: "busy", Detail: "another import is under way"})
		return
	}
	done, err := loadInto(r.Context(), url, http.MaxBytesReader(w, r.Body, maxImport))
	if err != nil {
		fail(w, importProblem(err))
		return
	}
	send(w, http.StatusCreated, imported{name, done.Instances, done.Messages, done.Events, done.Read, done.Partitions})
}

func loadInto(ctx context.Context, url string, body io.Reader) (done workflow.Imported, err error) {
	log, err := eventlog.Open(ctx, url)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return workflow.Import(ctx, log, body)
}

func importProblem(err error) problem {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Detail: fmt.Sprintf("the body has more than %d bytes", int64(maxImport))}
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{workflow.ErrNotEmpty, http.StatusConflict, "not_empty"},
		{workflow.ErrNotAtRest, http.StatusConflict, "not_at_rest"},
		{workflow.ErrExport, http.StatusUnprocessableEntity, "export"},
	} {
		if errors.Is(err, c.err) {
			return problem{Status: c.status, Code: c.code, Detail: err.Error()}
		}
	}
	return problemOf(err)
}
