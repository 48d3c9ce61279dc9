package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/kafkatest"
)

// TestServiceOnKafka runs the service and play as processes on real brokers: with rubbish on
// every topic, and the service killed (SIGKILL) and started again under the orders.
func TestServiceOnKafka(t *testing.T) {
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		t.Skip("KAFKA_BROKERS names no broker: make it has one")
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", ".", "./play")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	address := freeAddress(t)
	raw := fmt.Sprintf("kafka://%s/orders-%d?partitions=4", brokers, time.Now().UnixNano())
	start := func() *exec.Cmd {
		stderr, err := os.OpenFile(filepath.Join(dir, "stderr"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer stderr.Close()
		c := exec.Command(filepath.Join(dir, "orders"), "-log", raw, "-store", "pebble:"+dir+"/store", "-http", address, "-interval", "2s", "-updates", "updates-"+filepath.Base(dir))
		c.Stderr = stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill() // it may have ended
			_ = c.Wait()
			if text, err := os.ReadFile(filepath.Join(dir, "stderr")); err == nil && t.Failed() {
				t.Logf("%s", text[max(0, len(text)-4000):])
			}
		})
		return c
	}
	service := start()
	log, err := eventlog.Open(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	var out bytes.Buffer
	play := exec.CommandContext(t.Context(), filepath.Join(dir, "play"), "-log", raw, "-http", address, "-orders", "20", "-timeout", "2m")
	play.Stdout, play.Stderr = &out, &out
	if err := play.Start(); err != nil {
		t.Fatal(err)
	}
	awaitEvents(t, log, eventlog.InstanceStarted, 10)
	topics := []string{ordersTopic, paymentListener, fulfillment, noop1, noop2, simpleTopic, simpleStopTopic, simpleListener}
	for _, topic := range topics {
		if err := log.Publish(t.Context(), eventlog.Record{Topic: topic, Partition: -1, Value: []byte(`{"broken`)}, eventlog.Record{Topic: topic, Partition: -1, Value: []byte(`[[1]]`)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := service.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = service.Wait() // killed
	service = start()
	if err := play.Wait(); err != nil {
		t.Fatalf("play: %v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; last != "orders=20 completed=22 stopped=1" {
		t.Errorf("play ends with %q", last)
	}
	if err := service.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := service.Wait(); err != nil {
		t.Errorf("the service was told to end: %v", err)
	}
	report, err := audit.Log(t.Context(), log, audit.Options{Topics: []string{paymentCommand, fulfillmentCommand}})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	dead := deadLetters(t, log)
	for _, topic := range topics {
		if dead[topic] < 2 { // an earlier test may have left more
			t.Errorf("%d dead letters of %s, with two records of rubbish", dead[topic], topic)
		}
	}
}

// deadLetters are how many records of each topic were set aside.
func deadLetters(t *testing.T, log eventlog.Log) map[string]int {
	t.Helper()
	topic, err := log.Topic(t.Context(), eventlog.DeadLetterTopic(log.App()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := log.Read(t.Context(), topic.Name, 0, 0, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found := map[string]int{}
	for next := int64(0); next < topic.Partitions[0].End; {
		var records []eventlog.Record
		if records, next, err = r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			for _, h := range rec.Headers {
				if h.Key == "dagger-topic" {
					found[string(h.Value)]++
				}
			}
		}
	}
	return found
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := kafkatest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// awaitEvents waits until the log has so many events of a type.
func awaitEvents(t *testing.T, log eventlog.Log, typ eventlog.Type, n int) {
	t.Helper()
	found := make(chan struct{}, 1024)
	for p := range log.Partitions() {
		r, err := log.Read(t.Context(), eventlog.EventsTopic(log.App()), p, 0, "", eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		go func() { // ends with its reader
			for {
				records, _, err := r.Next(t.Context())
				if err != nil {
					return
				}
				for _, rec := range records {
					var e eventlog.Event
					if eventlog.DecodeEvent(rec.Value, &e) == nil && e.Type == typ {
						found <- struct{}{}
					}
				}
			}
		}()
	}
	late := time.After(time.Minute)
	for range n {
		select {
		case <-found:
		case <-late:
			t.Fatalf("the log has not %d events %s after a minute", n, typ)
		}
	}
}
