package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/workflow"
)

// testBrokers are those that KAFKA_BROKERS names; the test is skipped where it names none.
func testBrokers(t *testing.T) string {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		t.Skip("KAFKA_BROKERS is not set: nothing was run against a real broker")
	}
	return brokers
}

type move struct {
	Order string `json:"order"`
	Due   int64  `json:"due"` // ms
	Held  string `json:"held,omitempty"`
	Tries int    `json:"tries,omitempty"`
}

// moving is an application that is moved while much is under way: instances that wait for
// messages, hold one that they can't take yet, wait for a time and for their next attempt, and
// messages that nobody waits for.
type moving struct {
	signals, gates, helds string // topics
	repaired              atomic.Bool
	failed                atomic.Int64 // attempts
	def                   *workflow.Definition[move]
}

func newMoving() *moving {
	m := &moving{}
	of := strings.ToLower(rand.Text()[:10])
	m.signals, m.gates, m.helds = "signals-"+of, "gates-"+of, "helds-"+of
	by := workflow.By("order", func(x *move) string { return x.Order }, func(s *notice) string { return s.Order })
	m.def = workflow.New("Mover", workflow.Parallel("all", workflow.All,
		workflow.Listen("signal", m.signals, by, func(context.Context, *move, notice) (bool, error) { return true, nil }),
		workflow.Process("behind",
			workflow.Listen("gate", m.gates, by, func(context.Context, *move, notice) (bool, error) { return true, nil }),
			workflow.Listen("held", m.helds, by, func(_ context.Context, x *move, s notice) (bool, error) {
				x.Held += s.Order
				return true, nil
			})),
		workflow.Execute("flaky", func(_ context.Context, x *move) error {
			if !m.repaired.Load() {
				m.failed.Add(1)
				return workflow.RetryAfter(time.Second, errors.New("connection refused"))
			}
			x.Tries++
			return nil
		}).With(workflow.Retry(1000, time.Second)),
		workflow.At("later", func(x *move) time.Time { return time.UnixMilli(x.Due) }, func(context.Context, *move) error { return nil })))
	return m
}

