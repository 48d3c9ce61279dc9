package projection_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

func followLog(t *testing.T) eventlog.Log {
	t.Helper()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "shop", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// addEvents appends events n..n+count-1 to a partition, in transactions with a barrier before
// each.
func addEvents(t *testing.T, log eventlog.Log, partition int32, n uint64, count int) uint64 {
	t.Helper()
	for count > 0 {
		o, err := log.Own(t.Context(), partition)
		if err != nil {
			t.Fatal(err)
		}
		values, types := [][]byte{eventlog.Barrier}, []eventlog.Type{eventlog.BarrierType}
		for k := 0; k < 37 && count > 0; k++ {
			e := &eventlog.Event{V: 1, N: n, Type: eventlog.InstanceStopped, ID: fmt.Sprintf("i-%d", n%10), Seq: n, At: int64(n)}
			values, types = append(values, eventlog.AppendEvent(nil, e)), append(types, e.Type)
			n, count = n+1, count-1
		}
		if _, err := o.Append(t.Context(), values, types, nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(o.Commit(t.Context()), o.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

const kindSum projection.Kind = 0x60

// sums keeps for each instance the sum of its events' numbers, and counts events.
func sums(ctx context.Context, tx *projection.Tx, e *eventlog.Event) error {
	row, err := tx.Get(ctx, kindSum, []byte(e.ID))
	if err != nil {
		return err
	}
	var sum uint64
	if row != nil {
		if _, err := fmt.Sscan(string(row), &sum); err != nil {
			return err
		}
	}
	tx.Put(kindSum, []byte(e.ID), fmt.Append(nil, sum+e.N))
	tx.Add([]byte("events"), 1)
	if e.N%10 == 3 { // an instance that comes and goes
		tx.Put(kindSum, []byte("now and then"), []byte{})
	} else {
		tx.Del(kindSum, []byte("now and then"))
	}
	n, err := tx.Count(ctx, []byte("events"))
	if err == nil && n != int64(e.N) {
		err = fmt.Errorf("the counter is %d at event %d", n, e.N)
	}
	return err
}

// sumsAt is what sums has to come to at event n.
func sumsAt(n uint64) map[string]string {
	sum, want := map[string]uint64{}, map[string]string{}
	for k := uint64(1); k <= n; k++ {
		sum[fmt.Sprintf("i-%d", k%10)] += k
	}
	for id, s := range sum {
		want[id] = fmt.Sprint(s)
	}
	if n%10 == 3 {
		want["now and then"] = ""
	}
	if n > 0 {
		want["events"] = fmt.Sprint(n)
	}
	return want
}

func wantSums(t *testing.T, store projection.Store, p int32, n uint64) {
	t.Helper()
	v, err := store.View(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := v.Dump(t.Context(), func(r projection.Row) error {
		got[string(r.Key)] = string(r.Value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sumsAt(n), got); diff != "" {
		t.Errorf("partition %d at event %d (-want +got):\n%s", p, n, diff)
	}
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// TestFollowThroughFaults follows a log that grows while the store fails, loses replies, goes
// back and is wiped: each event counts once.
func TestFollowThroughFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	log := followLog(t)
	store := memstore.New(projection.Identity{App: "sums", Partitions: 2}, memstore.Options{History: 50})
	next := [2]uint64{1, 1}
	for round := range 30 {
		for p := range next {
			next[p] = addEvents(t, log, int32(p), next[p], rnd.IntN(150))
		}
		switch round % 5 {
		case 1:
			store.FailNext(errors.New("no answer"))
		case 2:
			store.LoseReply()
		case 3:
			store.Rewind(int32(rnd.IntN(2)), rnd.IntN(4))
		case 4:
			store.Wipe(int32(rnd.IntN(2)))
		}
		if err := projection.Follow(t.Context(), log, store, sums, projection.FollowOptions{Batch: 1 + rnd.IntN(60), UntilEnd: true, Logger: quiet}); err != nil {
			t.Fatal(err)
		}
		for p := range next {
			wantSums(t, store, int32(p), next[p]-1)
		}
	}
}

// TestFollowGoesOn sees events as they come, until its context ends.
func TestFollowGoesOn(t *testing.T) {
	log := followLog(t)
	store := memstore.New(projection.Identity{App: "sums", Partitions: 2})
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	seen := uint64(0)
	more := make(chan struct{}, 1)
	done := make(chan error, 1)
	var told []uint64
	go func() {
		done <- projection.Follow(ctx, log, store, func(ctx context.Context, tx *projection.Tx, e *eventlog.Event) error {
			if tx.Partition() == 1 {
				mu.Lock()
				seen = e.N
				mu.Unlock()
				select {
				case more <- struct{}{}:
				default:
				}
			}
			return sums(ctx, tx, e)
		}, projection.FollowOptions{Cursor: func(_ context.Context, p int32, needs uint64, logID string) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, needs)
			return nil
		}})
	}()
	next := uint64(1)
	for range 5 {
		next = addEvents(t, log, 1, next, 10)
		for {
			mu.Lock()
			n := seen
			mu.Unlock()
			if n == next-1 {
				break
			}
			<-more
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Follow whose context ends: %v", err)
	}
	if len(told) == 0 || told[0] != 1 {
		t.Errorf("cursors told: %d", told)
	}
}

func TestFollowEnds(t *testing.T) {
	log := followLog(t)
	addEvents(t, log, 0, 1, 50)
	id := projection.Identity{App: "sums", Partitions: 2}
	end := projection.FollowOptions{UntilEnd: true, Logger: quiet}
	follow := func(log eventlog.Log, store projection.Store, fold projection.Fold) error {
		return projection.Follow(t.Context(), log, store, fold, end)
	}

	// An error of the fold: nothing of its batch is there.
	store := memstore.New(id)
	wrong := errors.New("wrong")
	err := follow(log, store, func(_ context.Context, tx *projection.Tx, e *eventlog.Event) error {
		tx.Add([]byte("n"), 1)
		if e.N == 30 {
			return wrong
		}
		return nil
	})
	if !errors.Is(err, wrong) || !strings.Contains(err.Error(), "partition 0") || !strings.Contains(err.Error(), "event 30") {
		t.Errorf("an error of the fold: %v", err)
	}
	wantSums(t, store, 0, 0)

	// Misuse of tx.
	for what, f := range map[string]func(*projection.Tx){
		"a kind of the backends": func(tx *projection.Tx) { tx.Put(1, []byte("k"), nil) },
		"a counter":              func(tx *projection.Tx) { tx.Del(projection.KindCount, []byte("k")) },
	} {
		store := memstore.New(id)
		err := projection.Follow(t.Context(), log, store, func(_ context.Context, tx *projection.Tx, _ *eventlog.Event) error { f(tx); return nil }, end)
		if err == nil || !strings.Contains(err.Error(), "is not for Put") {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Another log's store, and one whose events were trimmed.
	if err := follow(log, store, sums); err != nil {
		t.Fatal(err)
	}
	other := followLog(t)
	addEvents(t, other, 0, 1, 100)
	if err := follow(other, store, sums); !errors.Is(err, projection.ErrHistory) {
		t.Errorf("a store of another log: %v", err)
	}
	// A store of this log as it was before it was put back to an older copy and went on.
	v, err := store.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := v.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forked := memstore.New(id)
	part, err := forked.Acquire(t.Context(), 0, w.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	w.Sum++
	if err := part.Apply(t.Context(), projection.Batch{New: w}); err != nil {
		t.Fatal(err)
	}
	if err := follow(log, forked, sums); !errors.Is(err, projection.ErrHistory) {
		t.Errorf("a store of another history of the log: %v", err)
	}
	addEvents(t, log, 0, 51, 100)
	topic, err := log.Topic(t.Context(), eventlog.EventsTopic("shop"))
	if err != nil {
		t.Fatal(err)
	}
	if err := log.DeleteRecords(t.Context(), topic.Name, 0, topic.Partitions[0].End-3); err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]projection.Store{"that is behind": store, "that is empty": memstore.New(id)} {
		if err := follow(log, s, sums); !errors.Is(err, projection.ErrHistory) {
			t.Errorf("a trimmed log and a store %s: %v", what, err)
		}
	}
}

// TestFollowTwice: a second follower takes the store, and the first one ends.
func TestFollowTwice(t *testing.T) {
	log := followLog(t)
	next := addEvents(t, log, 0, 1, 20)
	store := memstore.New(projection.Identity{App: "sums", Partitions: 2})
	began, first := make(chan struct{}), make(chan error, 1)
	once := sync.OnceFunc(func() { close(began) })
	go func() {
		first <- projection.Follow(t.Context(), log, store, func(ctx context.Context, tx *projection.Tx, e *eventlog.Event) error {
			once()
			return sums(ctx, tx, e)
		}, projection.FollowOptions{Logger: quiet})
	}()
	<-began
	if err := projection.Follow(t.Context(), log, store, sums, projection.FollowOptions{UntilEnd: true, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	addEvents(t, log, 0, next, 20) // wakes the first one
	if err := <-first; !errors.Is(err, projection.ErrFenced) {
		t.Errorf("the first follower ends with %v", err)
	}
	wantSums(t, store, 0, 20)
}

// TestFollowOfWrongPartitions is an error before anything is read: of one that is not there, and
// of one that is named twice, whose two followers would fence each other.
func TestFollowOfWrongPartitions(t *testing.T) {
	log, store := followLog(t), memstore.New(projection.Identity{App: "sums", Partitions: 2})
	for _, partitions := range [][]int32{{0, 2}, {-1}, {1, 0, 1}} {
		if err := projection.Follow(t.Context(), log, store, sums, projection.FollowOptions{Partitions: partitions}); err == nil || !strings.Contains(err.Error(), "the log has 0 to 1, each to be named once") {
			t.Errorf("of %v Follow says %v", partitions, err)
		}
	}
}
