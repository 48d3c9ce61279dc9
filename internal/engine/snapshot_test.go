package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/snapshot"
)

// plainStore has none of the optional powers.
type plainStore struct{ projection.Store }

// moreOrders starts orders that wait, and ends those with even numbers.
func moreOrders(t *testing.T, log eventlog.Log, e *Engine, from, to int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for k := from; k < to; k++ {
		id, order := fmt.Sprintf("m-%03d", k), fmt.Sprintf("mo-%d", k)
		if a, err := startOrder(ctx, e, id, order); err != nil || a.Answer != machine.OK {
			t.Fatalf("start %s: %+v, %v", id, a, err)
		}
		if k%2 == 0 {
			say(t, log, order, "ready")
		}
	}
	for k := from; k < to; k++ {
		if k%2 == 0 {
			if i, err := e.Wait(ctx, fmt.Sprintf("m-%03d", k)); err != nil || i.Status != machine.Completed {
				t.Fatalf("wait: %+v, %v", i, err)
			}
		}
	}
}

func wantVerified(t *testing.T, log eventlog.Log, store projection.Store) {
	t.Helper()
	if v, err := Verify(t.Context(), log, store, nil); err != nil || v.Differences != 0 || v.Events == 0 {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

func wantSameRows(t *testing.T, log eventlog.Log, want, got projection.Store) {
	t.Helper()
	for p := range log.Partitions() {
		if diff := cmp.Diff(dumpRows(t, want, p), dumpRows(t, got, p)); diff != "" {
			t.Errorf("partition %d (-want +got):\n%.3000s", p, diff)
		}
	}
}

// TestRebuildWhileAnEngineWorks rebuilds again and again under an engine: nothing is lost.
func TestRebuildWhileAnEngineWorks(t *testing.T) {
	for name, of := range map[string]func(projection.Store) projection.Store{
		"aside":    func(s projection.Store) projection.Store { return s },
		"in place": func(s projection.Store) projection.Store { return plainStore{s} },
	} {
		t.Run(name, func(t *testing.T) {
			log := memLog(t)
			store := of(memStore(t))
			e, stop := runEngine(t, log, store, runOrders(t))
			moreOrders(t, log, e, 0, 20)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 5 {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
					done, err := Rebuild(ctx, log, store, RebuildOptions{Parallel: 3})
					cancel()
					if err != nil || len(done) != 4 {
						t.Errorf("rebuild: %+v, %v", done, err)
					}
				}
			})
			moreOrders(t, log, e, 20, 60)
			wg.Wait()
			for k := 1; k < 60; k += 2 {
				say(t, log, fmt.Sprintf("mo-%d", k), "ready")
			}
			for k := 1; k < 60; k += 2 {
				if i, err := e.Wait(t.Context(), fmt.Sprintf("m-%03d", k)); err != nil || i.Status != machine.Completed {
					t.Fatalf("wait: %+v, %v", i, err)
				}
			}
			stop()
			wantVerified(t, log, store)
		})
	}
}

