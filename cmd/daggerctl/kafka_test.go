package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/workflow"
)

// TestKafkaURLAsTyped: an error of opening the log names it as it was typed.
func TestKafkaURLAsTyped(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	base := "kafka://" + c.ListenAddrs()[0] + "/mistyped"
	for typed, shown := range map[string]string{
		base:                                 base,
		base + "?partitions=2":               base + "?partitions=2",
		base + "?create=false&client-id=ctl": base + "?create=false&client-id=ctl",
	} {
		var out, errs bytes.Buffer
		status := run(t.Context(), []string{"list", "--log", typed, "--store", "mem:"}, &out, &errs, func(string) string { return "" })
		if status != statusNotFound || !strings.Contains(errs.String(), shown+": ") {
			t.Errorf("%s: status %d, %q", typed, status, errs.String())
		}
	}
}

// TestKafka uses the verbs on the brokers that KAFKA_BROKERS names, or on a fake one, while
// an engine runs there and after it: the log can be read by anybody, a Pebble store is held
// by its worker.
func TestKafka(t *testing.T) {
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		brokers = strings.Join(c.ListenAddrs(), ",")
	}
	logURL := "kafka://" + brokers + "/ctl-" + strings.ToLower(rand.Text()[:10]) + "?partitions=2&replication=1"
	storeURL := "pebble:" + t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, err := workflow.Open(ctx, workflow.Config{Log: logURL, Store: storeURL, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(jobs); err != nil {
		t.Fatal(err)
	}
	life, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(life); err != nil {
			t.Error(err)
		}
	})
	end := sync.OnceFunc(func() {
		stop()
		wg.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	defer end()
	for k := range 5 {
		h, err := jobs.Start(ctx, e, fmt.Sprintf("job-%d", k), job{Order: "1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ctl := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		args = append(args, "--log", logURL, "--progress", "none")
		if status := run(ctx, args, &out, &errs, func(string) string { return "" }); status != want {
			t.Fatalf("%v: status %d, want %d: %s%s", args[:1], status, want, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}

	// A mistake in the application's name creates no topics.
	typo := strings.Replace(logURL, "/ctl-", "/clt-", 1)
	for range 2 {
		var out, errs bytes.Buffer
		if status := run(ctx, []string{"show", "job-3", "--log", typo}, &out, &errs, func(string) string { return "" }); status != statusNotFound || !strings.Contains(errs.String(), "no such topic") {
			t.Errorf("another application: status %d: %s", status, errs.String())
		}
	}
	// The count of partitions need not be named.
	short, _, _ := strings.Cut(logURL, "?")
	var shown, errs bytes.Buffer
	if status := run(ctx, []string{"show", "job-3", "--log", short}, &shown, &errs, func(string) string { return "" }); status != statusDone {
		t.Errorf("without partitions: status %d: %s", status, errs.String())
	}

	// While the engine runs.
	if s := ctl(statusUnreachable, "list", "--store", storeURL); !strings.Contains(s, "in use by pid") || !strings.Contains(s, "--at now") {
		t.Errorf("list: %s", s)
	}
	if s := ctl(statusDone, "list", "--at", "now"); strings.Count(s, "COMPLETED") != 5 {
		t.Errorf("list of the log: %s", s)
	}
	if s := ctl(statusRefused, "release", "job-3", "--reason", "x"); !strings.Contains(s, "not in quarantine") {
		t.Errorf("release: %s", s)
	}
	if s := ctl(statusDone, "show", "job-3", "--events"); !strings.Contains(s, "InstanceCompleted") {
		t.Errorf("show: %s", s)
	}
	if s := ctl(statusDone, "tail", "--from-start", "--follow=false"); strings.Count(s, "InstanceStarted") != 5 {
		t.Errorf("tail: %s", s)
	}
	ctl(statusDone, "rebuild", "--store", "pebble:"+t.TempDir()+"/other")

	end()
	if s := ctl(statusDone, "list", "--store", storeURL); strings.Count(s, "COMPLETED") != 5 {
		t.Errorf("list: %s", s)
	}
	var v verified
	if err := json.Unmarshal([]byte(ctl(statusDone, "verify", "--audit", "--store", storeURL, "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if v.Partitions != 2 || v.Instances != 5 || v.Differences != 0 || v.Audit.Violations != 0 || v.Audit.Instances != 5 {
		t.Errorf("verify: %+v", v)
	}
	// Nobody decides a request on Kafka when no engine runs; it stays in the log.
	if s := ctl(statusTimedOut, "stop", "job-1", "--reason", "x", "--request", "late", "--timeout", "300ms"); strings.Count(s, "timed out") != 1 || !strings.Contains(s, "request late stands in the log") {
		t.Errorf("stop: %s", s)
	}
	log, err := eventlog.Open(ctx, logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	brief, cancelShort := context.WithTimeoutCause(ctx, 300*time.Millisecond, errTimeout)
	defer cancelShort()
	if _, _, err := (&env{}).decide(brief, log, nil, &eventlog.Request{V: 1, Type: eventlog.ReleaseInstance, ID: "job-1", Request: "r", Made: 1}); !errors.Is(err, errTimeout) {
		t.Errorf("decide: %v", err)
	}
	if i, _, err := engine.ReadInstance(ctx, log, nil, "job-1"); err != nil || i.StatusName() != "COMPLETED" {
		t.Errorf("job-1: %+v %v", i, err)
	}
}
