package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

// parcel is an instance that may be poison.
type parcel struct {
	ID       string
	Size     int    // of the message that it sends
	Panics   int    // attempts in which the handler panics
	BadKey   bool   // the function of its correlation key panics
	Received string `json:",omitempty"`
}

// letter is a message to it and from it.
type letter struct{ ID, Body string }

func parcels(poisonIn, poisonOut string) *workflow.Definition[parcel] {
	return workflow.New("Parcel", workflow.Process("P",
		workflow.Command("send", poisonOut, func(ctx context.Context, p *parcel) (letter, error) {
			if workflow.TaskFrom(ctx).Attempt <= p.Panics {
				panic("the handler panics")
			}
			return letter{p.ID, noise(p.Size)}, nil
		}).With(workflow.Retry(2, 10*time.Millisecond)),
		workflow.Listen("hear", poisonIn, workflow.By("id", func(p *parcel) string {
			if p.BadKey {
				panic("the key of the parameters panics")
			}
			return p.ID
		}, func(m *letter) string {
			if m.ID == "boom" {
				panic("the key of the message panics")
			}
			return m.ID
		}), func(_ context.Context, p *parcel, m letter) (bool, error) {
			p.Received = fmt.Sprint(len(m.Body))
			return true, nil
		})))
}

// noise is text that no compression makes much smaller.
func noise(size int) string {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for k := range b {
		b[k] = byte(' ' + 2 + random.IntN('Z'-' '-2)) // no quote, no backslash
	}
	return string(b)
}

// TestPoisonHurtsNobodyElseEmbedded gives the engine handlers and key functions that panic,
// messages that can't be read, and a Command message that is too large. Each ends where
// DESIGN says, and all others complete.
func TestPoisonHurtsNobodyElseEmbedded(t *testing.T) {
	begin(t)
	dir := t.TempDir()
	poison(t, "file:"+filepath.Join(dir, "log"), "pebble:"+filepath.Join(dir, "store"), nil)
}

