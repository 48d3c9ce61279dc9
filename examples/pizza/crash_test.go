package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/projection"
)

// asProgram makes the test binary the program, for tests that kill it.
const asProgram = "PIZZA_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, heard{os.Stdout, os.NewFile(3, "heard")}, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// heard is an output of lines that goes on only when its reader has said, by a byte for each, that
// it has them: however slow the test is, the program is not done before it is killed.
type heard struct{ out, by *os.File }

func (h heard) Write(p []byte) (int, error) {
	n, err := h.out.Write(p)
	if err == nil {
		_, err = io.ReadFull(h.by, make([]byte, bytes.Count(p, []byte("\n"))))
	}
	return n, err
}

// program runs the program as a process and kills it as soon as it has reported the given
// number of orders that it had not reported before; 0 lets it end. Orders reported are added
// to done.
func program(t *testing.T, done map[string]bool, kill int, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...) // ended by SIGKILL
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	by, hears, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hears.Close()
	cmd.ExtraFiles = []*os.File{by}
	if err := errors.Join(cmd.Start(), by.Close()); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	news := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if id, completed := strings.CutSuffix(lines.Text(), " completed"); completed && !done[id] {
			done[id] = true
			if news++; news == kill {
				cancel()
			}
		}
		if ctx.Err() == nil {
			_, _ = hears.Write([]byte{0}) // one that has ended does not care
		}
	}
	if err = cmd.Wait(); err != nil && ctx.Err() == nil {
		t.Logf("%v\n%s", err, stderr.String())
	}
	return all.String(), err
}

// TestKilled kills the program ten times in the middle of 500 orders and lets it finish. The
// log must keep every promise that an auditor can see in it, among them: each order placed
// once; the store must be what the log says, and equal to one that is rebuilt from it.
func TestKilled(t *testing.T) {
	const orders, kills = 500, 10
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	input := filepath.Join(dir, "orders.jsonl")
	if err := os.WriteFile(input, []byte(lines(0, orders, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	logURL := "file:" + filepath.Join(dir, "log")
	args := []string{"-log", logURL, "-store", "pebble:" + filepath.Join(dir, "store"), "-orders", input, "-shop-delay", "2ms", "-rate", "3000"}
	done := map[string]bool{}
	for n := range kills {
		if _, err := program(t, done, 1+random.IntN(2*orders/(3*kills)), args...); err == nil {
			t.Fatalf("start %d ended by itself with %d orders reported", n+1, len(done))
		}
	}
	stdout, err := program(t, done, 0, args...)
	if err != nil {
		t.Fatalf("the last start: %v", err)
	}
	requireSummary(t, stdout, "500 500 0 0")

	auditOrders(t, logURL, orders)
	ctl := daggerctl(t)
	stores := []string{args[3], "pebble:" + filepath.Join(dir, "again")}
	ctl("rebuild", "--log", logURL, "--store", stores[1])
	for _, store := range stores {
		var verified struct{ Instances, Differences int }
		if err := json.Unmarshal(ctl("verify", "--log", logURL, "--store", store, "-o", "json"), &verified); err != nil {
			t.Fatal(err)
		}
		if verified.Instances != orders || verified.Differences != 0 {
			t.Errorf("verify %s: %+v", store, verified)
		}
	}
	if a, b := dump(t, logURL, stores[0]), dump(t, logURL, stores[1]); !bytes.Equal(a, b) {
		t.Errorf("the store rebuilt from the log has %d bytes that differ from the %d of the first", len(b), len(a))
	}
}

// auditOrders wants a log that keeps its promises.
func auditOrders(t *testing.T, logURL string, orders int64) {
	t.Helper()
	log, err := eventlog.Open(t.Context(), logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	report, err := audit.Log(t.Context(), log, audit.Options{Topics: []string{orderTopic}})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if report.Instances != orders || report.Messages != orders {
		t.Errorf("the log has %d instances and %d orders, want %d", report.Instances, report.Messages, orders)
	}
}

// daggerctl builds the tool, as this test was built, and returns a function that runs it.
func daggerctl(t *testing.T) func(args ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "daggerctl.exe")
	build := []string{"build", "-o", name}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build = append(build, "-race") // its packages are compiled then already
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(build, "github.com/godagger/dagger/cmd/daggerctl")...).CombinedOutput(); err != nil {
		t.Fatalf("build daggerctl: %v\n%s", err, out)
	}
	return func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("daggerctl %v: %v\n%s%s", args, err, out, stderr.String())
		}
		return out
	}
}

// dump is every row of every partition of a store.
func dump(t *testing.T, logURL, storeURL string) []byte {
	t.Helper()
	log, err := eventlog.Open(t.Context(), logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	store, err := projection.Open(t.Context(), storeURL, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var rows bytes.Buffer
	for p := range log.Partitions() {
		view, err := store.View(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		err = view.Dump(t.Context(), func(r projection.Row) error {
			fmt.Fprintf(&rows, "%d %x %q %q\n", p, r.Kind, r.Key, r.Value)
			return nil
		})
		if err := errors.Join(err, view.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return rows.Bytes()
}
