package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// TestCopyLog moves an application between logs three times, with instances under way,
// messages that no relay has read, and requests that nobody has consumed: everything goes on,
// once.
func TestCopyLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	log := memLog(t)
	ordersDone(t, log, memStore(t)) // i-00, i-02, … have completed, the others wait
	next := 1
	for round := range 3 {
		// While no engine runs: a message for one that waits, one that came before and again, and
		// a new instance.
		say(t, log, fmt.Sprintf("o-%d", next), "late")
		say(t, log, "o-0", "again")
		q := eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: fmt.Sprintf("new-%d", round), Request: fmt.Sprintf("r-%d", round), Made: time.Now().UnixMilli(),
			Definition: "Order", Params: []byte(fmt.Sprintf(`{"order":"n-%d"}`, round)), Keys: []eventlog.TaskKey{{Path: "P/ready", Value: fmt.Sprintf("n-%d", round)}}}
		value, err := eventlog.AppendRequest(nil, &q)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic(log.App()), Partition: eventlog.PartitionOf(q.ID, log.Partitions()), Key: []byte(q.PartitionKey()), Value: value}); err != nil {
			t.Fatal(err)
		}
		deliverTwice(ctx, t, log, fmt.Sprintf("o-%d", next), "late")
		deliverTwice(ctx, t, log, "o-0", "ready") // counted long ago
		before := instancesOf(ctx, t, log)

		to, err := embedlog.OpenMemory(embedlog.Options{App: fmt.Sprintf("copy-%d", round), Partitions: log.Partitions()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = to.Close() })
		var o CopyOptions
		if round < 2 { // else what no relay has read alone
			o.Topics = []string{"status"}
		}
		done, err := CopyLog(ctx, log, to, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("copied %+v", done)
		if done.Requests < 2 || done.Messages["status"] == 0 || done.Definitions == 0 || done.Events == 0 {
			t.Errorf("something was not copied: %+v", done)
		}
		if diff := cmp.Diff(before, instancesOf(ctx, t, to), cmpopts.IgnoreUnexported(machine.Instance{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the copy is another one: %s", diff)
		}
		if _, err := CopyLog(ctx, log, to, CopyOptions{}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second copy: %v", err)
		}

		log = to
		store := memStore(t)
		e, stop := runEngine(t, log, store, runOrders(t))
		if i, err := e.Wait(ctx, fmt.Sprintf("i-%02d", next)); err != nil || i.Status != machine.Completed {
			t.Fatalf("an instance that waited: %+v, %v", i, err)
		}
		say(t, log, fmt.Sprintf("n-%d", round), "for the new one")
		until(t, ctx, "the request is decided", func() bool {
			_, err := e.Get(ctx, q.ID)
			return err == nil
		})
		if i, err := e.Wait(ctx, q.ID); err != nil || i.Status != machine.Completed {
			t.Fatalf("the instance of the request: %+v, %v", i, err)
		}
		until(t, ctx, "the log is settled", func() bool {
			r, err := audit.Log(ctx, log, audit.Options{Settled: true})
			if err != nil {
				t.Fatal(err)
			}
			return r.Violations == 0 && !r.Moved
		})
		// It waits for the engine to end, for ten seconds, and is refused then.
		if err, wrote := hurriedCopy(t, log); !errors.Is(err, context.DeadlineExceeded) || wrote != nil {
			t.Errorf("a copy while the engine runs: %v, and it has written: %v", err, wrote)
		}
		untilAtRest(t, log, store)
		stop()
		if v, err := Verify(ctx, log, store, nil); err != nil || v.Differences > 0 {
			t.Errorf("verify: %+v, %v", v, err)
		}
		// One that counted would be kept, for nobody waits for it any more.
		want := slices.Repeat([]string{"again"}, round+1)
		if diff := cmp.Diff(map[string][]string{"o-0": want, fmt.Sprintf("o-%d", next): nil}, map[string][]string{
			"o-0": keptFor(t, log, store, "o-0"), fmt.Sprintf("o-%d", next): keptFor(t, log, store, fmt.Sprintf("o-%d", next))}, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("messages that wait (-want +got):\n%s", diff)
		}
		next += 2
	}
}

// keptFor are the notes of the messages that wait for somebody who waits for an order.
func keptFor(t *testing.T, log eventlog.Log, store projection.Store, order string) (notes []string) {
	t.Helper()
	v, err := store.View(t.Context(), eventlog.PartitionOf(order, log.Partitions()))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	rows, _, err := scanAll(t.Context(), v, projection.KindKept, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		var m keptRow
		var of struct{ Order, Note string }
		if err := errors.Join(decodeRow(row.Value, &m), json.Unmarshal(m.Message.Value, &of)); err != nil {
			t.Fatal(err)
		}
		if of.Order == order {
			notes = append(notes, of.Note)
		}
	}
	return notes
}

// deliverTwice appends what a relay would that died before it could commit how far it was:
// the next one reads the message again.
func deliverTwice(ctx context.Context, t *testing.T, log eventlog.Log, order, note string) {
	t.Helper()
	topic, err := log.Topic(ctx, "status")
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range recordsOf(ctx, log, "status", topic.Partitions[0].Start, topic.Partitions[0].End) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(rec.Value), fmt.Sprintf("%q", order)) || !strings.Contains(string(rec.Value), note) {
			continue
		}
		q := eventlog.Request{V: 1, Type: eventlog.Deliver, Topic: "status", Key: "order", Value: order, Message: messageOf(&rec, topic.ID), TTL: time.Hour.Milliseconds(),
			Source: &eventlog.Source{TopicID: topic.ID, Partition: 0, Key: "order"}, Mark: &eventlog.Mark{Pos: rec.Offset}}
		value, err := eventlog.AppendRequest(nil, &q)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic(log.App()), Partition: eventlog.PartitionOf(order, log.Partitions()), Key: []byte(q.PartitionKey()), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
}

