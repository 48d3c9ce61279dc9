package webui

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// asked is an answer to a request.
func asked(t *testing.T, h http.Handler, method, target, contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func decoded[T any](t *testing.T, w *httptest.ResponseRecorder, status int) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != status {
		t.Fatalf("%d, want %d: %v: %s", w.Code, status, err, w.Body)
	}
	return v
}

// told is an operation as a client reads it.
type told[R any] struct {
	ID, Kind, State, Unit string
	Started, Ended        time.Time
	Done, Total           int64
	Rate                  float64
	SecondsLeft           *float64
	Result                R
	Problem               *problem
}

// operate begins an operation and waits for its end.
func operate[R any](ctx context.Context, t *testing.T, h http.Handler, target, in string) told[R] {
	t.Helper()
	contentType := ""
	if in != "" {
		contentType = "application/json"
	}
	w := asked(t, h, http.MethodPost, target, contentType, in)
	o := decoded[told[R]](t, w, http.StatusAccepted)
	if o.State != "running" || w.Header().Get("Location") != "operations/"+o.ID || o.Total < 1 {
		t.Errorf("%s: %+v at %s", target, o, w.Header().Get("Location"))
	}
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if o = decoded[told[R]](t, asked(t, h, http.MethodGet, "/api/v1/operations/"+o.ID, "", ""), http.StatusOK); o.State != "running" {
			tick.Stop()
			return o
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %+v", target, o)
		}
	}
}

