package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestDeadLetters prints what an embedded log has, which no other client can read.
func TestDeadLetters(t *testing.T) {
	url := "file:" + t.TempDir() + "/log?app=shop&partitions=1"
	log, err := eventlog.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	topic := eventlog.DeadLetterTopic("shop")
	if err := log.EnsureTopic(t.Context(), topic, 1); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		if err := log.Publish(t.Context(), eventlog.Record{Topic: topic, Key: []byte("k"), Value: []byte([]string{`{"n":1}`, "no \x00 JSON"}[n%2]), Headers: []eventlog.Header{
			{Key: "dagger-reason", Value: fmt.Appendf(nil, "reason %d", n)}, {Key: "dagger-topic", Value: []byte("news")},
			{Key: "dagger-partition", Value: []byte("2")}, {Key: "dagger-offset", Value: fmt.Append(nil, n)}, {Key: "own", Value: []byte("x")},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	ctl := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if status := run(t.Context(), append(args, "--log", url), &out, &errs, func(string) string { return "" }); status != want {
			t.Fatalf("status %d, want %d: %s", status, want, errs.String())
		}
		return out.String()
	}
	if s := ctl(statusDone, "deadletters"); strings.Count(s, "\n") != 6 || !strings.Contains(s, "news/2@3") || !strings.Contains(s, "reason 3  no   JSON\n") {
		t.Errorf("table:\n%s", s)
	}
	var l []deadLetter
	if err := json.Unmarshal([]byte(ctl(statusDone, "deadletters", "--limit", "2", "-o", "json")), &l); err != nil {
		t.Fatal(err)
	}
	if len(l) != 2 || l[0].Reason != "reason 3" || string(l[0].Bytes) != "no \x00 JSON" || l[1].From != "news/2@4" || l[1].Value == nil || l[1].Headers["own"] != "x" || len(l[1].Headers) != 1 {
		t.Errorf("JSON: %+v", l)
	}
	if s := ctl(statusDone, "deadletters", "--limit", "0", "-o", "jsonl"); strings.Count(s, "\n") != 5 {
		t.Errorf("all: %s", s)
	}
	ctl(statusUsage, "deadletters", "--limit", "-1")
}