// hurriedCopy is a copy that is given up after a moment, and what it has written until then.
func hurriedCopy(t *testing.T, log eventlog.Log) (err, wrote error) {
	t.Helper()
	to, err := embedlog.OpenMemory(embedlog.Options{Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = CopyLog(ctx, log, to, CopyOptions{})
	return err, empty(t.Context(), to)
}

// instancesOf are all instances by the log, without what counts events of the partition.
func instancesOf(ctx context.Context, t *testing.T, log eventlog.Log) map[string]*machine.Instance {
	t.Helper()
	past, err := ReadPast(ctx, log, Point{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := past.List(ctx, Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]*machine.Instance{}
	for _, i := range l.Instances {
		m[i.ID] = i
	}
	return m
}

func TestCopyLogRefuses(t *testing.T) {
	ctx := t.Context()
	log := memLog(t)
	other, err := embedlog.OpenMemory(embedlog.Options{Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := CopyLog(ctx, log, other, CopyOptions{}); !errors.Is(err, eventlog.ErrPartitions) {
		t.Errorf("another count of partitions: %v", err)
	}
	same, err := embedlog.OpenMemory(embedlog.Options{Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	// A log that nobody ever used is copied, too.
	if done, err := CopyLog(ctx, log, same, CopyOptions{}); err != nil || done.Events != 0 {
		t.Errorf("an empty log: %+v, %v", done, err)
	}
	// A store of the old log is refused in the new one.
	ordersDone(t, log, memStore(t))
	store := memStore(t)
	for p := range log.Partitions() {
		if _, err := rebuildOne(ctx, log, store, p, RebuildOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	copied, err := embedlog.OpenMemory(embedlog.Options{Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if _, err := CopyLog(ctx, log, copied, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(ctx, Config{Log: copied, Store: store, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrForeignStore) {
		t.Errorf("the old log's store: %v", err)
	}
	// Somebody writes to the source meanwhile, which no group tells.
	third, err := embedlog.OpenMemory(embedlog.Options{Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	write := sync.OnceValue(func() error {
		return log.Publish(ctx, eventlog.Record{Topic: eventlog.DeadLetterTopic(log.App()), Partition: 0, Value: []byte("{}")})
	})
	_, err = CopyLog(ctx, log, third, CopyOptions{Progress: func(int64, int64) {
		if err := write(); err != nil {
			t.Error(err)
		}
	}})
	if !errors.Is(err, ErrNotQuiet) || !strings.Contains(err.Error(), "has got records meanwhile") {
		t.Errorf("a source that was written to meanwhile: %v", err)
	}
	if _, err := New(ctx, Config{Log: third, Store: memStore(t), Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrUnfinished) {
		t.Errorf("an engine on what was copied until then: %v", err)
	}
}
