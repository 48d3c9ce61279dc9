package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/workflow"
)

// TestDoctorKafka looks at an application before it exists, while its engine holds the store,
// and after that; on the brokers that KAFKA_BROKERS names, or on three fake ones.
func TestDoctorKafka(t *testing.T) {
	brokers, params, sound := os.Getenv("KAFKA_BROKERS"), "?partitions=2&replication=1", statusFailed
	if brokers == "" {
		c, err := kfake.NewCluster()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		brokers, params, sound = strings.Join(c.ListenAddrs(), ","), "?partitions=2", statusDone
	}
	logURL := "kafka://" + brokers + "/doctor-" + strings.ToLower(rand.Text()[:10]) + params
	storeURL := "pebble:" + t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ctl := func(want int, args ...string) (x examined, errs string) {
		t.Helper()
		var out, complaints bytes.Buffer
		args = append([]string{"doctor", "-o", "json", "--log", logURL}, args...)
		if status := run(ctx, args, &out, &complaints, func(string) string { return "" }); status != want {
			t.Fatalf("%v: status %d, want %d: %s%s", args, status, want, out.String(), complaints.String())
		}
		if err := json.Unmarshal(out.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		return x, complaints.String()
	}
	says := func(x examined, text string) bool {
		for _, f := range x.Findings {
			if strings.Contains(fmt.Sprintf("%s %s %s: %s", f.Level, f.Of, f.Subject, f.Text), text) {
				return true
			}
		}
		return false
	}
	if x, _ := ctl(statusFailed); x.Worst != "wrong" || !says(x, "it does not exist") {
		t.Errorf("before there is anything: %+v", x)
	}

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
	h, err := jobs.Start(ctx, e, "job-1", job{Order: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if x, errs := ctl(statusUnreachable, "--store", storeURL); !strings.Contains(errs, "in use by pid") || !says(x, "log network") {
		t.Errorf("while the engine runs: %+v %s", x, errs)
	}
	end()
	if x, _ := ctl(sound, "--store", storeURL); !says(x, "ok store watermarks: 0 events behind the log") || !says(x, "log clocks") {
		t.Errorf("after the engine: %+v", x)
	}
}
