// Package storetest is the contract of a store as tests: a backend whose tests call Run and
// pass keeps the contract of package projection. A failure prints the sentence that was
// broken. Random histories print their seed; STORETEST_SEED repeats one.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
)

// Harness says how to make stores of a backend.
type Harness struct {
	// New returns a new and empty place for a store, removed when the test ends.
	New func(tb testing.TB) *Place
}

// Place is where one store is, whether it is open or not.
type Place struct {
	// Open opens the store, also again after Close or Crash.
	Open func(id projection.Identity) (projection.Store, error)
	// Volatile says that nothing survives Close; the tests of restarts are skipped.
	Volatile bool
	// Crash ends an open store as a crash does, without Close; nil if there is no such thing.
	Crash func(s projection.Store)
	// Damage spoils the rows of a partition of the closed store so that reading all of them
	// can't succeed; nil if there is no such thing.
	Damage func(partition int32)
	// MaxValue is the longest value that the backend takes; 0 = at least 1 MiB.
	MaxValue int
	// Alone says that a second Open, while the first one is open, is ErrInUse.
	Alone bool
}

// Identity is that of the stores of the suite.
var Identity = projection.Identity{App: "storetest", Partitions: 300}

// groups are the parts of the contract, in the order they run.
var groups = []struct {
	name string
	run  func(*testing.T, Harness)
}{
	{"ApplyAndReadBack", testApply},
	{"Counters", testCounters},
	{"CompareAndSet", testCompareAndSet},
	{"RefusedBatches", testRefusedBatches},
	{"Epochs", testEpochs},
	{"Race", testRace},
	{"Zombie", testZombie},
	{"Crash", testCrash},
	{"ScanOrder", testScanOrder},
	{"ScanLimits", testScanLimits},
	{"ScanPaging", testScanPaging},
	{"Keys", testKeys},
	{"Values", testValues},
	{"Slices", testSlices},
	{"Restart", testRestart},
	{"Foreign", testForeign},
	{"Alone", testAlone},
	{"Views", testViews},
	{"Partitions", testPartitions},
	{"Drop", testDrop},
	{"DropWhileReading", testDropWhileReading},
	{"DumpsAreEqual", testDumpsAreEqual},
	{"Metamorphic", testMetamorphic},
	{"Readers", testReaders},
	{"Churn", testChurn},
	{"Damage", testDamage},
	{"Stage", testStage},
	{"ReplaceWhileReading", testReplaceWhileReading},
	{"ReplaceCrash", testReplaceCrash},
	{"DumpAt", testDumpAt},
	{"Cancelled", testCancelled},
	{"Closed", testClosed},
}

// Run checks the whole contract.
func Run(t *testing.T, h Harness) {
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) { g.run(t, h) })
	}
}

// RunGroup checks one part of it, such as "Damage".
func RunGroup(t *testing.T, name string, h Harness) {
	for _, g := range groups {
		if g.name == name {
			g.run(t, h)
			return
		}
	}
	t.Fatalf("the suite has no group %q", name)
}

// The sentences of the contract, see package projection.
const (
	ruleAtomic    = "1: Apply changes rows, counters and watermark as one atomic unit"
	ruleFold      = "1: the rows of a partition are a function of its events 1..N"
	ruleCAS       = "2: Apply is compare-and-set on (N, epoch): applied, or already applied (nil), or ErrWatermark"
	ruleFenced    = "2: ErrFenced when a later epoch acquired the partition; nothing was written"
	ruleReadStep  = "3: Get and Scan return the N of the rows they read, read in the same atomic step"
	ruleStateLost = "4: a store that finds rows missing or damaged says ErrStateLost and never guesses"
	ruleLogID     = "5: the watermark carries the log's identity and a checksum of its last event"
	ruleCrash     = "6: after a crash a store stands at a watermark that it had acknowledged, with exactly the rows of it"
	ruleSlices    = "7: slices given to Apply are kept by nobody; slices returned belong to the caller"
	ruleScan      = "Scan reads rows with from <= key < to in key order, at most limit (0 = 1,000)"
	ruleGet       = "Get reads the values of keys of one kind; nil where there is no row"
	ruleDump      = "Dump calls f with every row, ordered by kind and key; equal states dump alike on every backend"
	ruleDrop      = "Drop removes all rows and the watermark's N (not its epoch) of one partition"
	ruleCount     = "a counter is a row of KindCount with a decimal number; one that comes to 0 has no row"
	ruleForeign   = "a store that another application wrote is refused with ErrForeign"
	ruleInUse     = "ErrInUse: another process holds the store"
	ruleClosed    = "ErrClosed: the store or partition was closed or released"
	ruleCancel    = "a cancelled context ends a call; the next Apply settles what happened"
	ruleTooLarge  = "ErrTooLarge: a row exceeds the backend's limit; nothing was written"
	ruleView      = "View opens a partition for reading, whoever owns it; one that was never acquired reads as empty"
	ruleList      = "Partitions lists the partitions that have something"
	ruleBatch     = "a batch that goes back, changes rows without an event or names a counter row is refused"
)

