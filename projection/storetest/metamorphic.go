package storetest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"
	"testing"

	"github.com/godagger/dagger/projection"
)

// The history of testMetamorphic is the same in every run, so that what it prints can be
// compared between backends, machines and days.
const (
	sameSeed       = 20261125
	sameEvents     = 300
	samePartitions = 4
)

// testMetamorphic folds one fixed history of several partitions in a random way: batches of
// any size, partitions in any order, restarts and crashes between. The dump is the same, and
// its checksum is printed.
func testMetamorphic(t *testing.T, h Harness) {
	rnd, seed := seededBy(t)
	fixed := rand.New(rand.NewPCG(sameSeed, 0))
	want := sha256.New()
	folds := make([]*partFold, samePartitions)
	for n := range folds {
		folds[n] = &partFold{n: int32(n), events: history(fixed, sameEvents)}
		m := newModel(0)
		m.apply(batchOf(folds[n].events, 0, 0))
		sumRows(want, int32(n), m.dump())
	}
	place := h.New(t)
	s := openFor(t, place)
	steps, restarts, crashes := 0, 0, 0
	for {
		var left []*partFold
		for _, f := range folds {
			if f.at < len(f.events) {
				left = append(left, f)
			}
		}
		if len(left) == 0 {
			break
		}
		steps++
		left[rnd.IntN(len(left))].step(t, s, rnd)
		switch turn := rnd.IntN(12); {
		case place.Volatile || turn > 1:
			continue
		case turn == 0 && place.Crash != nil:
			crashes++
			place.Crash(s)
		default:
			restarts++
			must(t, "close store", s.Close())
		}
		s = openFor(t, place)
		for _, f := range folds {
			f.p = nil
			f.at = int(watermark(t, view(t, s, f.n)).N) // the log heals the rest
		}
	}
	got := sha256.New()
	for _, f := range folds {
		sumRows(got, f.n, dump(t, view(t, s, f.n)))
	}
	must(t, "close store", s.Close())
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		broken(t, ruleDump, "after %d batches, %d restarts and %d crashes the dump has sha256=%x, want %x", steps, restarts, crashes, got.Sum(nil), want.Sum(nil))
	}
	t.Logf("dump sha256=%x (seed %d: %d batches, %d restarts, %d crashes)", got.Sum(nil), seed, steps, restarts, crashes)
}

// openFor opens a store that the caller closes or crashes.
func openFor(tb testing.TB, place *Place) projection.Store {
	tb.Helper()
	s, err := place.Open(Identity)
	must(tb, "open store", err)
	return s
}

// partFold is a partition that is being folded.
type partFold struct {
	n      int32
	events []event
	at     int // events folded
	epoch  uint64
	p      projection.Partition
}

// step folds the next events, now and then as a new owner.
func (f *partFold) step(tb testing.TB, s projection.Store, rnd *rand.Rand) {
	if f.p == nil || rnd.IntN(20) == 0 {
		f.epoch++
		f.p = acquire(tb, s, f.n, f.epoch)
	}
	k := min(len(f.events)-f.at, []int{1, 7, 1 + rnd.IntN(60), 1 + rnd.IntN(len(f.events))}[rnd.IntN(10)/3])
	apply(tb, f.p, batchOf(f.events[f.at:f.at+k], uint64(f.at), f.epoch))
	f.at += k
}

// sumRows adds a partition's rows to a checksum, each part with its length before it.
func sumRows(sum hash.Hash, partition int32, rows []projection.Row) {
	part := func(b []byte) {
		sum.Write(binary.AppendUvarint(nil, uint64(len(b))))
		sum.Write(b)
	}
	fmt.Fprintf(sum, "partition %d: %d rows\n", partition, len(rows))
	for _, r := range rows {
		part([]byte{byte(r.Kind)})
		part(r.Key)
		part(r.Value)
	}
}

// Sum is the checksum of the rows of partitions 0 to n-1 of a store, as Dump gives them: equal
// states have equal checksums on every backend.
func Sum(tb testing.TB, s projection.Store, n int32) string {
	tb.Helper()
	sum := sha256.New()
	for p := range n {
		v := view(tb, s, p)
		sumRows(sum, p, dump(tb, v))
		must(tb, "close view", v.Close())
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}