// TestOperations verifies, rebuilds and copies the store of an engine at work.
func TestOperations(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	def := workflow.New("Parcel", workflow.Execute("pack", func(context.Context, *parcel) error { return nil }))
	eng, err := workflow.Open(ctx, workflow.Config{Log: "mem:?partitions=3", Store: "pebble:" + filepath.Join(dir, "store"), Logger: slog.New(slog.DiscardHandler),
		Snapshots: workflow.Snapshots{URL: "file:" + filepath.Join(dir, "snapshots")}})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	run, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() {
		if err := eng.Run(run); err != nil {
			t.Error(err)
		}
	})
	for k := range 10 {
		h, err := def.Start(ctx, eng, fmt.Sprint("parcel-", k), parcel{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	h := New(eng, Options{})
	if l := decoded[map[string][]snapshot](t, asked(t, h, "GET", "/api/v1/snapshots", "", ""), 200); len(l["snapshots"]) != 0 {
		t.Errorf("snapshots before: %+v", l)
	}
	if o := operate[[]snapshot](ctx, t, h, "/api/v1/snapshots", ""); o.State != "done" || len(o.Result) == 0 || o.Done != o.Total || o.Unit != "partitions" || o.Ended.IsZero() {
		t.Errorf("take snapshots: %+v", o)
	} else if l := decoded[map[string][]snapshot](t, asked(t, h, "GET", "/api/v1/snapshots", "", ""), 200); len(l["snapshots"]) != len(o.Result) || l["snapshots"][0].Rows == 0 {
		t.Errorf("snapshots: %+v", l)
	}
	if o := operate[verified](ctx, t, h, "/api/v1/verify", ""); o.State != "done" || o.Result.Partitions != 3 || o.Result.Differences != 0 || o.Total < 30 || o.Rate <= 0 || o.SecondsLeft != nil {
		t.Errorf("verify: %+v", o)
	}
	if o := operate[verified](ctx, t, h, "/api/v1/verify", `{"partitions":[1]}`); o.State != "done" || o.Result.Partitions != 1 {
		t.Errorf("verify partition 1: %+v", o)
	}
	if o := operate[[]rebuilt](ctx, t, h, "/api/v1/rebuild", `{"partitions":[0,2],"parallel":1}`); o.State != "done" || len(o.Result) != 2 || o.Result[0].AsOf == 0 {
		t.Errorf("rebuild: %+v", o)
	}
	if o := operate[[]rebuilt](ctx, t, h, "/api/v1/rebuild", `{"snapshots":true}`); o.State != "done" || len(o.Result) != 3 {
		t.Errorf("rebuild from snapshots: %+v", o)
	}
	if o := operate[verified](ctx, t, h, "/api/v1/verify", `{}`); o.State != "done" || o.Result.Differences != 0 {
		t.Errorf("verify again: %+v", o)
	}
	l := decoded[map[string][]told[any]](t, asked(t, h, "GET", "/api/v1/operations", "", ""), 200)["operations"]
	if len(l) != 6 || l[0].Kind != "verify" || l[5].Kind != "snapshots" {
		t.Errorf("operations: %+v", l)
	}
	stop()
	running.Wait()
	if err := eng.Close(); err != nil {
		t.Fatal(err)
	}
	if o := decoded[problem](t, asked(t, h, "POST", "/api/v1/verify", "", ""), 503); o.Code != "closed" {
		t.Errorf("verify when the engine is closed: %+v", o)
	}
}

// TestOperationsWrong: one at a time, to be cancelled; and requests that are refused.
func TestOperationsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		def := shop(&closed)
		kit := workflowtest.New(t, def)
		x := &transcript{t: t, h: New(kit.Engine, Options{})}
		o := &operations{server: &server{eng: kit.Engine}}
		mux := http.NewServeMux()
		o.routes(mux)
		w := httptest.NewRecorder()
		o.begin(w, httptest.NewRequest("POST", "/api/v1/verify", nil), "wait", "records", 100, func(ctx context.Context, op *operation) (any, error) {
			o.progress(op)(0, 10, 0)
			o.progress(op)(1, 10, 0)
			o.progress(op)(0, 20, 0)
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		id := decoded[told[any]](t, w, http.StatusAccepted).ID
		time.Sleep(10 * time.Second)
		if v := decoded[told[any]](t, asked(t, mux, "GET", "/api/v1/operations/"+id, "", ""), 200); v.Done != 30 || v.Rate != 3 || v.SecondsLeft == nil || int(*v.SecondsLeft) != 23 {
			t.Errorf("on its way: %+v", v)
		}
		if w := asked(t, mux, "POST", "/api/v1/verify", "", ""); w.Code != http.StatusConflict || w.Header().Get("Location") != "operations/"+id {
			t.Errorf("a second one: %d %s", w.Code, w.Body)
		}
		if w := asked(t, mux, "DELETE", "/api/v1/operations/"+id, "", ""); w.Code != http.StatusAccepted {
			t.Errorf("cancel: %d %s", w.Code, w.Body)
		}
		synctest.Wait()
		if v := decoded[told[any]](t, asked(t, mux, "GET", "/api/v1/operations/"+id, "", ""), 200); v.State != "cancelled" || v.Ended.IsZero() {
			t.Errorf("cancelled: %+v", v)
		}
		if w := asked(t, mux, "DELETE", "/api/v1/operations/"+id, "", ""); w.Code != http.StatusConflict {
			t.Errorf("cancel again: %d %s", w.Code, w.Body)
		}

		x.get("/api/v1/operations")
		x.get("/api/v1/operations?limit=1")
		x.get("/api/v1/operations/verify-1")
		x.ask("DELETE", "/api/v1/operations/verify-1", "")
		x.ask("POST", "/api/v1/verify", `{"partitions":[4]}`)
		x.ask("POST", "/api/v1/verify", `{"partitions":[1,1]}`)
		x.ask("POST", "/api/v1/verify", `{"partition":1}`)
		x.ask("POST", "/api/v1/verify", `{}`, "Content-Type", "text/plain")
		x.ask("POST", "/api/v1/rebuild", `{"parallel":-1}`)
		x.get("/api/v1/snapshots")
		x.ask("POST", "/api/v1/snapshots", `{"keep":1}`)
		x.ask("POST", "/api/v1/snapshots", "")
		kit.Advance(time.Second)
		x.get("/api/v1/operations")
		x.get("/api/v1/verify")
		x.get("/api/v1/export?partition=9")
		x.get("/api/v1/export?partitions=1")
		x.get("/api/v1/instances/nobody/export")
		x.ask("POST", "/api/v1/import", "")
		x.h = New(kit.Engine, Options{ReadOnly: true})
		x.ask("POST", "/api/v1/verify", "")
		x.compare("operations.txt")
	})
}

// TestExportImport: what one application exports is imported into the log of another, and nowhere
// else.
func TestExportImport(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	def := workflow.New("Parcel", workflow.Execute("pack", func(context.Context, *parcel) error { return nil }))
	eng, err := workflow.Open(ctx, workflow.Config{Log: "mem:?partitions=2", Store: "mem:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	for _, id := range []string{"a", "b", "c/d"} {
		h, err := def.Start(ctx, eng, id, parcel{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	h := New(eng, Options{Imports: map[string]string{"copy": "file:" + filepath.Join(dir, "copy") + "?partitions=3"}})
	one := asked(t, h, "GET", "/api/v1/instances/c%2Fd/export", "", "")
	if one.Code != 200 || one.Header().Get("Content-Type") != jsonLines || !strings.Contains(one.Header().Get("Content-Disposition"), "instance.jsonl") || !strings.Contains(one.Body.String(), `"end":`) || strings.Contains(one.Body.String(), `"id":"a"`) {
		t.Errorf("export: %d %v %s", one.Code, one.Header(), one.Body)
	}
	all, part := asked(t, h, "GET", "/api/v1/export", "", ""), asked(t, h, "GET", "/api/v1/export?partition=1", "", "")
	if all.Code != 200 || part.Code != 200 || all.Body.Len() <= part.Body.Len() {
		t.Errorf("exports: %d, %d bytes", all.Body.Len(), part.Body.Len())
	}
	for _, x := range []struct {
		target, contentType, body, code string
		status                          int
	}{
		{"/api/v1/import?to=elsewhere", jsonLines, one.Body.String(), "no_log", 404},
		{"/api/v1/import?into=copy", jsonLines, one.Body.String(), "bad_request", 400},
		{"/api/v1/import?to=copy", "application/json", one.Body.String(), "media_type", 415},
		{"/api/v1/import?to=copy", jsonLines, one.Body.String()[:200], "export", 422},
		{"/api/v1/import?to=copy", jsonLines, all.Body.String(), "not_at_rest", 409},
	} {
		if p := decoded[problem](t, asked(t, h, "POST", x.target, x.contentType, x.body), x.status); p.Code != x.code {
			t.Errorf("%s: %+v", x.target, p)
		}
	}
	if x := decoded[imported](t, asked(t, h, "POST", "/api/v1/import?to=copy", jsonLines, one.Body.String()), 201); x.Instances != 1 || x.Partitions != 3 || x.To != "copy" {
		t.Errorf("import: %+v", x)
	}
	if p := decoded[problem](t, asked(t, h, "POST", "/api/v1/import?to=copy", jsonLines, one.Body.String()), 409); p.Code != "not_empty" {
		t.Errorf("import again: %+v", p)
	}
}