// broken ends the test with what happened and the sentence that forbids it.
func broken(tb testing.TB, rule, format string, args ...any) {
	tb.Helper()
	tb.Fatalf("%s\ncontract: %s", fmt.Sprintf(format, args...), rule)
}

// must ends the test when a call fails that has to succeed.
func must(tb testing.TB, what string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// wantIs ends the test unless err is target.
func wantIs(tb testing.TB, rule, what string, err, target error) {
	tb.Helper()
	if !errors.Is(err, target) {
		broken(tb, rule, "%s: got error %v, want %v", what, err, target)
	}
}

func open(tb testing.TB, place *Place) projection.Store {
	tb.Helper()
	s, err := place.Open(Identity)
	must(tb, "open store", err)
	tb.Cleanup(func() { must(tb, "close store", s.Close()) })
	return s
}

func acquire(tb testing.TB, s projection.Store, partition int32, epoch uint64) projection.Partition {
	tb.Helper()
	p, err := s.Acquire(tb.Context(), partition, epoch)
	must(tb, fmt.Sprintf("acquire partition %d", partition), err)
	return p
}

func view(tb testing.TB, s projection.Store, partition int32) projection.View {
	tb.Helper()
	v, err := s.View(tb.Context(), partition)
	must(tb, fmt.Sprintf("view partition %d", partition), err)
	return v
}

func watermark(tb testing.TB, v projection.View) projection.Watermark {
	tb.Helper()
	w, err := v.Watermark(tb.Context())
	must(tb, "read watermark", err)
	return w
}

func apply(tb testing.TB, p projection.Partition, b projection.Batch) {
	tb.Helper()
	must(tb, "apply", p.Apply(tb.Context(), b))
}

// dump reads all rows, copied, and checks their order.
func dump(tb testing.TB, v projection.View) []projection.Row {
	tb.Helper()
	var rows []projection.Row
	err := v.Dump(tb.Context(), func(r projection.Row) error {
		rows = append(rows, projection.Row{Kind: r.Kind, Key: append([]byte{}, r.Key...), Value: append([]byte{}, r.Value...)})
		return nil
	})
	must(tb, "dump", err)
	for i := 1; i < len(rows); i++ {
		if compare(rows[i-1], rows[i]) >= 0 {
			broken(tb, ruleDump, "row %#x %q comes before row %#x %q", rows[i-1].Kind, rows[i-1].Key, rows[i].Kind, rows[i].Key)
		}
	}
	return rows
}

func compare(a, b projection.Row) int {
	if a.Kind != b.Kind {
		return int(a.Kind) - int(b.Kind)
	}
	return bytes.Compare(a.Key, b.Key)
}

// wantRows ends the test unless the partition holds what the model holds.
func wantRows(tb testing.TB, rule string, v projection.View, m *model) {
	tb.Helper()
	if got := watermark(tb, v); got != m.watermark {
		broken(tb, rule, "watermark is %+v, want %+v", got, m.watermark)
	}
	if diff := diffRows(m.dump(), dump(tb, v)); diff != "" {
		broken(tb, rule, "rows differ at event %d (-want +got):\n%.4000s", m.watermark.N, diff)
	}
}

// diffRows returns "" when the rows are alike; comparing large ones with cmp takes seconds.
func diffRows(want, got []projection.Row) string {
	same := slices.EqualFunc(want, got, func(a, b projection.Row) bool {
		return compare(a, b) == 0 && bytes.Equal(a.Value, b.Value) && a.Value != nil && b.Value != nil
	})
	if same {
		return ""
	}
	return cmp.Diff(want, got)
}

// seeded returns a random source and prints its seed when the test fails.
func seeded(tb testing.TB) *rand.Rand {
	rnd, _ := seededBy(tb)
	return rnd
}

func seededBy(tb testing.TB) (*rand.Rand, uint64) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("STORETEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("repeat with STORETEST_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0)), seed
}