// TestPoisonHurtsNobodyElseKafka does the same on a real broker, with a message of 5 MB that
// is received and a Command message that the broker itself refuses.
func TestPoisonHurtsNobodyElseKafka(t *testing.T) {
	begin(t)
	t.Parallel()
	addr := brokers(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	poison(t, kafkaURL(addr), "pebble:"+filepath.Join(t.TempDir(), "store"), kadm.NewClient(cl))
}

func poison(t *testing.T, logURL, storeURL string, broker *kadm.Client) {
	log := openedLog(t, logURL)
	poisonIn, poisonOut := "poison_in"+suffix(log), "poison_out"+suffix(log)
	for _, topic := range []string{poisonIn, poisonOut} {
		if err := log.EnsureTopic(t.Context(), topic, 4); err != nil {
			t.Fatal(err)
		}
	}
	limit := func(topic string, size int) {
		value := fmt.Sprint(size)
		resp, err := broker.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &value}}, topic)
		for _, r := range resp {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if broker != nil {
		limit(poisonIn, 6<<20)
		limit(poisonOut, 1<<20)
	}
	store, err := projection.Open(t.Context(), storeURL, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, OpenedStore: store, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	def := parcels(poisonIn, poisonOut)
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Error(err)
		}
	})

	prefix := log.App() + "-"
	all := []parcel{
		{ID: prefix + "panics-once", Panics: 1}, {ID: prefix + "panics", Panics: 9},
		{ID: prefix + "large", Size: 2 << 20}, {ID: prefix + "bad-key", BadKey: true},
	}
	for n := range 30 {
		all = append(all, parcel{ID: fmt.Sprint(prefix, n)})
	}
	want := map[string]string{
		prefix + "panics": "the handler panics", prefix + "large": "topic " + poisonOut + " takes",
	}
	if broker != nil {
		// The engine knows the limit of before; the broker has the last word.
		if _, err := log.Topic(ctx, poisonOut); err != nil {
			t.Fatal(err)
		}
		limit(poisonOut, 100<<10)
		all = append(all, parcel{ID: prefix + "refused", Size: 500 << 10})
		want[prefix+"refused"] = "send message to " + poisonOut
	}
	letters := []eventlog.Record{
		{Value: []byte("not JSON")}, {Value: []byte("7")}, {Value: []byte(`{"ID":"boom"}`)}, {Value: nil}, {Value: []byte{}},
	}
	dead := []string{"not JSON", "7", "boom"}
	for _, p := range all {
		letters = append(letters, eventlog.Record{Key: []byte(p.ID), Value: fmt.Appendf(nil, `{"ID":%q,"Body":"hello"}`, p.ID)})
	}
	big := eventlog.Record{Key: []byte("big"), Value: fmt.Appendf(nil, `{"ID":%q,"Body":%q}`, prefix+"0", strings.Repeat("x", 5<<20))}
	for k := range letters {
		letters[k].Topic, letters[k].Partition = poisonIn, -1
	}
	big.Topic, big.Partition = poisonIn, -1
	if err := log.Publish(ctx, letters[:len(letters)/2]...); err != nil {
		t.Fatal(err)
	}
	err = log.Publish(ctx, big)
	switch {
	case broker != nil && err != nil:
		t.Error(err)
	case broker == nil && !errors.Is(err, eventlog.ErrTooLarge):
		t.Errorf("a message of 5 MB: %v, want %v", err, eventlog.ErrTooLarge)
	case broker != nil:
		dead = append(dead, "too large to be delivered")
	}
	if err := log.Publish(ctx, letters[len(letters)/2:]...); err != nil {
		t.Fatal(err)
	}
	handles := map[string]*workflow.Handle[parcel]{}
	for _, p := range all {
		h, err := def.Start(ctx, eng, p.ID, p)
		switch {
		case p.BadKey && err != nil && strings.Contains(err.Error(), "the key of the parameters panics"):
			t.Logf("%s: %v", strings.TrimPrefix(p.ID, prefix), err)
		case p.BadKey:
			t.Errorf("%s: its start was accepted: %v", p.ID, err)
		case err != nil:
			t.Fatal(err)
		default:
			handles[p.ID] = h
		}
	}
	for id, h := range handles {
		_, err := h.Wait(ctx)
		switch {
		case want[id] == "" && err != nil:
			t.Errorf("%s: %v", id, err)
		case want[id] != "" && (err == nil || !strings.Contains(err.Error(), want[id])):
			t.Errorf("%s: %v, want %q in it", id, err, want[id])
		case want[id] != "":
			t.Logf("%s: %.200v", strings.TrimPrefix(id, prefix), err)
		}
	}
	awaitDead(ctx, t, log, dead)
	stop()
	running.Wait()
	for _, close := range []func() error{eng.Close, store.Close} {
		if err := close(); err != nil {
			t.Error(err)
		}
	}
	report, err := audit.Log(t.Context(), log, audit.Options{})
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		t.Error(err)
	}
	checkStores(t, log, []string{storeURL})
}

// awaitDead waits until each text is in a dead letter.
func awaitDead(ctx context.Context, t *testing.T, log eventlog.Log, texts []string) {
	t.Helper()
	r, err := log.Read(ctx, eventlog.DeadLetterTopic(log.App()), 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	missing := map[string]bool{}
	for _, text := range texts {
		missing[text] = true
	}
	for len(missing) > 0 {
		records, _, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("no dead letter has %v: %v", missing, err)
		}
		for _, rec := range records {
			all := bytes.Clone(rec.Value)
			for _, h := range rec.Headers {
				all = append(append(all, ' '), h.Value...)
			}
			for text := range missing {
				if bytes.Contains(all, []byte(text)) {
					delete(missing, text)
				}
			}
		}
	}
}