// TestRebuildGoesOn cuts a rebuild off: the store stays as it was where it can be built
// aside, and the next rebuild goes on.
func TestRebuildGoesOn(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	const p = 1
	want := dumpRows(t, store, p)
	cut := errors.New("cut off")
	for name, target := range map[string]projection.Store{"aside": store, "another store": memStore(t), "in place": plainStore{memStore(t)}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		_, err := Rebuild(ctx, slowLog{log, 20}, target, RebuildOptions{Partitions: []int32{p}, BatchRows: 1, Progress: func(int32, int64, int64) {
			if calls++; calls == 3 {
				cancel(cut)
			}
		}})
		if !errors.Is(err, cut) {
			t.Fatalf("%s: a rebuild that was cut off: %v", name, err)
		}
		if name == "aside" && !slices.Equal(want, dumpRows(t, store, p)) {
			t.Errorf("%s: the partition in use has changed", name)
		}
		done, err := Rebuild(t.Context(), log, target, RebuildOptions{Partitions: []int32{p}, Resume: true})
		if err != nil || done[0].From == 0 || done[0].From+uint64(done[0].Events) != done[0].AsOf {
			t.Errorf("%s: the rebuild after it: %+v, %v", name, done, err)
		}
		if diff := cmp.Diff(want, dumpRows(t, target, p)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// slowLog gives its readers a few records at a time.
type slowLog struct {
	eventlog.Log
	n int
}

func (l slowLog) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	r, err := l.Log.Read(ctx, topic, partition, from, topicID, isolation)
	return &slowReader{Reader: r, n: l.n}, err
}

type slowReader struct {
	eventlog.Reader
	n    int
	have []eventlog.Record
	next int64
}

func (r *slowReader) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if len(r.have) == 0 {
		var err error
		if r.have, r.next, err = r.Reader.Next(ctx); err != nil {
			return nil, 0, err
		}
	}
	k := min(r.n, len(r.have))
	out := r.have[:k]
	if r.have = r.have[k:]; len(r.have) > 0 {
		return out, r.have[0].Offset, nil
	}
	return out, r.next, nil
}

// fourSnapshots is a log with a store, and two snapshots of each partition in a directory.
type fourSnapshots struct {
	log    eventlog.Log
	store  *memstore.Store
	dir    string
	bucket snapshot.Bucket
	first  []snapshot.Manifest
	second []snapshot.Manifest
	old    *memstore.Store // as it was at the first snapshots
}

func withSnapshots(t *testing.T, trim bool) *fourSnapshots {
	t.Helper()
	x := &fourSnapshots{log: memLog(t), store: memStore(t), dir: t.TempDir(), old: memStore(t)}
	var err error
	if x.bucket, err = snapshot.OpenDir(x.dir); err != nil {
		t.Fatal(err)
	}
	take := func(trim bool, keep int) (list []snapshot.Manifest) {
		for p := range x.log.Partitions() {
			m, err := TakeSnapshot(t.Context(), x.log, x.store, p, Snapshots{Bucket: x.bucket, Trim: trim, Keep: keep})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, m)
		}
		return list
	}
	ordersDone(t, x.log, x.store)
	x.first = take(false, 3)
	if _, err := Rebuild(t.Context(), x.log, x.old, RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	e, stop := runEngine(t, x.log, x.store, runOrders(t))
	moreOrders(t, x.log, e, 0, 60)
	untilAtRest(t, x.log, x.store)
	stop()
	x.second = take(false, 3)
	e, stop = runEngine(t, x.log, x.store, runOrders(t)) // something after the newest one
	moreOrders(t, x.log, e, 60, 70)
	untilAtRest(t, x.log, x.store)
	stop()
	if trim {
		take(true, 2)
	}
	return x
}

func (x *fourSnapshots) starts(t *testing.T) (starts []int64) {
	t.Helper()
	topic, err := x.log.Topic(t.Context(), eventlog.EventsTopic(x.log.App()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range topic.Partitions {
		starts = append(starts, p.Start)
	}
	return starts
}

// TestRestore makes stores of snapshots and the rest of the log. A damaged snapshot is passed
// over for an older one, then for the log.
func TestRestore(t *testing.T) {
	x := withSnapshots(t, false)
	restored := func() []Rebuilt {
		t.Helper()
		store := memStore(t)
		done, err := Restore(t.Context(), x.log, store, RestoreOptions{Snapshots: x.bucket})
		if err != nil {
			t.Fatal(err)
		}
		wantSameRows(t, x.log, x.store, store)
		return done
	}
	for p, r := range restored() {
		if r.From != x.second[p].N || r.From+uint64(r.Events) != r.AsOf {
			t.Errorf("partition %d begins with event %d, the newest snapshot is of event %d", p, r.From, x.second[p].N)
		}
	}
	damage := func(m snapshot.Manifest, how func([]byte) []byte) {
		name := filepath.Join(x.dir, filepath.FromSlash(m.Object))
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if raw = how(raw); raw == nil {
			err = os.Remove(name)
		} else {
			err = os.WriteFile(name, raw, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	damage(x.second[0], func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	damage(x.second[1], func(b []byte) []byte { return b[:len(b)-1] })
	damage(x.second[2], func([]byte) []byte { return nil })
	manifest := strings.TrimSuffix(x.second[3].Object, ".rows") + ".json"
	if err := x.bucket.Put(t.Context(), manifest, strings.NewReader("{")); err != nil {
		t.Fatal(err)
	}
	for p, r := range restored() {
		if r.From != x.first[p].N {
			t.Errorf("partition %d begins with event %d, its older snapshot is of event %d", p, r.From, x.first[p].N)
		}
	}
	for p := range x.first {
		damage(x.first[p], func(b []byte) []byte { b[10] ^= 1; return b })
	}
	for p, r := range restored() {
		if r.From != 0 {
			t.Errorf("partition %d begins with event %d although no snapshot is whole", p, r.From)
		}
	}
}

// TestRestoreOfAnotherHistory: a snapshot of another log counts for nothing.
func TestRestoreOfAnotherHistory(t *testing.T) {
	x := withSnapshots(t, false)
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, memStore(t))
	done, err := Restore(t.Context(), log, store, RestoreOptions{Snapshots: x.bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range done {
		if r.From != 0 {
			t.Errorf("%+v begins with a snapshot of another log", r)
		}
	}
	wantVerified(t, log, store)
}

// TestTrimmedLog: with a policy the log drops what no kept snapshot needs, and then engines
// with an empty store, with one that is too old, and with one that is new enough go on.
func TestTrimmedLog(t *testing.T) {
	x := withSnapshots(t, true)
	for p, start := range x.starts(t) {
		if start == 0 {
			t.Errorf("nothing of partition %d was trimmed", p)
		}
	}
	// What is left is enough for each kept snapshot, and not for less.
	if _, err := Rebuild(t.Context(), x.log, memStore(t), RebuildOptions{}); err == nil || !strings.Contains(err.Error(), "begins at event") {
		t.Errorf("rebuild from a trimmed log alone: %v", err)
	}
	// Of an instance that nothing is left of, only the store knows.
	for name, read := range map[string]func(store projection.Store) error{
		"now": func(store projection.Store) error { return third(ReadInstance(t.Context(), x.log, store, "m-000")) },
		"as of its start": func(projection.Store) error {
			return third(ReadInstanceAt(t.Context(), x.log, x.store, "m-000", AtEvent(2)))
		},
		"its history": func(projection.Store) error { return second(ReadTimeline(t.Context(), x.log, nil, "m-000", Point{})) },
	} {
		if err := read(nil); !errors.Is(err, ErrTrimmed) {
			t.Errorf("%s: %v", name, err)
		}
		if err := read(x.store); name == "now" && err != nil {
			t.Errorf("%s, from the store: %v", name, err)
		}
	}
	if err := third(ReadInstance(t.Context(), x.log, x.store, "nobody")); !errors.Is(err, ErrNotFound) {
		t.Errorf("who never was, by the store: %v", err)
	}
	wantSame := func(store projection.Store) {
		t.Helper()
		restored := memStore(t)
		if _, err := Restore(t.Context(), x.log, restored, RestoreOptions{Snapshots: x.bucket}); err != nil {
			t.Fatal(err)
		}
		wantSameRows(t, x.log, restored, store)
	}
	wantSame(x.store)
	newer := memStore(t)
	if _, err := Rebuild(t.Context(), x.log, newer, RebuildOptions{Snapshots: x.bucket}); err != nil {
		t.Fatal(err)
	}
	k := 1
	for name, store := range map[string]projection.Store{"an empty store": memStore(t), "a store that is too old": x.old, "its own store": newer} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		e, err := New(ctx, Config{Log: x.log, Store: store, ProjectInterval: 5 * time.Millisecond, Logger: discard(), Snapshots: Snapshots{Bucket: x.bucket}})
		if err != nil {
			t.Fatal(name, err)
		}
		if err := e.Register(ctx, runOrders(t)); err != nil {
			t.Fatal(name, err)
		}
		// Who waits before the partitions are here is answered when they are.
		early, waited := fmt.Sprintf("m-%03d", k), make(chan error, 1)
		go func() { waited <- second(e.Wait(ctx, early)) }()
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- e.Run(run) }()
		until(t, ctx, "the engine runs", e.Running)
		for range 5 { // orders that were waiting before the snapshots
			say(t, x.log, fmt.Sprintf("mo-%d", k), "now")
			if i, err := e.Wait(ctx, fmt.Sprintf("m-%03d", k)); err != nil || i.Status != machine.Completed {
				t.Fatalf("%s: %+v, %v", name, i, err)
			}
			k += 2
		}
		if err := <-waited; err != nil {
			t.Errorf("%s: who waited from the beginning: %v", name, err)
		}
		untilAtRest(t, x.log, store)
		stop()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Fatal(name, err)
		}
		cancel()
		wantSame(store)
	}
}

// TestTrimKeepsWhatACursorNeeds: a follower's cursor, a store that is behind, the oldest snapshot
// that is kept, and one that is not whole hold the log.
func TestTrimKeepsWhatACursorNeeds(t *testing.T) {
	x := withSnapshots(t, false)
	cursor := snapshot.Cursor{Name: "reports", Partition: 0, N: 3, LogID: x.first[0].LogID}
	if err := snapshot.PutCursor(t.Context(), x.bucket, x.log.App(), cursor); err != nil {
		t.Fatal(err)
	}
	if err := x.bucket.Put(t.Context(), x.second[1].Object, bytes.NewReader([]byte("rubbish"))); err != nil {
		t.Fatal(err)
	}
	policy := Snapshots{Bucket: x.bucket, Trim: true, Keep: 2}
	for p := range x.log.Partitions() {
		store, policy := x.store, policy
		if p == 2 { // it is behind the one snapshot that is kept
			store, policy.Keep = x.old, 1
		}
		_, err := TakeSnapshot(t.Context(), x.log, store, p, policy)
		if damaged := p == 1; damaged != errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("partition %d: %v", p, err)
		}
	}
	have := x.starts(t)
	for p, least := range map[int32]uint64{0: 3, 2: x.first[2].N, 3: x.second[3].From} { // of 3 that one is the oldest kept
		f, err := newFolder(t.Context(), x.log, x.store, p)
		if err != nil {
			t.Fatal(err)
		}
		first, err := f.r.firstEvent()
		if err != nil || first > least {
			t.Errorf("partition %d begins at event %d (%v), event %d is needed", p, first, err, least)
		}
	}
	if have[1] != 0 {
		t.Errorf("partition 1 was trimmed although a snapshot is damaged")
	}
	if have[3] == 0 {
		t.Error("partition 3 was not trimmed")
	}
	if err := snapshot.DeleteCursor(t.Context(), x.bucket, x.log.App(), cursor); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeSnapshot(t.Context(), x.log, x.store, 0, policy); err != nil {
		t.Fatal(err)
	}
	if now := x.starts(t); now[0] <= have[0] {
		t.Error("without its cursor partition 0 is still not trimmed")
	}
}

// TestSnapshotOfAnotherHistory: a snapshot whose last event the log has not, as after a log was put
// back to an older copy and went on, lets it drop nothing, and nothing is restored from it.
func TestSnapshotOfAnotherHistory(t *testing.T) {
	x := withSnapshots(t, false)
	m := x.second[0]
	m.Sum++
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.bucket.Put(t.Context(), strings.TrimSuffix(m.Object, ".rows")+".json", bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	store := memStore(t)
	done, err := Restore(t.Context(), x.log, store, RestoreOptions{Snapshots: x.bucket})
	if err != nil {
		t.Fatal(err)
	}
	for p, r := range done {
		want := x.second[p].N
		if p == 0 {
			want = x.first[p].N
		}
		if r.From != want {
			t.Errorf("partition %d begins with event %d, want the snapshot of event %d", p, r.From, want)
		}
	}
	wantSameRows(t, x.log, x.store, store)
	_, err = TakeSnapshot(t.Context(), x.log, x.store, 0, Snapshots{Bucket: x.bucket, Trim: true, Keep: 2})
	if want := fmt.Sprintf("event %d at offset %d is another one", m.N, m.Offset); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("trimmed by it: %v; want %s", err, want)
	}
	if start := x.starts(t)[0]; start != 0 {
		t.Errorf("the log begins at offset %d", start)
	}
}

// TestFillCutOff: what is left of a restore that was cut off is begun again.
func TestFillCutOff(t *testing.T) {
	x := withSnapshots(t, true)
	for name, store := range map[string]projection.Store{"aside": memStore(t), "in place": plainStore{memStore(t)}} {
		part, err := store.Acquire(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		half := x.second[0].Watermark()
		half.N, half.Sum, half.Epoch = 1, 0, 0
		if err := part.Apply(t.Context(), projection.Batch{New: half, Put: []projection.Row{{Kind: projection.KindInstance, Key: []byte("half"), Value: []byte("x")}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := Rebuild(t.Context(), x.log, store, RebuildOptions{Snapshots: x.bucket, Resume: true}); err != nil {
			t.Fatal(name, err)
		}
		wantSameRows(t, x.log, x.store, store)
	}
}

// TestEngineTakesSnapshots: the policy of a running engine.
func TestEngineTakesSnapshots(t *testing.T) {
	log, store := memLog(t), memStore(t)
	bucket, err := snapshot.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	policy := Snapshots{Bucket: bucket, Every: 20 * time.Millisecond, Keep: 2, Trim: true}
	e, err := New(ctx, Config{Log: log, Store: store, ProjectInterval: 5 * time.Millisecond, Logger: discard(), Snapshots: policy})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(ctx, runOrders(t)); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.Run(run) }()
	until(t, ctx, "the engine runs", e.Running)
	x := &fourSnapshots{log: log}
	for k := 0; ; k += 10 {
		moreOrders(t, log, e, k, k+10)
		trimmed := 0
		for _, s := range x.starts(t) {
			if s > 0 {
				trimmed++
			}
		}
		if trimmed == 4 {
			break
		}
	}
	untilAtRest(t, log, store)
	stop()
	if err := errors.Join(<-done, e.Close()); err != nil {
		t.Fatal(err)
	}
	restored := memStore(t)
	if _, err := Restore(t.Context(), log, restored, RestoreOptions{Snapshots: bucket}); err != nil {
		t.Fatal(err)
	}
	for p := range log.Partitions() {
		// Of the block that begins among the events that were dropped the restored store has no row.
		index := fmt.Sprintf("%#x ", projection.KindBlock)
		have := dumpRows(t, restored, p)
		left := 0
		want := slices.DeleteFunc(dumpRows(t, store, p), func(row string) bool {
			gone := strings.HasPrefix(row, index) && !slices.Contains(have, row)
			if gone {
				left++
			}
			return gone
		})
		if diff := cmp.Diff(want, have); diff != "" || left > 1 {
			t.Errorf("partition %d: %d rows of the index are missing; (-want +got):\n%s", p, left, diff)
		}
	}
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	for p := range log.Partitions() {
		// An engine that ends while it takes a snapshot may leave one too many; the next look at
		// the partition removes it.
		for _, most := range []int{3, 2} {
			list, _, err := snapshot.List(t.Context(), bucket, id, p, "")
			if err != nil || len(list) == 0 || len(list) > most {
				t.Errorf("partition %d has %d snapshots, %v, want at most %d", p, len(list), err, most)
			}
			if _, err := TakeSnapshot(t.Context(), log, store, p, policy); err != nil {
				t.Error(err)
			}
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func second[A any](_ A, err error) error { return err }

func third[A, B any](_ A, _ B, err error) error { return err }
