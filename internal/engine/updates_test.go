package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/machine"
)

const updatesTopic = "task_update_topic"

// updated is what the tests look at of an update.
type updated struct {
	ID     string `json:"id"`
	Status struct {
		Code string `json:"code"`
	} `json:"status"`
	Count   uint64            `json:"update_count"`
	Params  json.RawMessage   `json:"runtime_parameters"`
	Inside  []json.RawMessage `json:"child_tasks"`
	LeftOut []string          `json:"left_out"`
}

// runUpdates runs an engine with an updates topic until the test ends.
func runUpdates(t *testing.T, log eventlog.Log, codes ...*Code) *Engine {
	t.Helper()
	e, err := New(t.Context(), Config{Log: log, Store: memStore(t), UpdatesTopic: updatesTopic, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(t.Context(), codes...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e
}

// start starts an instance and waits for its end.
func startAndWait(t *testing.T, e *Engine, id, definition string, params json.RawMessage) *machine.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: "r" + id, Made: time.Now().UnixMilli(), Definition: definition, Params: params}}); err != nil {
		t.Fatal(err)
	}
	x, err := ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true})
	if err != nil {
		t.Fatal(err)
	}
	return x.instance
}

// readUpdates reads the whole topic, by instance.
func readUpdates(t *testing.T, log eventlog.Log) map[string][]updated {
	t.Helper()
	topic, err := log.Topic(t.Context(), updatesTopic)
	if err != nil {
		t.Fatal(err)
	}
	r, err := log.Read(t.Context(), updatesTopic, 0, 0, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := map[string][]updated{}
	for next := int64(0); next < topic.Partitions[0].End; {
		var records []eventlog.Record
		if records, next, err = r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			var u updated
			if err := json.Unmarshal(rec.Value, &u); err != nil {
				t.Fatalf("%v: %s", err, rec.Value)
			}
			if string(rec.Key) != eventlog.PartitionKey(u.ID) {
				t.Errorf("the update of %s has the key %q", u.ID, rec.Key)
			}
			all[u.ID] = append(all[u.ID], u)
		}
	}
	return all
}

// TestUpdates: one update for each event of an instance, in order, and nothing that the
// auditor takes for a message of a task.
func TestUpdates(t *testing.T) {
	log := memLog(t)
	e := runUpdates(t, log, executeCode(t, "Three", 3, func(_ context.Context, a Attempt) (Outcome, error) {
		if a.Attempt == 1 && strings.HasSuffix(a.Path, "t2") {
			return Outcome{}, errors.New("again")
		}
		return Outcome{Patch: json.RawMessage(fmt.Sprintf(`{"n":%d}`, a.Act))}, nil
	}))
	for k := range 20 {
		i := startAndWait(t, e, fmt.Sprintf("{order-%d}/x", k), "Three", json.RawMessage(`{"a":1}`))
		if i.Status != machine.Completed {
			t.Fatalf("%s is %s: %s", i.ID, i.Status, i.Error)
		}
	}
	report, err := audit.Log(t.Context(), log, audit.Options{Topics: []string{updatesTopic}})
	if err != nil || report.Err() != nil || report.Messages != 0 {
		t.Errorf("audit: %v %v, %d messages", err, report.Err(), report.Messages)
	}
	all := readUpdates(t, log)
	if len(all) != 20 {
		t.Fatalf("updates of %d instances", len(all))
	}
	for id, l := range all {
		events := uint64(0)
		for ev, err := range e.Events(t.Context(), id) {
			if err != nil {
				t.Fatal(err)
			}
			events = max(events, ev.Seq)
		}
		for k, u := range l {
			if u.Count != uint64(k+1) || len(u.Inside) != 1 || u.LeftOut != nil {
				t.Errorf("update %d of %s: %+v", k, id, u)
			}
		}
		if last := l[len(l)-1]; uint64(len(l)) != events || l[0].Status.Code != "EXECUTING" || last.Status.Code != "COMPLETED" || string(l[0].Params) != `{"a":1}` || string(last.Params) == `{"a":1}` {
			t.Errorf("%s has %d events and %d updates: first %+v, last %+v", id, events, len(l), l[0], last)
		}
	}
}

// TestUpdateTooLarge: an update that does not fit its topic lacks the parameters and says so;
// the instance goes on.
func TestUpdateTooLarge(t *testing.T) {
	log := memLog(t)
	e := runUpdates(t, log, executeCode(t, "One", 1, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil }))
	topic, err := log.Topic(t.Context(), updatesTopic)
	if err != nil {
		t.Fatal(err)
	}
	e.describe(eventlog.Topic{Name: updatesTopic, MaxRecord: 2000})
	params := `{"a":"` + strings.Repeat("x", 5000) + `"}`
	if i := startAndWait(t, e, "large", "One", json.RawMessage(params)); i.Status != machine.Completed {
		t.Errorf("%s: %s", i.Status, i.Error)
	}
	e.describe(topic)
	l := readUpdates(t, log)["large"]
	if len(l) == 0 {
		t.Fatal("no updates")
	}
	for _, u := range l {
		if string(u.Params) != "{}" || len(u.LeftOut) != 1 || u.LeftOut[0] != "runtime_parameters" || len(u.Inside) != 1 {
			t.Errorf("%+v", u)
		}
	}
}

// refusing refuses messages to the updates topic while it is told to.
type refusing struct {
	eventlog.Log
	refuse   atomic.Bool
	refusals atomic.Int32
}

func (l *refusing) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return &refusingOwner{o, l}, err
}

type refusingOwner struct {
	eventlog.Owner
	log *refusing
}

func (o *refusingOwner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (int64, error) {
	for k, m := range messages {
		if m.Topic == updatesTopic && o.log.refuse.Load() {
			o.log.refusals.Add(1)
			return 0, &eventlog.RefusedError{Index: k, Err: eventlog.ErrNoTopic}
		}
	}
	return o.Owner.Append(ctx, events, types, messages)
}

// TestUpdatesRefused: where the log takes no updates the instances go on without.
func TestUpdatesRefused(t *testing.T) {
	synctest.Test(t, testUpdatesRefused) // all within one moment
}

func testUpdatesRefused(t *testing.T) {
	log := &refusing{Log: memLog(t)}
	log.refuse.Store(true)
	e := runUpdates(t, log, executeCode(t, "One", 1, func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil }))
	for k := range 10 {
		if i := startAndWait(t, e, fmt.Sprint("i-", k), "One", json.RawMessage(`{}`)); i.Status != machine.Completed {
			t.Errorf("%s: %s", i.Status, i.Error)
		}
	}
	if n := log.refusals.Load(); n < 1 || n > 4 {
		t.Errorf("%d refusals in 4 partitions within ten seconds", n)
	}
	if l := readUpdates(t, log); len(l) > 0 {
		t.Errorf("updates: %v", l)
	}
	report, err := audit.Log(t.Context(), log, audit.Options{})
	if err != nil || report.Err() != nil {
		t.Errorf("audit: %v %v", err, report.Err())
	}
}

// TestUpdatesTopicOfTheEngine: the engine's own topics are refused.
func TestUpdatesTopicOfTheEngine(t *testing.T) {
	log := memLog(t)
	_, err := New(t.Context(), Config{Log: log, Store: memStore(t), UpdatesTopic: eventlog.EventsTopic(log.App())})
	if err == nil || !strings.Contains(err.Error(), "test.events is one of the engine's own") {
		t.Errorf("New says %v", err)
	}
}
