package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// TestNames: a filter has all names that were put into it, and few others.
func TestNames(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	others, taken := 0, 0
	for _, n := range []int{0, 1, 2, 3, 10, 100, 1000, 4096} {
		var hashes []uint64
		for k := range n {
			hashes = append(hashes, hashOf(fmt.Sprintf("order-%d-%d", r.Uint32(), k)))
		}
		value := encodeNames(hashes, 2)
		if mayName(value, hashOf("nobody"), 1) && n == 0 || !mayName(value, hashOf("nobody"), 3) {
			t.Errorf("%d names: the types are others", n)
		}
		for _, h := range hashes {
			if !mayName(value, h, 0) {
				t.Fatalf("%d names: one is missing", n)
			}
		}
		for k := range 10_000 {
			if others++; mayName(value, hashOf(fmt.Sprintf("nobody-%d-%d", n, k)), 0) {
				taken++
			}
		}
	}
	if taken > others/100 {
		t.Errorf("%d of %d names that are not there are taken for there", taken, others)
	}
	// No id is taken for there much more often than others, not even one whose hash is nearly the
	// same when its halves are exchanged and added.
	unlucky := 0
	for n := range 1000 {
		var hashes []uint64
		for k := range 250 {
			hashes = append(hashes, hashOf(fmt.Sprintf("order-%d-%d", n, k)))
		}
		if mayName(encodeNames(hashes, 0), hashOf("long"), 0) {
			unlucky++
		}
	}
	if unlucky > 15 {
		t.Errorf("one name is taken for there by %d of 1000 filters", unlucky)
	}
	for _, value := range [][]byte{nil, {}, {formatNames}, {formatNames + 1, 0}, {formatNames + 1, 0, 0}} {
		if !mayName(value, 1, 0) {
			t.Errorf("a filter of an unknown format %x leaves a block out", value)
		}
	}
	if mayName([]byte{formatNames, 3}, 1, 0) {
		t.Error("a block that names nobody is read")
	}
}

// TestBlock: the row of a block depends on nothing but its events; one whose beginning is not
// there gets none.
func TestBlock(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	_, events := fillLives(t, log, r, false, 500)
	all := blockAt(0)
	for _, e := range events {
		all.note(e)
	}
	if len(all.done) != len(events)/int(blockEvents) {
		t.Fatalf("%d rows of %d events", len(all.done), len(events))
	}
	for range 50 {
		stands := uint64(r.IntN(len(events)))
		b := blockAt(stands)
		begins := r.IntN(len(events))
		for _, e := range events[begins:] {
			b.note(e)
			if r.IntN(3) == 0 {
				b.note(events[r.IntN(int(e.N))]) // one that it has had
			}
		}
		first := max(blockOf(stands+1), (uint64(begins)+blockEvents-1)/blockEvents)
		want := all.done[min(first, uint64(len(all.done))):]
		if diff := cmp.Diff(want, b.done, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("a store at event %d, a log from event %d: %s", stands, begins+1, diff)
		}
	}
}