// engine runs one while f does, and until what was told is decided.
func (m *moving) engine(ctx context.Context, t *testing.T, logURL, storeURL string, f func(*workflow.Engine)) {
	t.Helper()
	e, err := workflow.Open(ctx, workflow.Config{Log: logURL, Store: storeURL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(m.def); err != nil {
		t.Fatal(err)
	}
	life, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(life); err != nil {
			t.Error(err)
		}
	})
	defer func() {
		stop()
		wg.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	f(e)
	for end := time.Now().Add(time.Second); ; { // an acknowledgement comes a second after what it is about
		r, err := audit.Log(ctx, e.Log(), audit.Options{Settled: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Violations == 0 && time.Now().After(end) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(r.Err())
		}
	}
}

// begin makes instances m-0 to m-7 with all that can be under way; those up to m-2 have got their
// signal.
func (m *moving) begin(ctx context.Context, t *testing.T, e *workflow.Engine) {
	t.Helper()
	for k := range 8 {
		order := fmt.Sprint(k)
		if _, err := m.def.Start(ctx, e, "m-"+order, move{Order: order, Due: time.Now().Add(6 * time.Second).UnixMilli()}); err != nil {
			t.Fatal(err)
		}
		publish(ctx, t, e.Log(), m.helds, order)
	}
	for _, order := range []string{"0", "1", "2", "late-1", "late-2"} {
		publish(ctx, t, e.Log(), m.signals, order)
	}
	for m.failed.Load() < 16 { // the next attempts are on their way
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the instances do not begin")
		}
	}
}

// unread publishes a signal while no engine runs.
func (m *moving) unread(ctx context.Context, t *testing.T, url, order string) {
	t.Helper()
	log, err := eventlog.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	publish(ctx, t, log, m.signals, order)
}

// goesOn waits until the engine has all instances and makes their next attempts.
func (m *moving) goesOn(ctx context.Context, t *testing.T, e *workflow.Engine) {
	t.Helper()
	for before := m.failed.Load(); ; {
		n := int64(0)
		if counts, err := e.Count(ctx, workflow.Filter{}); err == nil { // else it does not have all partitions yet
			for _, byStatus := range counts.Of {
				for _, of := range byStatus {
					n += of
				}
			}
		}
		if n == 8 && m.failed.Load() > before {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d instances go on", n)
		}
	}
}

// end lets everything end, also instances that take messages which waited for nobody.
func (m *moving) end(ctx context.Context, t *testing.T, e *workflow.Engine) {
	t.Helper()
	m.repaired.Store(true)
	orders := []string{"0", "1", "2", "3", "4", "5", "6", "7"}
	for _, order := range orders {
		if order > "3" {
			publish(ctx, t, e.Log(), m.signals, order)
		}
		publish(ctx, t, e.Log(), m.gates, order)
	}
	for _, order := range []string{"late-1", "late-2"} {
		if _, err := m.def.Start(ctx, e, "m-"+order, move{Order: order, Due: 1}); err != nil {
			t.Fatal(err)
		}
		publish(ctx, t, e.Log(), m.gates, order)
		publish(ctx, t, e.Log(), m.helds, order)
	}
	for _, order := range append(orders, "late-1", "late-2") {
		x, err := m.def.Handle(e, "m-"+order).Wait(ctx)
		if err != nil {
			t.Fatalf("m-%s: %v", order, err)
		}
		if x.Held != order || x.Tries != 1 {
			t.Errorf("m-%s ended with %+v", order, x)
		}
	}
}

// eventsOf are the events of a log as they stand there, and their offsets.
func eventsOf(ctx context.Context, t *testing.T, url string) (events [][]string, offsets [][]int64) {
	t.Helper()
	log, err := eventlog.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		t.Fatal(err)
	}
	for p, x := range topic.Partitions {
		r, err := log.Read(ctx, topic.Name, int32(p), x.Start, topic.ID, eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		var values []string
		var at []int64
		for next := x.Start; next < x.End; {
			var records []eventlog.Record
			if records, next, err = r.Next(ctx); err != nil {
				t.Fatal(err)
			}
			for _, rec := range records {
				if !eventlog.IsBarrier(rec.Value) {
					values, at = append(values, string(rec.Value)), append(at, rec.Offset)
				}
			}
		}
		r.Close()
		events, offsets = append(events, values), append(offsets, at)
	}
	return events, offsets
}

// wantCopied compares a copy with what it was made of: all events byte for byte and so under
// their numbers, and one more at the end of each partition.
func wantCopied(ctx context.Context, t *testing.T, from, to string) {
	t.Helper()
	was, at := eventsOf(ctx, t, from)
	is, now := eventsOf(ctx, t, to)
	moved := false
	for p := range was {
		if n := len(was[p]); len(is[p]) != n+1 {
			t.Fatalf("partition %d has %d events, and had %d", p, len(is[p]), n)
		}
		for k := range was[p] {
			if was[p][k] != is[p][k] {
				t.Fatalf("partition %d: %s\nis now %s", p, was[p][k], is[p][k])
			}
			moved = moved || at[p][k] != now[p][k]
		}
	}
	if !moved {
		t.Error("all offsets are the same: one of the logs is on Kafka, where a transaction takes one of its own")
	}
}

// TestCopyKilledKafka moves an application to Kafka and back by copies that are killed at any of
// their writes and given again: nothing is doubled, and everything goes on.
func TestCopyKilledKafka(t *testing.T) {
	brokers := testBrokers(t)
	random := randomly(t)
	t.Parallel() // what a killed process had is given up after eight seconds
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	m := newMoving()
	dir := t.TempDir()
	first, last := "file:"+dir+"/first", "file:"+dir+"/last"
	kafka := "kafka://" + brokers + "/moved-" + strings.ToLower(rand.Text()[:10])
	m.engine(ctx, t, first+"?partitions=2", "pebble:"+dir+"/store-1", func(e *workflow.Engine) { m.begin(ctx, t, e) })
	m.unread(ctx, t, first, "3")
	if s := killedUntilDone(ctx, t, random, 2, 20, "copy-log", "--from", first, "--to", "kill:"+kafka+"?replication=1"); s != "" && !strings.Contains(s, "1 messages of "+m.signals) {
		t.Errorf("copied: %s", s)
	}
	kafka += "?create=false"
	wantCopied(ctx, t, first, kafka)
	m.engine(ctx, t, kafka, "pebble:"+dir+"/store-2", func(e *workflow.Engine) { m.goesOn(ctx, t, e) })
	killedUntilDone(ctx, t, random, 8, 20, "copy-log", "--from", kafka, "--to", "kill:"+last)
	wantCopied(ctx, t, kafka, last)
	m.engine(ctx, t, last, "pebble:"+dir+"/store-3", func(e *workflow.Engine) { m.end(ctx, t, e) })
	for k, url := range []string{first, kafka, last} {
		wantWhole(ctx, t, url, fmt.Sprintf("pebble:%s/store-%d", dir, k+1))
	}
}

// wantWhole audits a log, and compares its store with it.
func wantWhole(ctx context.Context, t *testing.T, logURL, storeURL string) {
	t.Helper()
	var out, errs bytes.Buffer
	args := []string{"verify", "--audit", "--settled", "--log", logURL, "--store", storeURL, "--progress", "none", "-o", "json"}
	status := run(ctx, args, &out, &errs, func(string) string { return "" })
	var v verified
	if err := json.Unmarshal(out.Bytes(), &v); status != statusDone || err != nil || v.Instances < 8 || v.Differences > 0 || v.Audit.Violations > 0 {
		t.Fatalf("%s: status %d, %v: %s%s", logURL, status, err, out.String(), errs.String())
	}
	t.Logf("%s: %d events, %d instances, 0 differences, 0 violations", logURL, v.Events, v.Instances)
}

// TestImportKilledKafka brings an application into one on Kafka with more partitions, and from
// there into one with fewer, by imports that are killed at any of their writes and given again.
func TestImportKilledKafka(t *testing.T) {
	brokers := testBrokers(t)
	random := randomly(t)
	t.Parallel() // what a killed process had is given up after eight seconds
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	m := newMoving()
	dir := t.TempDir()
	first, last := "file:"+dir+"/first", "file:"+dir+"/last?partitions=1"
	kafka := "kafka://" + brokers + "/wide-" + strings.ToLower(rand.Text()[:10])
	m.engine(ctx, t, first+"?partitions=2", "pebble:"+dir+"/store-1", func(e *workflow.Engine) { m.begin(ctx, t, e) })
	export := func(log string) string {
		t.Helper()
		file := filepath.Join(dir, strings.ToLower(rand.Text()[:6])+".jsonl")
		if status, said := child(ctx, t, 0, "export", "--all", "--at-rest", "--log", log, "--file", file); status != 0 {
			t.Fatalf("export: status %d: %s", status, said)
		}
		return file
	}
	s := killedUntilDone(ctx, t, random, 2, 25, "import", export(first), "--to", "kill:"+kafka+"?replication=1&partitions=5")
	if s != "" && (!strings.Contains(s, "8 instances and 10 messages in 5 partitions") || !strings.Contains(s, "audit: 0 violations")) {
		t.Errorf("imported: %s", s)
	}
	kafka += "?create=false"
	m.engine(ctx, t, kafka, "pebble:"+dir+"/store-2", func(e *workflow.Engine) { m.goesOn(ctx, t, e) })
	killedUntilDone(ctx, t, random, 8, 9, "import", export(kafka), "--to", "kill:"+last)
	m.engine(ctx, t, last, "pebble:"+dir+"/store-3", func(e *workflow.Engine) {
		publish(ctx, t, e.Log(), m.signals, "3")
		m.end(ctx, t, e)
	})
	for k, url := range []string{first, kafka, last} {
		wantWhole(ctx, t, url, fmt.Sprintf("pebble:%s/store-%d", dir, k+1))
	}
}
