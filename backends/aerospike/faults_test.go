package aerospike

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// seeded is a random source whose seed is printed when the test fails; AEROSPIKE_SEED repeats it.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("AEROSPIKE_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with AEROSPIKE_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// owners is a history of owners of partition 0, all on one fake: each of them goes on with what
// the ones before have left, who may still be writing.
type owners struct {
	t     *testing.T
	rnd   *rand.Rand
	fake  *fake
	epoch uint64
	all   []*owner
	// What happened.
	applied, refused, failed, lost, restarts, looked int
}

type owner struct {
	store *Store
	part  projection.Partition
	epoch uint64
	at    uint64
}

func (o *owners) open() *Store {
	for {
		s, err := openFake(o.t, o.fake, identity)
		if err == nil {
			return s
		}
		o.failed++
		o.known(err)
	}
}

// known ends the test when an error is none that an owner has to live with.
func (o *owners) known(err error) {
	o.t.Helper()
	for _, target := range []error{projection.ErrFenced, projection.ErrWatermark, projection.ErrStateLost, errPasses} {
		if errors.Is(err, target) {
			return
		}
	}
	o.t.Fatal(err)
}

// take makes a new owner.
func (o *owners) take() *owner {
	o.epoch++
	w := &owner{store: o.open(), epoch: o.epoch}
	o.all = append(o.all, w)
	return w
}

// acquire has an owner take the partition, and drop it when it is lost.
func (o *owners) acquire(w *owner) bool {
	p, err := w.store.Acquire(o.t.Context(), 0, w.epoch)
	if errors.Is(err, projection.ErrStateLost) {
		o.lost++
		if err = w.store.Drop(o.t.Context(), 0, w.epoch); err == nil {
			p, err = w.store.Acquire(o.t.Context(), 0, w.epoch)
		}
	}
	if err == nil {
		var at projection.Watermark
		if at, err = p.Watermark(o.t.Context()); err == nil {
			w.part, w.at = p, at.N
			return true
		}
	}
	o.known(err)
	o.failed++
	return false
}

// step has an owner apply its next event, or take the partition.
func (o *owners) step(w *owner) {
	if w.part == nil {
		o.acquire(w)
		return
	}
	err := w.part.Apply(o.t.Context(), batch(w.at+1, w.epoch))
	switch {
	case err == nil:
		w.at++
		o.applied++
		return
	case errors.Is(err, projection.ErrFenced), errors.Is(err, projection.ErrWatermark):
		o.refused++
	default:
		o.failed++
	}
	o.known(err)
	w.part = nil
}

// settled switches the faults off, and lets everything that is late be made.
func (o *owners) settled(check func()) {
	o.fake.mu.Lock()
	faults, late := o.fake.faults, o.fake.late
	o.fake.faults, o.fake.late = nil, nil
	for _, i := range o.rnd.Perm(len(late)) {
		o.fake.make(&late[i])
	}
	o.fake.mu.Unlock()
	check()
	o.fake.mu.Lock()
	o.fake.faults = faults
	o.fake.mu.Unlock()
}

// TestFaults runs owners over a server that fails in all ways that one was seen to: whatever
// happens, a partition that can be read has the rows of its watermark.
func TestFaults(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	rnd := seeded(t)
	var sum owners
	for round := range rounds {
		o := &owners{t: t, rnd: rand.New(rand.NewPCG(rnd.Uint64(), uint64(round))), fake: newFake()}
		o.run(200)
		sum.applied, sum.refused, sum.failed = sum.applied+o.applied, sum.refused+o.refused, sum.failed+o.failed
		sum.lost, sum.restarts, sum.looked = sum.lost+o.lost, sum.restarts+o.restarts, sum.looked+o.looked
	}
	t.Logf("%d rounds: %d batches applied, %d refused, %d calls failed, %d times lost, %d restarts, read %d times meanwhile", rounds, sum.applied, sum.refused, sum.failed, sum.lost, sum.restarts, sum.looked)
}

