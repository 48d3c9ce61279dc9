package workflow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// The trace contexts of the tests: of a caller, of a record, and of a propagator's span.
const (
	callerTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	recordTrace = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00"
	spanTrace   = "00-cccccccccccccccccccccccccccccccc-dddddddddddddddd-01"
)

// eachLog runs a test on the embedded log and on Kafka, a fake one where none is named.
func eachLog(t *testing.T, test func(t *testing.T, log eventlog.Log)) {
	t.Run("embedded", func(t *testing.T) { test(t, memoryLog(t)) })
	t.Run("kafka", func(t *testing.T) {
		brokers := os.Getenv("KAFKA_BROKERS")
		if brokers == "" {
			c, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			brokers = strings.Join(c.ListenAddrs(), ",")
		}
		log, err := eventlog.Open(t.Context(), fmt.Sprintf("kafka://%s/trace-%d?partitions=4&replication=1", brokers, time.Now().UnixNano()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := log.Close(); err != nil {
				t.Error(err)
			}
		})
		test(t, log)
	})
}

// traced is what is seen of an instance's trace context: in its handlers, in the message of
// its Command and in its updates.
type traced struct{ Execute, Sent, Listen, Update string }

// TestTrace: the trace context of a start is with the instance wherever it goes on.
func TestTrace(t *testing.T) {
	eachLog(t, func(t *testing.T, log eventlog.Log) {
		var mu sync.Mutex
		seen := map[string]*traced{}
		of := func(id string) *traced {
			if seen[id] == nil {
				seen[id] = &traced{}
			}
			return seen[id]
		}
		note := func(ctx context.Context, id string, field func(*traced) *string) {
			mu.Lock()
			defer mu.Unlock()
			parent, state := workflow.TraceFrom(ctx)
			*field(of(id)) = parent + " " + state
		}
		app := log.App()
		def := workflow.StartOn(workflow.New("Traced",
			workflow.Execute("execute", func(ctx context.Context, j *job) error {
				note(ctx, j.ID, func(x *traced) *string { return &x.Execute })
				return nil
			}),
			workflow.Command("send", "sent-"+app, func(_ context.Context, j *job) (job, error) { return *j, nil }).
				Headers(func(j *job) map[string]string {
					if j.ID == "own" {
						return map[string]string{"traceparent": "its own"}
					}
					return nil
				}),
			workflow.Listen("listen", "news-"+app, workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
				func(ctx context.Context, j *job, _ news) (bool, error) {
					parent, _ := workflow.TraceFrom(ctx)
					if extracted, _ := ctx.Value(fakePropagator{}).(string); extracted != parent {
						return false, fmt.Errorf("the propagator gave it %q, not %q", extracted, parent)
					}
					note(ctx, j.ID, func(x *traced) *string { return &x.Listen })
					return true, nil
				})), "start-"+app, func(ctx context.Context, id *string) (string, job, error) {
			if parent, _ := workflow.TraceFrom(ctx); *id == "record" && parent != recordTrace {
				return "", job{}, fmt.Errorf("the record has the trace context %q", parent)
			}
			return *id, job{ID: *id}, nil
		})
		open := func(propagator workflow.Propagator) (*workflow.Engine, func()) {
			eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", UpdatesTopic: "updates-" + app, Propagator: propagator,
				Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if err := eng.Register(def); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- eng.Run(t.Context()) }()
			eventually(t, "the engine runs", func() bool { return workflow.Runs(eng) })
			return eng, sync.OnceFunc(func() {
				if err := eng.Close(); err != nil {
					t.Error(err)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		}
		eng, end := open(nil)
		defer end()
		start := func(ctx context.Context, id string) {
			t.Helper()
			if _, err := def.Start(ctx, eng, id, job{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		record := func(topic, key, value string, headers ...eventlog.Header) {
			t.Helper()
			r := eventlog.Record{Topic: topic, Partition: -1, Value: []byte(value), Headers: headers}
			if key != "" {
				r.Key = []byte(key)
			}
			if err := log.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		h := func(key, value string) eventlog.Header { return eventlog.Header{Key: key, Value: []byte(value)} }
		caller := workflow.WithTrace(t.Context(), callerTrace, "rojo=1")
		start(t.Context(), "none")
		start(workflow.WithTrace(t.Context(), "no trace context", ""), "bad-call")
		start(caller, "call")
		start(caller, "own")
		record("start-"+app, "", `"record"`, h("traceparent", recordTrace), h("tracestate", "a=1"), h("tracestate", "b=2"))
		record("start-"+app, "", `"bad-record"`, h("traceparent", strings.Repeat("x", 10_000)), h("tracestate", "a=1"))
		requests := eventlog.RequestsTopic(app)
		record(requests, "request", `{"v":1,"type":"Start","id":"request","definition":"Traced","params":{"id":"request"}}`, h("traceparent", recordTrace))
		record(requests, "bad-request", `{"v":1,"type":"Start","id":"bad-request","definition":"Traced","params":{"id":"bad-request"}}`,
			h("traceparent", recordTrace+recordTrace), h("tracestate", "\x00"))
		// A partition that is not its own: it is passed on.
		wrong := (eventlog.PartitionOf("passed-on", log.Partitions()) + 1) % log.Partitions()
		if err := log.Publish(t.Context(), eventlog.Record{Topic: requests, Partition: wrong, Headers: []eventlog.Header{h("traceparent", recordTrace)},
			Value: []byte(`{"v":1,"type":"Start","id":"passed-on","definition":"Traced","params":{"id":"passed-on"}}`)}); err != nil {
			t.Fatal(err)
		}

		const all = callerTrace + " rojo=1"
		want := map[string]*traced{
			"none": {" ", "", " ", ""}, "bad-call": {" ", "", " ", ""}, "bad-record": {" ", "", " ", ""}, "bad-request": {" ", "", " ", ""},
			"call":      {all, callerTrace, all, callerTrace},
			"own":       {all, "its own", all, callerTrace},
			"record":    {recordTrace + " a=1,b=2", recordTrace, recordTrace + " a=1,b=2", recordTrace},
			"request":   {recordTrace + " ", recordTrace, recordTrace + " ", recordTrace},
			"passed-on": {recordTrace + " ", recordTrace, recordTrace + " ", recordTrace},
		}
		for id := range want {
			eventually(t, id+" waits", func() bool {
				i, err := eng.Get(t.Context(), id)
				return err == nil && len(i.Tasks) == 3 && i.Tasks[2].WaitsFor != ""
			})
		}
		// Another process, whose store is empty, goes on with what the log says.
		end()
		eng, end = open(fakePropagator{})
		defer end()
		start(context.WithValue(t.Context(), fakePropagator{}, spanTrace), "span")
		start(caller, "no-span")
		want["span"] = &traced{spanTrace + " ", spanTrace, spanTrace + " ", spanTrace}
		want["no-span"] = want["call"]
		for id := range want {
			record("news-"+app, "", fmt.Sprintf(`{"id":%q,"last":true}`, id))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			if _, err := def.Handle(eng, id).Wait(ctx); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			cancel()
		}
		if i, err := eng.Get(t.Context(), "call"); err != nil || i.Trace != callerTrace {
			t.Errorf("Get says the trace is %q, %v", i.Trace, err)
		}
		header := func(topic string, field func(*traced) *string) {
			for _, rec := range recordsOf(t, log, topic) {
				var u struct {
					ID string `json:"id"`
				}
				decode(t, rec.Value, &u)
				if !slices.ContainsFunc(rec.Headers, func(h eventlog.Header) bool { return h.Key == "dagger-app" && string(h.Value) == app }) {
					t.Errorf("a record of %s does not say of which application it is: %v", topic, rec.Headers)
				}
				for _, h := range rec.Headers {
					if h.Key == "traceparent" {
						*field(of(u.ID)) = string(h.Value)
					}
				}
			}
		}
		header("sent-"+app, func(x *traced) *string { return &x.Sent })
		header("updates-"+app, func(x *traced) *string { return &x.Update })
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if dead := recordsOf(t, log, eventlog.DeadLetterTopic(app)); len(dead) > 0 {
			t.Errorf("dead letters: %v", dead)
		}
	})
}

// fakePropagator finds the traceparent under its own key.
type fakePropagator struct{}

func (fakePropagator) Inject(ctx context.Context) (string, string) {
	s, _ := ctx.Value(fakePropagator{}).(string)
	return s, ""
}

func (fakePropagator) Extract(ctx context.Context, parent, _ string) context.Context {
	return context.WithValue(ctx, fakePropagator{}, parent)
}

// recordsOf are the records of partition 0 of a topic.
func recordsOf(t *testing.T, log eventlog.Log, name string) (all []eventlog.Record) {
	t.Helper()
	topic, err := log.Topic(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := log.Read(t.Context(), name, 0, topic.Partitions[0].Start, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for next := topic.Partitions[0].Start; next < topic.Partitions[0].End; {
		var records []eventlog.Record
		if records, next, err = r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			if rec.Offset < topic.Partitions[0].End {
				all = append(all, rec)
			}
		}
	}
	return all
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}