// TestSearch compares what is found through the index with what reading the whole partition finds:
// with all of the index, some of it, none of it, damaged rows, a store that is behind, and one of a
// log that was trimmed since.
func TestSearch(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ctx := t.Context()
	for _, what := range []string{"whole", "some", "none", "damaged", "behind", "trimmed"} {
		t.Run(what, func(t *testing.T) {
			log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			l, events := fillLives(t, log, r, false, 800)
			full := memstore.New(projection.Identity{App: "test", Partitions: 1})
			if what == "behind" {
				if err := rebuildTo(ctx, log, full, uint64(1+r.IntN(len(events)))); err != nil {
					t.Fatal(err)
				}
			} else if _, err := Rebuild(ctx, log, full, RebuildOptions{}); err != nil {
				t.Fatal(err)
			}
			store, rows := withBlocks(t, full, func(row *projection.Row) bool {
				switch {
				case what == "none":
					return false
				case what == "some":
					return r.IntN(3) > 0
				case what == "damaged" && r.IntN(3) > 0:
					row.Value = [][]byte{{}, {formatNames + 1}, {0xFF, 1, 2}}[r.IntN(3)]
				}
				return true
			})
			if what == "trimmed" {
				s, err := newFinder(ctx, log, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, offset, err := (&walk{s: s}).event(ctx, uint64(len(events)/3+r.IntN(len(events)/3)))
				if err != nil {
					t.Fatal(err)
				}
				if err := log.DeleteRecords(ctx, eventlog.EventsTopic(log.App()), 0, offset); err != nil {
					t.Fatal(err)
				}
			} else if what != "behind" {
				v, err := Verify(ctx, log, store, nil)
				if err != nil || what != "damaged" && v.Differences > 0 || what == "damaged" && v.Differences == 0 || int(v.Unindexed) != len(events)/int(blockEvents)-rows {
					t.Errorf("verify: %d differences, %d blocks without an index, %v", v.Differences, v.Unindexed, err)
				}
			}
			for k := range 8 { // the last two are nobody
				id := fmt.Sprintf("i%d", k)
				points := []Point{{}, AtEvent(0), AtEvent(uint64(len(events)))}
				for range searchedPoints {
					n := r.IntN(len(events))
					points = append(points, AtEvent(uint64(n)), AtOffset(int64(n)), Point{by: pointTime, time: events[n].At})
				}
				for _, p := range points {
					sameFound(ctx, t, log, store, id, p, l.s.Instances[id] != nil)
				}
			}
		})
	}
}

// TestSearchEnds: a search whose events nobody wants any more, or whose context ends, says so and
// leaves nothing behind that reads.
func TestSearchEnds(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fillLives(t, log, rand.New(rand.NewPCG(seed, 1)), false, 800)
	store := memstore.New(projection.Identity{App: "test", Partitions: 1})
	if _, err := Rebuild(t.Context(), log, store, RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := newFinder(t.Context(), log, 0)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 6 {
		id := fmt.Sprintf("i%d", k)
		var all []uint64
		if err := s.search(t.Context(), store, id, Point{}, nil, func(ev *eventlog.Event, _ int64) error {
			all = append(all, ev.N)
			return nil
		}); err != nil || !slices.IsSorted(all) {
			t.Fatalf("events %v of %s, %v", all, id, err)
		}
		enough := errors.New("enough")
		for last := range all {
			seen := 0
			if err := s.search(t.Context(), store, id, Point{}, nil, func(ev *eventlog.Event, _ int64) error {
				if ev.N != all[seen] {
					return fmt.Errorf("event %d, want %d", ev.N, all[seen])
				}
				if seen++; seen > last {
					return enough
				}
				return nil
			}); !errors.Is(err, enough) || seen != last+1 {
				t.Errorf("after %d events of %s it says %v", seen, id, err)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(enough)
		if err := s.search(ctx, store, id, Point{}, nil, func(*eventlog.Event, int64) error { return nil }); !errors.Is(err, enough) {
			t.Errorf("with a context that has ended it says %v", err)
		}
	}
}

// sameFound compares what is said of an instance with a store and without.
func sameFound(ctx context.Context, t *testing.T, log eventlog.Log, store projection.Store, id string, p Point, has bool) {
	t.Helper()
	without := cmpopts.IgnoreUnexported(machine.Instance{})
	want, wantErr := ReadTimeline(ctx, log, nil, id, p)
	have, err := ReadTimeline(ctx, log, store, id, p)
	if fmt.Sprint(wantErr) != fmt.Sprint(err) {
		t.Fatalf("history of %s up to %+v: %v, want %v", id, p, err, wantErr)
	}
	if want != nil {
		if a, b := simJSON([]any{want.Instance, want.Steps, want.Open, want.Plan == nil}), simJSON([]any{have.Instance, have.Steps, have.Open, have.Plan == nil}); a != b {
			t.Fatalf("history of %s up to %+v: %s", id, p, cmp.Diff(a, b))
		}
	}
	events, err := ReadEventsBetween(ctx, log, nil, id, AtEvent(0), p)
	if err != nil {
		t.Fatal(err)
	}
	found, err := ReadEventsBetween(ctx, log, store, id, AtEvent(0), p)
	if a, b := simJSON(events), simJSON(found); a != b || err != nil {
		t.Fatalf("events of %s up to %+v: %v, %s", id, p, err, cmp.Diff(a, b))
	}
	if p.IsNow() {
		var all []*eventlog.Event
		for ev, err := range ReadEvents(ctx, log, store, id) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ev)
		}
		if a, b := simJSON(events), simJSON(all); a != b {
			t.Fatalf("events of %s: %s", id, cmp.Diff(a, b))
		}
		for range ReadEvents(ctx, log, store, id) {
			break
		}
		if wantErr == nil {
			sameExport(ctx, t, log, store, id)
		}
		return
	}
	// Without its row: as one that was deleted and forgotten. With it other tests look.
	if has {
		return
	}
	i, _, wantErr := ReadInstanceAt(ctx, log, nil, id, p)
	j, _, err := ReadInstanceAt(ctx, log, store, id, p)
	if diff := cmp.Diff(i, j, without, cmpopts.EquateEmpty()); diff != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("%s as of %+v: %v, want %v: %s", id, p, err, wantErr, diff)
	}
}

func sameExport(ctx context.Context, t *testing.T, log eventlog.Log, store projection.Store, id string) {
	t.Helper()
	var lines [2][][]byte
	for k, from := range []projection.Store{nil, store} {
		var b bytes.Buffer
		if _, err := Export(ctx, log, &b, ExportOptions{ID: id, Store: from}); err != nil {
			t.Fatal(err)
		}
		lines[k] = bytes.Split(b.Bytes(), []byte("\n"))[1:] // the head has the time
	}
	if diff := cmp.Diff(lines[0], lines[1]); diff != "" {
		t.Fatalf("export of %s: %s", id, diff)
	}
}

// rebuildTo folds a partition up to an event.
func rebuildTo(ctx context.Context, log eventlog.Log, store projection.Store, n uint64) error {
	f, err := newFolder(ctx, log, store, 0)
	if err != nil {
		return err
	}
	defer f.close()
	f.target = n
	return f.fold()
}

// withBlocks is a store of one partition with what keep leaves of another's index, and changes in it.
func withBlocks(t *testing.T, from projection.Store, keep func(*projection.Row) bool) (to projection.Store, left int) {
	t.Helper()
	v, err := from.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var b projection.Batch
	if b.New, err = projection.DumpAt(t.Context(), v, func(row projection.Row) error {
		row.Key, row.Value = slices.Clone(row.Key), slices.Clone(row.Value)
		switch {
		case row.Kind == projection.KindCount:
			n, err := strconv.ParseInt(string(row.Value), 10, 64)
			b.Add = append(b.Add, projection.Delta{Key: row.Key, N: n})
			return err
		case row.Kind != projection.KindBlock:
			b.Put = append(b.Put, row)
		case keep(&row):
			b.Put = append(b.Put, row)
			left++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	to = memstore.New(projection.Identity{App: "test", Partitions: 1})
	p, err := to.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b.New.Epoch = 1
	if err := p.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return to, left
}

func blocksOf(t *testing.T, store projection.Store) (l []uint64) {
	t.Helper()
	withBlocks(t, store, func(row *projection.Row) bool {
		l = append(l, lastUint64(row.Key))
		return true
	})
	return l
}

// TestBlockTrimmed: an owner whose log no longer has the beginning of the block at hand works on;
// that block gets no row, those after it do.
func TestBlockTrimmed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ctx := t.Context()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	_, events := fillLives(t, log, r, false, 500)
	// Where a store may stand that needs nothing before an event within the same block.
	var n, need uint64
	for forwarded := uint64(0); n == 0; {
		for _, e := range events[blockEvents:] {
			if e.Pos != nil {
				forwarded = e.Pos.Forwarded
			}
			if need = min(e.N, forwarded+1); need > blockFirst(blockOf(e.N)) && e.N%blockEvents != 0 && r.IntN(20) == 0 {
				n = e.N
				break
			}
		}
	}
	for _, trim := range []bool{false, true} {
		store := memstore.New(projection.Identity{App: "test", Partitions: 1})
		if !trim {
			if err := rebuildTo(ctx, log, store, n); err != nil {
				t.Fatal(err)
			}
			if _, err := Rebuild(ctx, log, store, RebuildOptions{Resume: true}); err != nil {
				t.Fatal(err)
			}
			if rows := blocksOf(t, store); len(rows) != len(events)/int(blockEvents) {
				t.Errorf("%d rows of %d events", len(rows), len(events))
			}
			continue
		}
		if err := rebuildTo(ctx, log, store, n); err != nil {
			t.Fatal(err)
		}
		s, err := newFinder(ctx, log, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, offset, err := (&walk{s: s}).event(ctx, need)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.DeleteRecords(ctx, eventlog.EventsTopic("test"), 0, offset); err != nil {
			t.Fatal(err)
		}
		f, err := newFolder(ctx, log, store, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.close()
		if err := f.fold(); err != nil { // memstore can build aside, which begins with the log
			t.Fatal(err)
		}
		if f.r.o.st.N != uint64(len(events)) {
			t.Errorf("folded up to event %d of %d", f.r.o.st.N, len(events))
		}
		have := blocksOf(t, store)
		var want []uint64
		for b := range uint64(len(events)) / blockEvents {
			if b != blockOf(n) {
				want = append(want, b)
			}
		}
		if !slices.Equal(want, have) {
			t.Errorf("blocks %v, want %v", have, want)
		}
		if _, _, err := ReadInstanceAt(ctx, log, store, "nobody", AtEvent(n)); !errors.Is(err, ErrTrimmed) {
			t.Errorf("nobody: %v", err)
		}
	}
}

// TestDroppedBlocks: rows of blocks that the log has dropped are deleted with the next batch.
func TestDroppedBlocks(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ctx := t.Context()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	_, events := fillLives(t, log, rand.New(rand.NewPCG(seed, 1)), false, 300)
	store := memstore.New(projection.Identity{App: "test", Partitions: 1})
	f, err := newFolder(ctx, log, store, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if err := f.fold(); err != nil {
		t.Fatal(err)
	}
	if rows := f.r.dropped(); len(rows) > 0 {
		t.Errorf("of a whole log: %v", rows)
	}
	s, err := newFinder(ctx, log, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, offset, err := (&walk{s: s}).event(ctx, blockFirst(7)+3)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.DeleteRecords(ctx, eventlog.EventsTopic("test"), 0, offset); err != nil {
		t.Fatal(err)
	}
	if rows := f.r.dropped(); len(rows) > 0 {
		t.Errorf("looked again at once: %v", rows)
	}
	f.r.dropsLook = time.Time{}
	o := f.r.o
	o.asked()
	o.scanned(result{at: o.mark.N, dropped: f.r.dropped()})
	o.st.N++ // something has happened
	b := o.batch()
	b.New.N = uint64(len(events)) + 1
	if err := f.r.store.Apply(ctx, *b); err != nil {
		t.Fatal(err)
	}
	if l := blocksOf(t, store); len(l) != len(events)/int(blockEvents)-7 || l[0] != 7 {
		t.Errorf("blocks %v are left", l)
	}
}

// BenchmarkBlock is what the index of blocks costs for each event.
func BenchmarkBlock(b *testing.B) {
	events := make([]eventlog.Event, blockEvents)
	for k := range events {
		events[k] = eventlog.Event{Type: eventlog.TaskCompleted, ID: fmt.Sprintf("order-%08d", k/4*7)}
	}
	x := blockAt(0)
	began := cpuTime()
	for n := uint64(1); b.Loop(); n++ {
		e := &events[n%blockEvents]
		e.N = n
		x.note(e)
	}
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(len(x.done)), "rows")
}
