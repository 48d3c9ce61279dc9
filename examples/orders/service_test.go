package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/workflow"
)

// TestServiceEmbedded runs the service on an embedded log and each kind of store, with the other
// services in the same process, looks at it through HTTP, and then at what the log says of it.
func TestServiceEmbedded(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) { testService(t, store(t)) })
	}
}

func testService(t *testing.T, storeURL string) {
	logURL := "file:" + t.TempDir() + "/log?app=orders"
	o := options{http: "127.0.0.1:0", log: logURL, store: storeURL, updates: "updates", interval: 50 * time.Millisecond}
	want := map[string]int{"COMPLETED": 5, "STOPPED": 1}
	var said strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	err := serve(ctx, o, slog.New(slog.NewTextHandler(&said, nil)), func(ctx context.Context, log eventlog.Log, address string) error {
		return others(ctx, log, "http://"+address, want)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if n := strings.Count(said.String(), "ALARM"); n != 3 {
		t.Errorf("%d alarms of three orders", n)
	}

	log, err := eventlog.Open(t.Context(), logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	report, err := audit.Log(t.Context(), log, audit.Options{Topics: []string{paymentCommand, fulfillmentCommand}, Settled: true})
	if err := errors.Join(err, report.Err()); err != nil {
		t.Error(err)
	}
	eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: storeURL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	if v, err := eng.Verify(t.Context(), workflow.VerifyOptions{}); err != nil || v.Differences != 0 || v.Instances != 6 {
		t.Errorf("verify: %+v, %v; want 6 instances and no difference", v, err)
	}
	updates, err := log.Topic(t.Context(), "updates")
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{} // by id: what its last update says
	err = records(t.Context(), log, "updates", func(offset int64, value []byte) (more bool, err error) {
		var i workflow.Tree
		err = json.Unmarshal(value, &i)
		last[i.ID] = i.Status.Value
		return offset+1 < updates.Partitions[0].End, err // the embedded log has no holes
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, counted(last)); diff != "" {
		t.Errorf("the last updates (-want +got):\n%s", diff)
	}
}

// others plays the other services for three orders, until the service's instances have these
// statuses.
func others(ctx context.Context, log eventlog.Log, api string, want map[string]int) error {
	ready := func() (bool, error) {
		var answer struct {
			IsReady bool `json:"is_ready"`
		}
		err := get(ctx, api+"/service/ready", &answer)
		return answer.IsReady, err
	}
	have := func(want map[string]int) func() (bool, error) {
		return func() (bool, error) {
			var instances []workflow.Tree
			err := get(ctx, api+"/tasks/instances", &instances)
			status := map[string]string{}
			for _, i := range instances {
				status[i.ID] = i.Status.Value
			}
			return cmp.Equal(want, counted(status)), err
		}
	}
	answer := func(command string, say func(Asked) []eventlog.Record) error {
		left := 3
		return records(ctx, log, command, func(_ int64, value []byte) (bool, error) {
			var a Asked
			if err := json.Unmarshal(value, &a); err != nil {
				return false, err
			}
			left--
			return left > 0, log.Publish(ctx, say(a)...)
		})
	}
	steps := []func() error{
		func() error { return until(ctx, ready) },
		func() error {
			return log.Publish(ctx, record(ordersTopic, 1), record(ordersTopic, "2"), record(ordersTopic, 3),
				record(simpleTopic, "a"), record(simpleTopic, "b"), record(simpleTopic, "c"))
		},
		func() error { return until(ctx, have(map[string]int{"EXECUTING": 6})) },
		func() error {
			return log.Publish(ctx, record(simpleListener, SimpleMessage{SimpleID: []string{"a", "b"}}), record(simpleStopTopic, "c"))
		},
		func() error {
			return answer(paymentCommand, func(a Asked) []eventlog.Record {
				return []eventlog.Record{record(paymentListener, Answer{OrderID: a.OrderID, BoxID: a.OrderID}), record(noop2, Answer{OrderID: a.OrderID})}
			})
		},
		func() error {
			return answer(fulfillmentCommand, func(a Asked) []eventlog.Record { return []eventlog.Record{record(fulfillment, a)} })
		},
		func() error { return until(ctx, have(want)) },
	}
	for k, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", k, err)
		}
	}
	return nil
}

// record is a message without key and headers.
func record(topic string, v any) eventlog.Record {
	value, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	return eventlog.Record{Topic: topic, Partition: -1, Value: value}
}

// records gives f those of a topic's one partition, as long as it wants more. Those that come
// while it runs are among them if f asks for more than there are.
func records(ctx context.Context, log eventlog.Log, name string, f func(offset int64, value []byte) (more bool, err error)) error {
	topic, err := log.Topic(ctx, name)
	if err != nil {
		return err
	}
	r, err := log.Read(ctx, name, 0, 0, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		got, _, err := r.Next(ctx)
		if err != nil {
			return err
		}
		for _, rec := range got {
			if more, err := f(rec.Offset, rec.Value); err != nil || !more {
				return err
			}
		}
	}
}

func counted(status map[string]string) map[string]int {
	n := map[string]int{}
	for _, s := range status {
		n[s]++
	}
	return n
}

func until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func get(ctx context.Context, url string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(v)
}
