package kafkatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

// TestThreeBrokers runs the example on three brokers, with three replicas of which two must
// be in sync, and kills one of them (SIGKILL) under load: every order completes, and the log
// keeps its promises.
func TestThreeBrokers(t *testing.T) {
	realOnly(t)
	const orders, rate = 600, 40
	start := time.Now()
	c, err := StartCluster(t.Context(), 3, Options{HeapMB: 192})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, b := range c.Brokers {
				text, _ := os.ReadFile(b.LogFile())
				t.Logf("broker %d:\n%s", b.node, tail(text))
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("three brokers in %v", time.Since(start))
	raw := "kafka://" + c.Addrs() + "/pizza?partitions=4"
	log, err := eventlog.Open(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"pizza_order_topic", "order_status_topic"} {
		if err := log.EnsureTopic(t.Context(), topic, 4); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	replicated(t, c.Addrs())
	for _, f := range findings(t, raw) {
		if f.Level.Bad() {
			t.Errorf("three brokers are sound, but: %+v", f)
		}
	}

	var input strings.Builder
	for n := range orders {
		fmt.Fprintf(&input, `{"order_id":"%d","customer_id":"1","pizza_type":"funghi"}`+"\n", n)
	}
	cmd := exec.CommandContext(t.Context(), buildPizza(t), "-orders", "-", "-rate", fmt.Sprint(rate), "-log", raw,
		"-store", "pebble:"+filepath.Join(t.TempDir(), "store"))
	cmd.Stdin = strings.NewReader(input.String())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start = time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process, which is waited for below
	select {
	case err := <-ended:
		t.Fatalf("it ended before a broker was killed: %v\n%s%s", err, &out, &errs)
	case <-time.After(orders / rate * time.Second / 3):
	}
	if err := c.Brokers[1].Kill(); err != nil {
		t.Error(err)
	}
	killed := time.Since(start)
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, tail(append(out.Bytes(), errs.Bytes()...)))
	}
	t.Logf("%d orders in %v, a broker killed after %v", orders, time.Since(start), killed)

	if !slices.ContainsFunc(findings(t, raw), func(f eventlog.Finding) bool {
		return f.Level == eventlog.LevelRisk && strings.Contains(f.Subject, "pizza.events") && strings.Contains(f.Text, "replicas are missing")
	}) {
		t.Error("nothing tells of the broker that is away")
	}

	log, err = eventlog.Open(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	completed := map[string]int{}
	report, err := audit.Log(t.Context(), log, audit.Options{Topics: []string{"pizza_order_topic"}, Each: func(_ int32, _ int64, e *eventlog.Event) {
		if e.Type == eventlog.InstanceCompleted {
			completed[e.ID]++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if len(completed) != orders || report.Messages != orders {
		t.Errorf("%d orders: %d completed, %d messages to the shop", orders, len(completed), report.Messages)
	}
	for id, n := range completed {
		if n != 1 {
			t.Errorf("%s completed %d times", id, n)
		}
	}
	text, _ := json.Marshal(report) // never fails
	t.Logf("audit: %s", text)
}

func findings(t *testing.T, url string) []eventlog.Finding {
	t.Helper()
	found, err := eventlog.Check(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Logf("check: %s %s: %s", f.Level, f.Subject, f.Text)
	}
	return found
}

// replicated looks at the settings that the application's topics got on three brokers.
func replicated(t *testing.T, addrs string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addrs, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	names := []string{eventlog.RequestsTopic("pizza"), eventlog.EventsTopic("pizza"), eventlog.DefinitionsTopic("pizza"), eventlog.DeadLetterTopic("pizza")}
	topics, err := adm.ListTopics(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	configs, err := adm.DescribeTopicConfigs(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if n := topics[name].Partitions.NumReplicas(); n != 3 {
			t.Errorf("%s has %d replicas", name, n)
		}
		r, err := configs.On(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range r.Configs {
			if kv.Key == "min.insync.replicas" && (kv.Value == nil || *kv.Value != "2") {
				t.Errorf("%s has min.insync.replicas=%v", name, kv.Value)
			}
		}
	}
}
