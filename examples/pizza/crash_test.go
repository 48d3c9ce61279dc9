package main

import (
	"bufio"
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

// asProgram makes the test binary the program, for tests that kill it.
const asProgram = "PIZZA_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// program runs the program as a process and kills it as soon as it has reported the given
// number of orders that it had not reported before; 0 lets it end. Orders reported are added
// to done.
func program(t *testing.T, done map[string]bool, kill int, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...) // ended by SIGKILL
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
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
	}
	if err = cmd.Wait(); err != nil && ctx.Err() == nil {
		t.Logf("%v\n%s", err, stderr.String())
	}
	return all.String(), err
}

// TestKilled kills the program ten times in the middle of 500 orders and lets it finish. The
// log must keep every promise that an auditor can see in it, among them: each order placed
// once.
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
