package webui

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/godagger/dagger/backends/pebble"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/workflow"
)

type parcel struct {
	ID string `json:"id"`
}

// TestCheckpoint copies the store of an engine that works, and lets another engine work with
// the copy.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	def := workflow.New("Parcel", workflow.Execute("pack", func(context.Context, *parcel) error { return nil }))
	started := func(store string) (*workflow.Engine, func()) {
		eng, err := workflow.Open(ctx, workflow.Config{Log: "file:" + filepath.Join(dir, "log") + "?partitions=3", Store: store, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() {
			if err := eng.Run(run); err != nil {
				t.Error(err)
			}
		})
		return eng, sync.OnceFunc(func() {
			stop()
			running.Wait()
			if err := eng.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	work := func(eng *workflow.Engine, ids ...string) {
		for _, id := range ids {
			h, err := def.Start(ctx, eng, id, parcel{id})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	eng, stop := started("pebble:" + filepath.Join(dir, "store"))
	defer stop()
	work(eng, "a", "b", "c", "d", "e", "f")
	server := httptest.NewServer(New(eng, Options{Checkpoints: filepath.Join(dir, "copies")}))
	defer server.Close()
	post := func(name string) (int, string) {
		answer, err := http.Post(server.URL+"/api/v1/store/checkpoint?name="+name, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	for _, name := range []string{"", "..", "..%2Fstore", "a%2Fb", ".x", "a..b", "%00"} {
		if status, body := post(name); status != http.StatusBadRequest {
			t.Errorf("name %q: %d %s", name, status, body)
		}
	}
	// The store is written behind the work; wait until it has something.
	for {
		if counts, err := eng.Count(ctx, workflow.Filter{Status: workflow.Completed}); err == nil && counts.Total() == 6 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the store never has six parcels")
		}
	}
	status, body := post("monday")
	var answer checkpointed
	if err := json.Unmarshal([]byte(body), &answer); status != http.StatusOK || err != nil || len(answer.AsOf) == 0 {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := post("monday"); status != http.StatusConflict || !strings.Contains(body, "not empty") {
		t.Errorf("the same name again: %d %s", status, body)
	}
	work(eng, "g", "h")
	stop()
	if _, err := os.Stat(filepath.Join(dir, "copies", "monday", "STORE")); err != nil {
		t.Fatal(err)
	}
	copied, stopCopied := started("pebble:" + filepath.Join(dir, "copies", "monday"))
	defer stopCopied()
	work(copied, "i", "a")
	for _, id := range []string{"a", "g", "i"} {
		if i, err := copied.Get(ctx, id); err != nil || i.Status != workflow.Completed {
			t.Errorf("%s: %+v, %v", id, i, err)
		}
	}
}
