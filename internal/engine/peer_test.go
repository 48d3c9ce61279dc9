package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// askable is a worker with a store of its own that others can ask.
type askable struct {
	*Engine
	server  *httptest.Server
	handler atomic.Pointer[http.Handler] // nil: the engine's
	asked   atomic.Int32
}

func newAskable(t *testing.T, name string, log eventlog.Log, code *Code) *askable {
	t.Helper()
	a := &askable{}
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		if h := a.handler.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		a.Peers().ServeHTTP(w, r)
	}))
	t.Cleanup(a.server.Close)
	e, err := New(t.Context(), Config{Log: log, Store: memStore(t), Worker: name, Address: a.server.URL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.Engine = e
	if err := e.Register(t.Context(), code); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return a
}

func (a *askable) answer(h http.HandlerFunc) {
	handler := http.Handler(h)
	a.handler.Store(&handler)
}

func (a *askable) owned() (n int) {
	for _, p := range a.Partitions() {
		if p.Ready {
			n++
		}
	}
	return n
}

// twoAskable are workers that share four partitions, with twelve instances: i-00 to i-11.
func twoAskable(t *testing.T) (ctx context.Context, a, b *askable) {
	t.Helper()
	log := memLog(t)
	code := executeCode(t, "One", 1, func(_ context.Context, x Attempt) (Outcome, error) {
		if x.Instance == "i-03" {
			return Outcome{}, errors.New("no")
		}
		return Outcome{}, nil
	})
	a, b = newAskable(t, "a", log, code), newAskable(t, "b", log, code)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	until(t, ctx, "two workers share the partitions", func() bool { return a.owned() > 0 && b.owned() > 0 && a.owned()+b.owned() == 4 })
	for k := range 12 {
		id := fmt.Sprintf("i-%02d", k)
		if _, err := a.Call(ctx, &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "One", Params: json.RawMessage(fmt.Sprintf(`{"k":%d}`, k))}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Wait(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	until(t, ctx, "the stores have all", func() bool {
		counts, _, err := a.Count(ctx, Filter{Status: "COMPLETED"})
		return err == nil && counts["One/COMPLETED"] == 11
	})
	return ctx, a, b
}

// elsewhereOf gives an id of which the worker is not the owner.
func elsewhereOf(a *askable) string {
	for k := 0; ; k++ {
		id := fmt.Sprintf("i-%02d", k)
		if a.runner(eventlog.PartitionOf(id, 4)) == nil {
			return id
		}
	}
}

// TestWorkersAskEachOther: each of them lists, counts and shows all instances, by pages with
// one cursor.
func TestWorkersAskEachOther(t *testing.T) {
	ctx, a, b := twoAskable(t)
	for _, w := range []*askable{a, b} {
		var ids []string
		cursor := ""
		for pages := 0; ; pages++ {
			page, err := w.List(ctx, Filter{Limit: 5, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range page.Instances {
				ids = append(ids, i.ID)
				if !i.Terminal() || len(i.Params) == 0 || len(i.Tasks) != 1 || i.Plan == "" {
					t.Errorf("%s came as %+v", i.ID, i)
				}
			}
			if len(page.AsOf) != 4 || pages > 3 {
				t.Fatalf("page %d: as of %v", pages, page.AsOf)
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
		if !slices.IsSorted(ids) || len(ids) != 12 {
			t.Errorf("listed %v", ids)
		}
		counts, asOf, err := w.Count(ctx, Filter{})
		if diff := cmp.Diff(map[string]int64{"One/COMPLETED": 11, "One/FAILURE": 1}, counts); diff != "" || len(asOf) != 4 || err != nil {
			t.Errorf("count: %v, as of %v\n%s", err, asOf, diff)
		}
		counts, _, err = w.Count(ctx, Filter{IDPrefix: "i-0"})
		if counts["One/COMPLETED"] != 9 || err != nil {
			t.Errorf("count of a prefix: %v, %v", counts, err)
		}
		if page, err := w.List(ctx, Filter{Status: "FAILURE", AtLeast: asOf}); err != nil || len(page.Instances) != 1 || page.Instances[0].Error != "no" {
			t.Errorf("those that failed: %+v, %v", page, err)
		}
		if _, err := w.List(ctx, Filter{Cursor: "nonsense"}); !errors.Is(err, ErrCursor) {
			t.Errorf("a wrong cursor: %v", err)
		}
		id, other := elsewhereOf(w), map[*askable]*askable{a: b, b: a}[w]
		before := other.asked.Load()
		if i, err := w.Get(ctx, id); err != nil || i.ID != id || other.asked.Load() != before+1 {
			t.Errorf("get %s: %+v, %v; the owner was asked %d times", id, i, err, other.asked.Load()-before)
		}
		if _, err := w.Get(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
			t.Errorf("get of nobody: %v", err)
		}
	}
}

// TestWorkerDoesNotAnswer: what is elsewhere is refused with who has it and why it can't be
// asked, whatever stands at its address; one instance is read from the log.
func TestWorkerDoesNotAnswer(t *testing.T) {
	ctx, a, b := twoAskable(t)
	id := elsewhereOf(a)
	hang := make(chan struct{})
	defer close(hang)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"another program": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "its answer: invalid character '<'"},
		"an empty object": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }, "no worker of this log"},
		"not found":       {http.NotFound, "it answers 404 Not Found"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, a.server.URL+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
		}, "it answers 302 Found"},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"log":`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "its answer: unexpected EOF"},
		// Its address is that of the asker, which asks nobody else: no circle.
		"the asker itself": {func(w http.ResponseWriter, r *http.Request) { a.Peers().ServeHTTP(w, r) }, errPeerMoved.Error()},
		"another log": {func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			q.Set("log", "other")
			r.URL.RawQuery = q.Encode()
			b.Peers().ServeHTTP(w, r)
		}, "this worker is of application test and another log"},
		"a wrong question": {func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			q.Set("partition", "99")
			r.URL.RawQuery = q.Encode()
			b.Peers().ServeHTTP(w, r)
		}, "there are 4 partitions"},
		"nothing": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, ""},
	} {
		b.answer(c.handler)
		limit, cancel := ctx, context.CancelFunc(func() {})
		if c.says == "" {
			limit, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
		}
		_, err := a.List(limit, Filter{})
		e, ok := errors.AsType[*ElsewhereError](err)
		switch {
		case c.says == "":
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: List says %v", name, err)
			}
		case !ok || e.Worker != "b" || e.Address != b.server.URL || !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: List says %v", name, err)
		}
		if _, _, err := a.Count(limit, Filter{}); err == nil {
			t.Errorf("%s: Count says nothing", name)
		}
		cancel()
		if i, err := a.Get(ctx, id); err != nil || i.ID != id {
			t.Errorf("%s: Get says %v", name, err)
		}
	}
	b.server.Close()
	if _, err := a.List(ctx, Filter{}); err == nil || !strings.Contains(err.Error(), "which can't be asked: dial tcp") {
		t.Errorf("nobody listens: %v", err)
	}
}

// endless is an answer that does not end.
type endless struct{ begin io.Reader }

func (r endless) Read(p []byte) (int, error) {
	if n, err := r.begin.Read(p); err == nil {
		return n, nil
	}
	for k := range p {
		p[k] = 'x'
	}
	return len(p), nil
}

// TestPeerAnswersTooMuch: what an answer may take of memory has an end.
func TestPeerAnswersTooMuch(t *testing.T) {
	var x entries
	if err := readPeer(endless{strings.NewReader(`{"log":"`)}, &x); err == nil || err.Error() != "it answers more than 64 MiB" {
		t.Errorf("%v", err)
	}
}

// TestPartitionMovesWhileAsked: a partition that its owner lost is asked of the next one.
func TestPartitionMovesWhileAsked(t *testing.T) {
	ctx, a, b := twoAskable(t)
	first := true
	b.answer(func(w http.ResponseWriter, r *http.Request) {
		if first { // as a worker that has just lost it
			first = false
			refusePeer(w, problemOfPeer(&ElsewhereError{Partition: 1, Worker: "c"}))
			return
		}
		b.Peers().ServeHTTP(w, r)
	})
	if page, err := a.List(ctx, Filter{}); err != nil || len(page.Instances) != 12 || b.asked.Load() < 2 {
		t.Errorf("%d instances, %v, asked %d times", len(page.Instances), err, b.asked.Load())
	}
}

// TestLastOwner: the search goes on where it was cut short, and sees who comes later.
func TestLastOwner(t *testing.T) {
	log := memLog(t)
	code := executeCode(t, "One", 1, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	a, end := worker(t, "a", log, memStore(t), code)
	until(t, ctx, "a has all", func() bool { return len(a.Partitions()) == 4 })
	for k := range 400 {
		startAndWait(t, a, fmt.Sprint("i-", k), "One", json.RawMessage(`{}`))
	}
	looks, err := New(ctx, Config{Log: log, Store: memStore(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer looks.Close()
	for p := range int32(4) {
		ended, stop := context.WithCancel(ctx)
		stop()
		if o, err := looks.owners.last(ended, looks, p); err == nil {
			t.Errorf("partition %d, after the context ended: %+v", p, o)
		}
		for range 2 {
			if o, err := looks.owners.last(ctx, looks, p); err != nil || o.worker != "a" || o.address != deadAddress+"a" || o.epoch == 0 {
				t.Errorf("partition %d: %+v, %v", p, o, err)
			}
		}
	}
	end()
	b, _ := worker(t, "b", log, memStore(t), code)
	until(t, ctx, "b has all", func() bool { return len(b.Partitions()) == 4 && b.Partitions()[3].Ready })
	for p := range int32(4) {
		until(t, ctx, "b is the owner", func() bool {
			o, err := looks.owners.last(ctx, looks, p)
			return err == nil && o.worker == "b"
		})
	}
}
