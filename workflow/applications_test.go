package workflow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/workflow"
)

// TestTwoApplications: applications of different names share a broker, the topics that start
// and stop instances, those that they send to and listen to, and the updates topic, and have
// instances of the same ids.
func TestTwoApplications(t *testing.T) {
	brokers := os.Getenv("KAFKA_BROKERS") // else a fake one
	if brokers == "" {
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		brokers = strings.Join(c.ListenAddrs(), ",")
	}
	run := fmt.Sprint(time.Now().UnixNano())
	topic := func(name string) string { return name + "-" + run }
	def := workflow.New("Shared", workflow.Command("ask", topic("asked"), func(_ context.Context, j *job) (news, error) { return news{ID: j.ID}, nil }),
		workflow.Listen("answer", topic("answered"), workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
			func(_ context.Context, _ *job, m news) (bool, error) { return m.Last, nil }))
	def = workflow.StartOn(def, topic("start"), func(_ context.Context, id *string) (string, job, error) { return *id, job{ID: *id}, nil })
	def = workflow.StopOn(def, topic("stop"), func(_ context.Context, id *string) (string, error) { return *id, nil })
	engines := map[string]*workflow.Engine{}
	for _, name := range []string{"one", "two"} {
		app := topic(name)
		log, err := eventlog.Open(t.Context(), "kafka://"+brokers+"/"+app+"?partitions=2&replication=1")
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", UpdatesTopic: topic("updates"), Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- eng.Run(t.Context()) }()
		defer func() {
			if err := eng.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		engines[app] = eng
	}
	some := engines[topic("one")].Log()
	publish(t, some, topic("stop"), `"c"`)
	publish(t, some, topic("start"), `"a"`, `"b"`, `"c"`)
	publish(t, some, topic("answered"), `{"id":"a","last":true}`, `{"id":"b","last":true}`, `{"id":"nobody"}`)
	want := map[string]string{}
	for app, eng := range engines {
		for id, status := range map[string]error{"a": nil, "b": nil, "c": workflow.ErrStopped} {
			wait(t, def.Handle(eng, id), status)
			want[app+"/"+id] = "COMPLETED"
		}
		want[app+"/c"] = "STOPPED"
	}
	appOf := func(rec *eventlog.Record) (app string) {
		for _, h := range rec.Headers {
			if h.Key == "dagger-app" {
				app = string(h.Value)
			}
		}
		return app
	}
	asked := map[string]int{}
	for _, rec := range recordsOf(t, some, topic("asked")) {
		var m news
		decode(t, rec.Value, &m)
		asked[appOf(&rec)+"/"+m.ID]++
	}
	last := map[string]string{} // by application and instance, as its last update says
	for _, rec := range recordsOf(t, some, topic("updates")) {
		var u struct {
			ID     string
			Status struct{ Value string }
			Count  uint64 `json:"update_count"`
		}
		if err := json.Unmarshal(rec.Value, &u); err != nil {
			t.Fatal(err)
		}
		last[appOf(&rec)+"/"+u.ID] = u.Status.Value
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("the last updates (-want +got):\n%s", diff)
	}
	for who, status := range want {
		if n := asked[who]; n > 1 || n == 0 && status == "COMPLETED" {
			t.Errorf("%s has asked %d times", who, n)
		}
	}
	for _, eng := range engines {
		report, err := audit.Log(t.Context(), eng.Log(), audit.Options{Topics: []string{topic("asked")}})
		if err == nil {
			err = report.Err()
		}
		if err != nil {
			t.Errorf("%s: %v", eng.Log().App(), err)
		}
	}
}
