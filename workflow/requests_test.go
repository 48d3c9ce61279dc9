package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/workflow"
)

// produce appends a record to <app>.requests as any client does. partition -1 leaves the
// choice to the client, by the key.
type produce func(partition int32, key, value string)

// TestRequestsOfOtherClients starts, stops and retries instances by records that a plain Kafka
// client appends to <app>.requests, and by rubbish there.
func TestRequestsOfOtherClients(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		log := memoryLog(t)
		requestsOfOtherClients(t, log, func(partition int32, key, value string) {
			r := eventlog.Record{Topic: eventlog.RequestsTopic(log.App()), Partition: partition, Value: []byte(value)}
			if key != "" {
				r.Key = []byte(key)
			}
			if err := log.Publish(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("kafka", func(t *testing.T) {
		brokers := os.Getenv("KAFKA_BROKERS") // else a fake one
		if brokers == "" {
			c, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			brokers = strings.Join(c.ListenAddrs(), ",")
		}
		app := fmt.Sprintf("requests-%d", time.Now().UnixNano())
		log, err := eventlog.Open(t.Context(), "kafka://"+brokers+"/"+app+"?partitions=4&replication=1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := log.Close(); err != nil {
				t.Error(err)
			}
		})
		byKey, err := kgo.NewClient(kgo.SeedBrokers(brokers))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(byKey.Close)
		byHand, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(byHand.Close)
		requestsOfOtherClients(t, log, func(partition int32, key, value string) {
			r := &kgo.Record{Topic: app + ".requests", Value: []byte(value)}
			if key != "" {
				r.Key = []byte(key)
			}
			client := byKey
			if partition >= 0 {
				client, r.Partition = byHand, partition
			}
			if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Error(err)
			}
		})
	})
}

func requestsOfOtherClients(t *testing.T, log eventlog.Log, send produce) {
	broken := make(chan bool, 1)
	broken <- true
	def := workflow.New("Job",
		workflow.Execute("first", func(_ context.Context, j *job) error {
			if j.ID != "fails" {
				return nil
			}
			select {
			case <-broken:
				return errors.New("no driver")
			default:
				return nil
			}
		}),
		workflow.Listen("news", "news"+log.App(), workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
			func(_ context.Context, j *job, m news) (bool, error) {
				j.Steps = append(j.Steps, "news")
				return true, nil
			}))
	eng, run := engineOn(t, log, def)
	run()
	status := func(id string, want workflow.Status) workflow.Instance {
		t.Helper()
		var s workflow.Instance
		eventually(t, id+" is "+string(want), func() (ok bool) {
			var err error
			s, err = def.Handle(eng, id).Status(t.Context())
			return err == nil && s.Status == want
		})
		return s
	}

	// The least that a record needs. Its client puts it where the id belongs.
	send(-1, "a", `{"v":1,"type":"Start","id":"a","definition":"Job","params":{"id":"a"}}`)
	// A request id makes a repeated record harmless, also of another type of call.
	for range 2 {
		send(-1, "b", `{"v":1,"type":"Start","request":"r1","id":"b","definition":"Job","params":{"id":"b"}}`)
	}
	// Wrong partitions and no key at all cost a hop.
	for p := range int32(4) {
		id := fmt.Sprint("wrong-", p)
		send(p, "", fmt.Sprintf(`{"v":1,"type":"Start","id":%q,"definition":"Job","params":{"id":%q}}`, id, id))
	}
	// Rubbish, and what can't be done.
	send(-1, "a", `not JSON`)
	send(-1, "", `[]`)
	send(-1, "", `{"v":1,"type":"Begin","id":"x"}`)
	send(-1, "x", `{"v":1,"type":"Start","id":"a\u0000b","definition":"Job"}`)
	send(-1, "x", `{"v":1,"type":"Start","id":"","definition":"Job"}`)
	send(-1, "unknown", `{"v":1,"type":"Start","id":"unknown","definition":"Nothing"}`)
	send(-1, "seven", `{"v":1,"type":"Start","id":"seven","definition":"Job","params":7}`)
	send(2, "nobody", `{"v":1,"type":"Stop","id":"nobody"}`)
	// Parameters of another shape are refused by the type itself.
	send(-1, "shape", `{"v":1,"type":"Start","id":"shape","definition":"Job","params":{"id":["not","a","string"]}}`)

	send(-1, "fails", `{"v":1,"type":"Start","id":"fails","definition":"Job","params":{"id":"fails"}}`)
	if s := status("fails", workflow.Failure); s.Error != "no driver" {
		t.Errorf("it failed with %q", s.Error)
	}
	send(-1, "fails", `{"v":1,"type":"Retry","id":"fails","reason":"drivers are back"}`)
	status("fails", workflow.Executing)
	send(-1, "fails", `{"v":1,"type":"Stop","id":"fails","reason":"cancelled"}`)
	if s := status("fails", workflow.Stopped); s.Reason != "cancelled" {
		t.Errorf("it was stopped for %q", s.Reason)
	}
	if s := status("shape", workflow.Failure); !strings.Contains(s.Error, "cannot unmarshal array into Go struct field job.id of type string") {
		t.Errorf("parameters of another shape: %q", s.Error)
	}
	for _, id := range []string{"a", "b", "wrong-0", "wrong-1", "wrong-2", "wrong-3"} {
		status(id, workflow.Executing)
		publish(t, log, "news"+log.App(), fmt.Sprintf(`{"id":%q}`, id))
		if s := status(id, workflow.Completed); !strings.Contains(string(s.Parameters), `"steps":["news"]`) {
			t.Errorf("%s has %s", id, s.Parameters)
		}
	}
	started := 0
	for e, err := range def.Handle(eng, "b").Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == eventlog.InstanceStarted {
			started++
			if e.Request != "r1" {
				t.Errorf("b was started by the request %q", e.Request)
			}
		}
	}
	if started != 1 {
		t.Errorf("b was started %d times", started)
	}
	reasons, values := deadLetters(t, log, 8)
	for value, reason := range map[string]string{
		`not JSON`: "request can't be decoded", `[]`: "request can't be decoded", `"Begin"`: "request can't be decoded",
		`a\u0000b`: "field id: the id has the control character", `"id":""`: "field id: the id is empty",
		`"id":"unknown"`: "Start was refused: unknown definition", `"id":"seven"`: "Start was refused: parameters are no JSON object",
		`{"v":1,"type":"Stop","id":"nobody"}`: "Stop was refused: not found",
	} {
		found := false
		for k := range values {
			found = found || strings.Contains(values[k], value) && strings.Contains(reasons[k], reason)
		}
		if !found {
			t.Errorf("no dead letter with %s says %s; there are %q with %q", value, reason, reasons, values)
		}
	}
}