func (o *owners) run(steps int) {
	t := o.t
	reader := o.open()
	defer reader.Close()
	worse := o.rnd.IntN(200)
	o.fake.faults = &faults{rnd: o.rnd, drop: 3 + worse, reply: 5 + worse, delay: 5 + worse, busy: 5 + worse, read: 5 + worse, unstable: 5 + worse, max: 30}
	now := o.take()
	for range steps {
		switch turn := o.rnd.IntN(100); {
		case turn < 3: // another owner comes; this one may go on for a while
			now = o.take()
		case turn < 5: // one that was thought gone wakes up
			o.step(o.all[o.rnd.IntN(len(o.all))])
		case turn < 6:
			close(now.store.server.(*connection).cut)
			now.store.Close()
			o.all = o.all[:0]
			now = o.take()
		case turn < 8:
			o.restarts++
			o.fake.restart(o.rnd, o.rnd.IntN(4))
		case turn < 12:
			o.settled(func() { o.check(reader) })
		case turn < 30:
			o.look(reader)
		default:
			o.step(now)
		}
	}
	o.fake.faults = nil
	for range 40 {
		o.step(now)
	}
	if now.part == nil {
		t.Fatal("the last owner can't go on when all faults are over")
	}
	o.settled(func() {
		if at := o.check(reader); at != now.at {
			t.Fatalf("the store stands at event %d, its owner at %d", at, now.at)
		}
	})
	for _, w := range o.all {
		w.store.Close()
	}
}

// check compares the store with the log, unless it says that it is lost.
func (o *owners) check(reader *Store) uint64 {
	v, err := reader.View(o.t.Context(), 0)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := v.Watermark(o.t.Context()); errors.Is(err, projection.ErrStateLost) {
		return 0
	}
	return check(o.t, v)
}

// look reads the partition in the middle of everything: what can be read is right.
func (o *owners) look(reader *Store) {
	v, err := reader.View(o.t.Context(), 0)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := storetest.CompareEvents(o.t.Context(), v); err == nil {
		o.looked++
	} else {
		o.known(err)
	}
}

// TestCrashAnywhere ends an owner at each change that a batch makes, in every place; another one
// finds the partition as it was before the batch or after it, and goes on.
func TestCrashAnywhere(t *testing.T) {
	for _, late := range []bool{false, true} {
		for point := range 1000 {
			f := newFake()
			first := ownerOf(t, f, 1)
			for n := uint64(1); n <= 20; n++ {
				if err := first.Apply(t.Context(), batch(n, 1)); err != nil {
					t.Fatal(err)
				}
			}
			made, held := 0, []change{}
			f.doomed = func(c *change) error {
				if made++; made > point {
					held = append(held, *copyOf(c))
					return errFake
				}
				return nil
			}
			err := first.Apply(t.Context(), batch(21, 1))
			f.doomed = nil
			if err == nil {
				if point < 10 {
					t.Errorf("a batch makes only %d changes", point)
				}
				break
			}
			if late { // what was under way arrives after all
				f.mu.Lock()
				for i := range held {
					f.make(&held[i])
				}
				f.mu.Unlock()
			}
			second := ownerOf(t, f, 2)
			at := check(t, second)
			if at != 20 && at != 21 {
				t.Fatalf("after a crash at change %d the store stands at event %d", point, at)
			}
			for n := at + 1; n < 30; n++ {
				if err := second.Apply(t.Context(), batch(n, 2)); err != nil {
					t.Fatal(err)
				}
			}
			f.mu.Lock()
			for i := range held { // of an owner that woke up long after
				f.make(&held[i])
			}
			f.mu.Unlock()
			if at := check(t, second); at != 29 {
				t.Fatalf("the store stands at event %d", at)
			}
			if err := first.Apply(t.Context(), batch(30, 1)); !errors.Is(err, projection.ErrFenced) {
				t.Fatalf("the first owner's next batch: %v", err)
			}
		}
	}
}

// ownerOf opens a store on a fake and acquires partition 0.
func ownerOf(t *testing.T, f *fake, epoch uint64) projection.Partition {
	t.Helper()
	s, err := openFake(t, f, identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p, err := s.Acquire(t.Context(), 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
