package prom

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	_ "github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type order struct {
	Number int `json:"number"`
}

// spoiledStore shows the row of one instance otherwise than its owner wrote it, when it is told to.
type spoiledStore struct {
	projection.Store
	id      string
	spoiled *atomic.Bool
}

func (s spoiledStore) View(ctx context.Context, partition int32) (projection.View, error) {
	v, err := s.Store.View(ctx, partition)
	return spoiledView{v, s}, err
}

type spoiledView struct {
	projection.View
	s spoiledStore
}

func (v spoiledView) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	values, at, err := v.View.Get(ctx, kind, keys)
	for k := range values {
		if kind == projection.KindInstance && string(keys[k]) == v.s.id && v.s.spoiled.Load() {
			values[k] = append(values[k], ' ')
		}
	}
	return values, at, err
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// TestVerifier: the background verifier counts what it compares; a row that is not what the log
// says counts as a difference, and stands in the log with the instance's id.
func TestVerifier(t *testing.T) {
	const id = "order-3"
	spoiled := new(atomic.Bool)
	store := spoiledStore{memstore.New(projection.Identity{App: "verified", Partitions: 2}), id, spoiled}
	metrics, said := New(), &lines{}
	eng, err := workflow.Open(t.Context(), workflow.Config{
		Log: "mem:?app=verified&partitions=2", OpenedStore: store, Observer: metrics.Observer(),
		ProjectInterval: 5 * time.Millisecond, VerifyInterval: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	def := workflow.New("Verified", workflow.Execute("t", func(context.Context, *order) error { return nil }))
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- eng.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for n := range 6 {
		h, err := def.Start(t.Context(), eng, fmt.Sprint("order-", n), order{n})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	handler := metrics.Handler(eng)
	value := func(name string) (v float64) {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		for line := range strings.Lines(w.Body.String()) {
			if _, err := fmt.Sscanf(line, name+" %g", &v); err == nil {
				return v
			}
		}
		t.Fatalf("there is no metric %s:\n%s", name, w.Body.String())
		return 0
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(5 * time.Minute); !holds(); <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("it did not come to be that %s", what)
			}
		}
	}
	until("all were compared", func() bool { return value("dagger_verified_instances_total") >= 12 })
	if n := value("dagger_verify_differences_total"); n != 0 || said.has("differs") {
		t.Errorf("%g differences in a store that is right", n)
	}
	spoiled.Store(true)
	until("the difference is counted", func() bool { return value("dagger_verify_differences_total") >= 1 })
	if !said.has("level=ERROR") || !said.has("instance="+id) {
		t.Errorf("the log does not name %s", id)
	}
}
