// Package chaos holds the fault tests: workers, brokers, stores, replies and clocks that fail
// under load, on the embedded pair and on real Kafka. Each test ends with the auditor, which
// reads nothing but the log, and with the comparison of the store with a fold of the log.
// docs/reliability.md says what they show and how to run them.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

// modeVar chooses the form of the tests: short or long. Without it they run only where
// KAFKA_BROKERS says that tests may take their time, in the short form.
const (
	modeVar = "DAGGER_CHAOS"
	seedVar = "SEED"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerVar) != "" {
		os.Exit(workerMain())
	}
	vfs.Default = refusing
	goleak.VerifyTestMain(m)
}

func mode() string {
	if m := os.Getenv(modeVar); m != "" || os.Getenv("KAFKA_BROKERS") == "" {
		return m
	}
	return "short"
}

// long says whether the long form was asked for.
func long() bool { return mode() == "long" }

// begin skips the test unless fault tests were asked for, and gives its random source. Where
// the test fails, it prints how to run just that one again.
func begin(t *testing.T) *rand.Rand {
	t.Helper()
	m := mode()
	switch m {
	case "":
		t.Skip("neither DAGGER_CHAOS nor KAFKA_BROKERS is set: no faults were tried")
	case "short", "long":
	default:
		t.Fatalf("DAGGER_CHAOS=%s: say short or long", m)
	}
	seed := rand.Uint64()
	if s := os.Getenv(seedVar); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SEED=%s is no number", s)
		}
	}
	again := fmt.Sprintf("DAGGER_CHAOS=%s SEED=%d go test ./internal/chaos -count=1 -v -timeout 20m -run '^%s$'", m, seed, t.Name())
	if l := os.Getenv(loadVar); l != "" && l != "pizza" {
		if l != "orders" {
			t.Fatalf("%s=%s: say pizza or orders", loadVar, l)
		}
		again = loadVar + "=" + l + " " + again
	}
	t.Logf("seed %d", seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to run this one again: %s", again)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// pick is the first for the long form, the second for the short one.
func pick[T any](inLong, inShort T) T {
	if long() {
		return inLong
	}
	return inShort
}
