package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// asProgram makes the test binary the program, for tests that kill it.
const asProgram = "FOLLOW_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

type order struct {
	ID string `json:"id"`
}

// work runs orders from..to on a log in a directory: one in five fails, one in seven goes on
// waiting.
func work(t *testing.T, logURL, store string, from, to int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	eng, err := workflow.Open(ctx, workflow.Config{Log: logURL, Store: store, Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	def := workflow.New("Order", workflow.Execute("pay", func(_ context.Context, o *order) error {
		if strings.HasSuffix(o.ID, "5") {
			return workflow.Terminal(errors.New("no money"))
		}
		return nil
	}), workflow.At("later", func(o *order) time.Time {
		if strings.HasSuffix(o.ID, "7") {
			return time.Now().Add(time.Hour)
		}
		return time.Now()
	}, func(context.Context, *order) error { return nil }))
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(run); err != nil {
			t.Error(err)
		}
	})
	for k := from; k < to; k++ {
		id := fmt.Sprint("o-", k)
		h, err := def.Start(ctx, eng, id, order{id})
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%10 == 1 && !strings.HasSuffix(id, "7") {
			_, _ = h.Wait(ctx) // some have ended when it stops, some have not
		}
	}
	stop()
	running.Wait()
	if err := eng.Close(); err != nil {
		t.Fatal(err)
	}
}

// want counts what the log says, in another way than the program.
func want(t *testing.T, logURL string) string {
	t.Helper()
	log, err := eventlog.Open(t.Context(), logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	topic, err := log.Topic(t.Context(), eventlog.EventsTopic(log.App()))
	if err != nil {
		t.Fatal(err)
	}
	hour, status := map[string]string{}, map[string]string{}
	for p, part := range topic.Partitions {
		if part.End == part.Start {
			continue
		}
		r, err := log.Read(t.Context(), topic.Name, int32(p), part.Start, "", eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		for at := part.Start; at < part.End; {
			records, next, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range records {
				var e eventlog.Event
				if eventlog.IsBarrier(rec.Value) {
					continue
				}
				if err := eventlog.DecodeEvent(rec.Value, &e); err != nil {
					t.Fatal(err)
				}
				switch e.Type {
				case eventlog.InstanceStarted:
					hour[e.ID], status[e.ID] = time.UnixMilli(e.At).UTC().Format("2006-01-02 15:00"), "running"
				case eventlog.InstanceCompleted:
					status[e.ID] = "completed"
				case eventlog.InstanceFailed:
					status[e.ID] = "failed"
				}
			}
			at = next
		}
		r.Close()
	}
	counts := map[string]int{}
	for id, h := range hour {
		counts[h+" "+status[id]]++
	}
	lines := []string{"HOUR STATUS ORDERS"}
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		lines = append(lines, fmt.Sprint(k, " ", counts[k]))
	}
	return strings.Join(lines, "\n")
}

// squeezed has one space where a table has several.
func squeezed(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for k := range lines {
		lines[k] = strings.Join(strings.Fields(lines[k]), " ")
	}
	return strings.Join(lines, "\n")
}

// TestKilled kills the program by SIGKILL again and again while it follows a log that grows;
// what it counts in the end is what the log says.
func TestKilled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	logURL := "file:" + filepath.Join(dir, "log") + "?partitions=4"
	args := []string{"-log", logURL, "-store", "pebble:" + filepath.Join(dir, "by-hour")}
	killed := 0
	for round := range 3 {
		work(t, logURL, "pebble:"+filepath.Join(dir, "store"), round*200, round*200+200)
		for range 4 {
			cmd := exec.Command(os.Args[0], args...)
			cmd.Env = append(os.Environ(), asProgram+"=1")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case err := <-ended:
				t.Fatalf("the program ended by itself: %v", err)
			case <-time.After(time.Duration(random.IntN(250)) * time.Millisecond):
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-ended
			killed++
		}
	}
	var out, stderr bytes.Buffer
	if err := run(t.Context(), append(args, "-once"), &out, &stderr); err != nil {
		t.Fatal(err, stderr.String())
	}
	if got, want := squeezed(out.String()), want(t, logURL); got != want {
		t.Errorf("after %d kills the program counts\n%s\nthe log says\n%s", killed, got, want)
	}
	t.Log("\n" + out.String())
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-x"}, {"-log", "nothing"}, {"-log", "mem:", "-store", "floppy:a"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
