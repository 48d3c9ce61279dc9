package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// pizzas runs the program and returns what it says.
func pizzas(ctx context.Context, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = run(ctx, args, strings.NewReader(stdin), &out, &err)
	return status, out.String(), err.String()
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func lines(from, to int, prefix string) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		fmt.Fprintf(&b, `{"order_id":"%s%d","customer_id":"%d","pizza_type":"margherita"}`+"\n", prefix, n, n%7)
	}
	return b.String()
}

var summary = regexp.MustCompile(`^orders=(\d+) completed=(\d+) failed=(\d+) stopped=(\d+) elapsed=\d+\.\ds$`)

func requireSummary(t *testing.T, stdout, want string) {
	t.Helper()
	m := summary.FindStringSubmatch(lastLine(stdout))
	if m == nil {
		t.Fatalf("the last line is %q", lastLine(stdout))
	}
	if got := strings.Join(m[1:], " "); got != want {
		t.Errorf("orders, completed, failed, stopped are %s, want %s", got, want)
	}
}

func TestSample(t *testing.T) {
	status, stdout, stderr := pizzas(t.Context(), "", "-log", "mem:", "-shop-delay", "1ms")
	if status != 0 {
		t.Errorf("status %d\n%s", status, stderr)
	}
	requireSummary(t, stdout, "20 20 0 0")
	for n := 1; n <= 20; n++ {
		if want := fmt.Sprintf("order %d completed\n", n); strings.Count(stdout, want) != 1 {
			t.Errorf("standard output does not say once: %s", want)
		}
	}
}

// TestStartedAgain: interrupted in the middle, the program finishes what is left when it is
// started with the same input, and neither starts nor orders anything twice.
func TestStartedAgain(t *testing.T) {
	const orders = 60
	dir := t.TempDir()
	input := filepath.Join(dir, "orders.jsonl")
	if err := os.WriteFile(input, []byte(lines(0, orders, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	logURL := "file:" + filepath.Join(dir, "log")
	args := []string{"-log", logURL, "-store", "pebble:" + filepath.Join(dir, "store"), "-orders", input, "-shop-delay", "5ms"}

	ctx, interrupt := context.WithCancel(t.Context())
	watch := &watcher{after: 15, then: interrupt}
	var stderr bytes.Buffer
	if status := run(ctx, append(args, "-rate", "200"), nil, watch, &stderr); status != 1 {
		t.Errorf("interrupted: status %d\n%s", status, stderr.String())
	}
	status, stdout, said := pizzas(t.Context(), "", args...)
	if status != 0 {
		t.Errorf("started again: status %d\n%s", status, said)
	}
	requireSummary(t, stdout, "60 60 0 0")

	log, err := eventlog.Open(t.Context(), logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	started := map[string]int{}
	for _, r := range records(t, log, eventlog.EventsTopic(log.App())) {
		var e struct{ Type, ID string }
		if err := json.Unmarshal(r.Value, &e); err == nil && e.Type == string(eventlog.InstanceStarted) {
			started[e.ID]++
		}
	}
	ordered := map[string]int{}
	for _, r := range records(t, log, orderTopic) {
		var o Placed
		if err := json.Unmarshal(r.Value, &o); err != nil {
			t.Fatal(err)
		}
		ordered[instanceID(o.OrderID)]++
	}
	want := map[string]int{}
	for n := range orders {
		want[fmt.Sprintf("order-%d", n)] = 1
	}
	if diff := cmp.Diff(want, started); diff != "" {
		t.Errorf("starts of instances (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, ordered); diff != "" {
		t.Errorf("orders at the shop (-want +got):\n%s", diff)
	}
}

// watcher calls a function when it has seen some lines.
type watcher struct {
	mu    sync.Mutex
	after int
	then  func()
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.after -= bytes.Count(p, []byte("\n")); w.after <= 0 {
		w.then()
	}
	return len(p), nil
}

// records reads what a topic has, committed.
func records(t *testing.T, log eventlog.Log, topic string) []eventlog.Record {
	t.Helper()
	desc, err := log.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var all []eventlog.Record
	for p, part := range desc.Partitions {
		r, err := log.Read(t.Context(), topic, int32(p), part.Start, desc.ID, eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		for next := part.Start; next < part.End; {
			var some []eventlog.Record
			if some, next, err = r.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			all = append(all, some...)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestBadLines(t *testing.T) {
	input := `{"order_id":"a","customer_id":"1","pizza_type":"funghi"}
nonsense

{"order_id":""}
{"order_id":7}
{"order_id":"a"}
["a"]
{"order_id":"b\u0001"}
{"order_id":"` + strings.Repeat("x", maxLine) + `"}
{"order_id":"b","customer_id":"1","pizza_type":"funghi"}`
	status, stdout, stderr := pizzas(t.Context(), input, "-log", "mem:", "-orders", "-", "-shop-delay", "1ms")
	if status != 0 {
		t.Errorf("status %d", status)
	}
	requireSummary(t, stdout, "2 2 0 0")
	var got []string
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "pizza: ") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		"pizza: orders: line 2: not JSON: invalid character 'o' in literal null (expecting 'u')",
		"pizza: orders: line 4: order_id is missing",
		"pizza: orders: line 5: order_id is a number, not a string",
		"pizza: orders: line 7: a JSON array, not an object",
		"pizza: orders: line 8: order_id: the id has the control character U+0001 at byte 7",
		"pizza: orders: line 9: longer than 65536 bytes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"-h"}, 0, "-exit-when-done"},
		{[]string{"-wrong"}, 2, "flag provided but not defined"},
		{[]string{"more"}, 2, `unexpected argument "more"`},
		{[]string{"-rate", "-1"}, 2, "-rate must be"},
		{[]string{"-shop-delay", "-1s"}, 2, "-shop-delay must not be negative"},
		{[]string{"-orders", "no-such-file"}, 2, "open orders: open no-such-file"},
		{[]string{"-log", "nowhere:"}, 1, `scheme "nowhere" is not linked`},
		{[]string{"-log", "mem:", "-store", "nowhere:"}, 1, `scheme "nowhere" is not linked`},
	} {
		status, _, stderr := pizzas(t.Context(), "", c.args...)
		if status != c.status || !strings.Contains(stderr, c.stderr) {
			t.Errorf("pizza %s: status %d and %s\nwant %d and in it: %s", strings.Join(c.args, " "), status, stderr, c.status, c.stderr)
		}
	}
}

// TestUntilToldToEnd: without -exit-when-done the program goes on when all is done.
func TestUntilToldToEnd(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	watch := &watcher{after: 3, then: end}
	var stderr bytes.Buffer
	if status := run(ctx, []string{"-log", "mem:", "-orders", "-", "-exit-when-done=false"}, strings.NewReader(lines(0, 3, "")), watch, &stderr); status != 0 {
		t.Errorf("status %d\n%s", status, stderr.String())
	}
}

// TestKafka runs on the real brokers that KAFKA_BROKERS names.
func TestKafka(t *testing.T) {
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		t.Skip("KAFKA_BROKERS names no broker")
	}
	// The topics are shared by all that run on these brokers: these ids are ours alone.
	prefix := fmt.Sprintf("%08x-", rand.Uint32())
	args := []string{"-log", "kafka://" + brokers + "/pizza-" + prefix + "test?partitions=4", "-store", "pebble:" + t.TempDir(), "-orders", "-"}
	for range 2 {
		status, stdout, stderr := pizzas(t.Context(), lines(0, 50, prefix), args...)
		if status != 0 {
			t.Errorf("status %d\n%s", status, stderr)
		}
		requireSummary(t, stdout, "50 50 0 0")
	}
}
