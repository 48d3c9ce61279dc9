package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// served is an engine that runs in this process.
type served struct {
	*workflow.Engine
	log   eventlog.Log
	store projection.Store
	stop  func()
}

// serve runs an engine with the definition until stop, or the end of the test.
func serve(t *testing.T, logURL, storeURL string, def workflow.AnyDefinition, topics ...string) served {
	t.Helper()
	log := openedLog(t, logURL)
	for _, topic := range topics {
		if err := log.EnsureTopic(t.Context(), topic, 4); err != nil {
			t.Fatal(err)
		}
	}
	store, err := projection.Open(t.Context(), storeURL, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := workflow.Open(t.Context(), workflow.Config{
		OpenedLog: log, OpenedStore: store, Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second, ProjectInterval: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := errors.Join(eng.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return served{eng, log, store, stop}
}

// admin is a client that may delete topics.
func admin(t *testing.T, addr string) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func deleteTopic(t *testing.T, adm *kadm.Client, name string) {
	t.Helper()
	if _, err := adm.DeleteTopic(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// TestDeletedTopicOfUsersKafka deletes a topic that Command tasks send to. Those tasks fail
// with the broker's words, and nothing else does; once the topic is there again, a retry of
// each completes.
func TestDeletedTopicOfUsersKafka(t *testing.T) {
	begin(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	addr := brokers(t)
	logURL, storeURL := kafkaURL(addr), "pebble:"+filepath.Join(t.TempDir(), "store")
	out := strings.ReplaceAll(t.Name(), "/", "-") + logURL[strings.LastIndex(logURL, "-"):strings.Index(logURL, "?")]
	def := workflow.New("Sender", workflow.Process("P",
		workflow.Command("send", out, func(_ context.Context, p *parcel) (letter, error) { return letter{ID: p.ID}, nil }).With(workflow.Retry(2, 10*time.Millisecond)),
		workflow.Execute("work", func(context.Context, *parcel) error { return nil })))
	s := serve(t, logURL, storeURL, def, out)
	start := func(from, to int) (all []*workflow.Handle[parcel]) {
		for n := from; n < to; n++ {
			h, err := def.Start(ctx, s.Engine, fmt.Sprint("i-", n), parcel{ID: fmt.Sprint(n)})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, h)
		}
		return all
	}
	for _, h := range start(0, 20) {
		if _, err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	adm := admin(t, addr)
	deleteTopic(t, adm, out)
	failed := start(20, 40)
	for _, h := range failed {
		_, err := h.Wait(ctx)
		if task, ok := errors.AsType[*workflow.TaskError](err); !ok || !strings.Contains(err.Error(), "send message to "+out) {
			t.Fatalf("%s: %v, want an error of the task that sends", h.ID(), err)
		} else if h == failed[0] {
			t.Logf("while the topic is gone: %v", task)
		}
	}
	if err := s.log.EnsureTopic(ctx, out, 4); err != nil {
		t.Fatal(err)
	}
	for _, h := range failed {
		if err := h.Retry(ctx, "the topic is there again"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	report, err := audit.Log(t.Context(), s.log, audit.Options{})
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		t.Error(err)
	}
	checkStores(t, s.log, []string{storeURL})
}

// TestDeletedEventsAreRefusedKafka deletes the log itself, while no worker runs. The worker
// that comes next does not take the empty log for the one that its store has folded: it says
// so, does not open, and leaves the store as it is.
func TestDeletedEventsAreRefusedKafka(t *testing.T) {
	begin(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	addr := brokers(t)
	logURL, storeURL := kafkaURL(addr), "pebble:"+filepath.Join(t.TempDir(), "store")
	def := workflow.New("Worker", workflow.Process("P", workflow.Execute("work", func(context.Context, *parcel) error { return nil })))
	s := serve(t, logURL, storeURL, def)
	for n := range 40 {
		h, err := def.Start(ctx, s.Engine, fmt.Sprint("i-", n), parcel{})
		if err == nil {
			_, err = h.Wait(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	before := rows(t, s)
	deleteTopic(t, admin(t, addr), eventlog.EventsTopic(s.log.App()))
	if err := s.log.Close(); err != nil {
		t.Error(err)
	}

	log := openedLog(t, logURL)
	store, err := projection.Open(ctx, storeURL, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := workflow.Open(ctx, workflow.Config{OpenedLog: log, OpenedStore: store, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = errors.Join(errors.New("it was opened"), eng.Close())
	}
	if !strings.Contains(err.Error(), "belongs to another log") {
		t.Errorf("open an engine on the empty log: %v", err)
	}
	t.Log(err)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if after := rows(t, s); after != before {
		t.Errorf("the store has %d rows, it had %d", after, before)
	}
}

// rows counts those of a store whose engine was stopped.
func rows(t *testing.T, s served) (n int) {
	t.Helper()
	store, err := projection.Open(t.Context(), s.store.URL(), projection.Identity{App: s.log.App(), Partitions: s.log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for p := range s.log.Partitions() {
		n += len(dump(t, store, p))
	}
	return n
}
