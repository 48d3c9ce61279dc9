package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog" // file:
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// TestAsOf compares instances as of every event, time and offset with a fold that takes one
// event after the other.
func TestAsOf(t *testing.T) {
	ctx := t.Context()
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	for p := range log.Partitions() {
		s, err := newFinder(ctx, log, p)
		if err != nil {
			t.Fatal(err)
		}
		var events []*eventlog.Event
		var offsets []int64
		if err := s.read(ctx, 0, func(r *eventlog.Record) (bool, error) {
			ev, err := decodeEvent(r, p)
			events, offsets = append(events, ev), append(offsets, r.Offset)
			return true, err
		}); err != nil {
			t.Fatal(err)
		}
		folds := map[string]*fold{}
		for k, ev := range events {
			ids, _, _ := machine.Touches(ev)
			for _, id := range ids {
				f := folds[id]
				if f == nil {
					f = newFold(log.Partitions(), id)
					folds[id] = f
					for _, e := range events[:k] {
						if err := f.event(e); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			for id, f := range folds {
				if err := f.event(ev); err != nil {
					t.Fatal(err)
				}
				if (k+len(id))%7 > 0 && k < len(events)-1 && ev.ID != id {
					continue // some of them are enough
				}
				want, wantErr := f.instance()
				points := []Point{AtEvent(ev.N), AtOffset(offsets[k]), AtEvents(map[int32]uint64{p: ev.N})}
				if k+1 == len(events) || events[k+1].At > ev.At {
					points = append(points, AtTime(time.UnixMilli(ev.At)))
				}
				for _, from := range []projection.Store{nil, store} {
					for _, point := range points {
						have, _, err := ReadInstanceAt(ctx, log, from, id, point)
						if !errors.Is(err, wantErr) || wantErr == nil && err != nil {
							t.Fatalf("%s as of %+v (store %v): %v, want %v", id, point, from != nil, err, wantErr)
						}
						// What is remembered of calls may be newer.
						if diff := cmp.Diff(want, have, cmpopts.IgnoreUnexported(machine.Instance{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(machine.Mailbox{}, "Refused")); diff != "" {
							t.Fatalf("%s as of %+v (store %v): %s", id, point, from != nil, diff)
						}
					}
				}
			}
		}
		for k, ev := range events {
			for _, point := range []Point{AtEvent(ev.N), AtOffset(offsets[k])} {
				if x, err := s.last(ctx, point); err != nil || x.n != ev.N {
					t.Fatalf("last of %+v: %+v, %v", point, x, err)
				}
			}
			w := walk{s: s, hint: found{n: uint64(len(events)), offset: s.end}}
			if e, at, err := w.event(ctx, ev.N); err != nil || e == nil || at != offsets[k] {
				t.Fatalf("event %d: %d, %v", ev.N, at, err)
			}
		}
	}
	if _, _, err := ReadInstanceAt(ctx, log, store, "i-00", AtTime(time.UnixMilli(1))); !errors.Is(err, ErrNotFound) {
		t.Errorf("before everything: %v", err)
	}
}

// TestPast compares all instances as of points with what each of them is then.
func TestPast(t *testing.T) {
	ctx := t.Context()
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	now, err := ReadPast(ctx, log, Point{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := now.List(ctx, Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	want, err := ReadList(ctx, store, Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, page, cmpopts.IgnoreUnexported(machine.Instance{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	half, offsets := map[int32]uint64{}, map[int32]uint64{3: 0}
	for p, n := range now.AsOf() {
		half[p] = n / 2
		if p < 2 { // the others: one before its first event, one as it is now
			s, err := newFinder(ctx, log, p)
			if err != nil {
				t.Fatal(err)
			}
			x, err := s.last(ctx, AtEvent(n/2))
			if err != nil {
				t.Fatal(err)
			}
			offsets[p] = uint64(x.offset)
		}
	}
	middle := time.UnixMilli((page.Instances[0].Created + page.Instances[len(page.Instances)-1].Updated) / 2)
	for _, point := range []Point{AtEvents(half), AtOffsets(offsets), AtTime(middle), AtTime(time.UnixMilli(1)), AtTime(time.Now().Add(time.Hour))} {
		past, err := ReadPast(ctx, log, point, nil)
		if err != nil {
			t.Fatal(err)
		}
		counts, err := past.Count(ctx, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		wantCounts := map[string]int64{}
		for _, i := range page.Instances {
			one, _, err := ReadInstanceAt(ctx, log, nil, i.ID, point)
			if errors.Is(err, ErrNotFound) {
				if _, err := past.Get(i.ID); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s as of %+v: %v", i.ID, point, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			have, err := past.Get(i.ID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(one, have, cmpopts.IgnoreUnexported(machine.Instance{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s as of %+v: %s", i.ID, point, diff)
			}
			wantCounts[one.Definition+"/"+one.StatusName()]++
		}
		if diff := cmp.Diff(wantCounts, counts); diff != "" {
			t.Errorf("counts as of %+v: %s", point, diff)
		}
	}
	by, err := ReadPast(ctx, log, AtOffsets(offsets), nil)
	if err != nil || by.AsOf()[0] != half[0] || by.AsOf()[1] != half[1] || by.AsOf()[2] != now.AsOf()[2] || by.AsOf()[3] > 1 {
		t.Errorf("as of the offsets %v: events %v, %v; half is %v", offsets, by.AsOf(), err, half)
	}
	if _, err := ReadPast(ctx, log, AtEvent(3), nil); !errors.Is(err, ErrPoint) {
		t.Errorf("a number for all partitions: %v", err)
	}
	// A partition that is not there is not passed over.
	for name, p := range map[string]Point{"events": AtEvents(map[int32]uint64{0: 1, 99: 1}), "offsets": AtOffsets(map[int32]uint64{-1: 1})} {
		_, past := ReadPast(ctx, log, p, nil)
		_, _, get := ReadInstanceAt(ctx, log, nil, "i-00", p)
		_, history := ReadTimeline(ctx, log, nil, "i-00", p)
		_, between := ReadEventsBetween(ctx, log, nil, "i-00", Point{}, p)
		for what, err := range map[string]error{"all": past, "one": get, "history": history, "between": between} {
			if !errors.Is(err, ErrPoint) || !strings.Contains(err.Error(), "the log has the partitions 0 to 3") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// BenchmarkAsOf looks for instances as of a point in a log of DAGGER_ASOF_EVENTS events in one
// partition, or for their histories: of one whose events are near to each other, of one that has
// some from the beginning to the end of the log, of one of which the store has no row any more, and
// of none; with a store and without. DAGGER_ASOF_LOG and DAGGER_ASOF_STORE may name another log and
// a store, which are filled where they are empty, and used as they are when the benchmark runs again.
func BenchmarkAsOf(b *testing.B) {
	total, _ := strconv.Atoi(os.Getenv("DAGGER_ASOF_EVENTS"))
	if total == 0 {
		total = 100_000
	}
	ctx := b.Context()
	logURL, storeURL := os.Getenv("DAGGER_ASOF_LOG"), os.Getenv("DAGGER_ASOF_STORE")
	if logURL == "" {
		logURL = "file:" + b.TempDir() + "?app=test&partitions=1"
	}
	if storeURL == "" {
		storeURL = "pebble:" + b.TempDir()
	}
	log, err := eventlog.Open(ctx, logURL)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	store, err := projection.Open(ctx, storeURL, projection.Identity{App: log.App(), Partitions: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	last := filledBefore(ctx, b, store)
	if last[longID] == 0 {
		last = fillLog(ctx, b, log, store, total)
	}
	short := func() string { return shortID(sampled * rand.IntN(len(last)-1)) }
	long := func() string { return longID }
	gone := func() string { return shortID(sampled*rand.IntN(len(last)-1) + 1) }
	nobody := func() string { return fmt.Sprint("nobody-", rand.Uint64()) }
	for _, x := range []struct {
		what  string
		store projection.Store
		id    func() string
		err   error
	}{
		{"short", store, short, nil},
		{"long", store, long, nil},
		{"without-a-row", store, gone, nil},
		{"nobody", store, nobody, ErrNotFound},
		{"without-a-store/short", nil, short, nil},
		{"without-a-store/nobody", nil, nobody, ErrNotFound},
	} {
		b.Run("as-of/"+x.what, func(b *testing.B) {
			defer perLook(b, cpuTime())
			for b.Loop() {
				id := x.id()
				n := last[id] - 1 // not all that the store has of it counts
				if last[id] == 0 {
					n = uint64(total) - 1
				}
				if _, _, err := ReadInstanceAt(ctx, log, x.store, id, AtEvent(n)); !errors.Is(err, x.err) {
					b.Fatal(err)
				}
			}
		})
		b.Run("history/"+x.what, func(b *testing.B) {
			defer perLook(b, cpuTime())
			for b.Loop() {
				if _, err := ReadTimeline(ctx, log, x.store, x.id(), Point{}); !errors.Is(err, x.err) {
					b.Fatal(err)
				}
			}
		})
	}
}

// perLook reports the processor time of each look, which what else the machine does changes little.
func perLook(b *testing.B, began time.Duration) {
	b.ReportMetric(float64((cpuTime()-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

const (
	longID  = "long"
	sampled = 1000 // of so many short instances the store has one
)

func shortID(k int) string { return fmt.Sprintf("order-%08d", k) }

// fillLog appends events of short instances, and one that has an event now and then from the
// // beginning to the end. The store gets the rows of some; their last events are returned.
func fillLog(ctx context.Context, tb testing.TB, log eventlog.Log, store projection.Store, events int) map[string]uint64 {
	tb.Helper()
	owner, err := log.Own(ctx, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer owner.Close()
	n, at := uint64(0), int64(1_700_000_000_000)
	index := blockAt(0)
	var batch [][]byte
	var types []eventlog.Type
	flush := func() {
		if _, err := owner.Append(ctx, batch, types, nil); err != nil {
			tb.Fatal(err)
		}
		if err := owner.Commit(ctx); err != nil {
			tb.Fatal(err)
		}
		batch, types = nil, nil
	}
	folds := map[string]*fold{longID: newFold(1, longID)}
	last := map[string]uint64{}
	add := func(e eventlog.Event) {
		n++
		at++
		e.V, e.N, e.At, e.Prev = 1, n, at, last[e.ID]
		batch, types = append(batch, eventlog.AppendEvent(nil, &e)), append(types, e.Type)
		index.note(&e)
		if last[e.ID] = n; e.Type == eventlog.InstanceCompleted {
			delete(last, e.ID)
		}
		if f := folds[e.ID]; f != nil {
			if err := f.event(&e); err != nil {
				tb.Fatal(err)
			}
		}
		if len(batch) == 1000 {
			flush()
		}
	}
	plan, err := machine.NewPlan("Short", 1, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: []machine.Node{{Path: "P/do", Kind: eventlog.Execute}}}})
	if err != nil {
		tb.Fatal(err)
	}
	add(eventlog.Event{Type: eventlog.PlanUsed, Plan: plan.Hash(), PlanData: plan.Recorded()})
	start := func(id string) uint64 {
		add(eventlog.Event{Type: eventlog.InstanceStarted, ID: id, Seq: 1, Run: n + 1, Definition: "Short", Plan: plan.Hash(),
			Params: []byte(`{"order":"` + id + `","note":"forty bytes of something or other here"}`), Starts: []eventlog.Start{{Path: "P/do", Kind: eventlog.Execute}}})
		return n
	}
	run, seq := start(longID), uint64(1)
	for k := 0; n < uint64(events); k++ {
		id := shortID(k)
		if k%sampled == 0 {
			folds[id] = newFold(1, id)
		}
		r := start(id)
		add(eventlog.Event{Type: eventlog.AttemptRunning, ID: id, Seq: 2, Run: r, Path: "P/do", Act: 1, Attempt: 1})
		add(eventlog.Event{Type: eventlog.TaskCompleted, ID: id, Seq: 3, Run: r, Path: "P/do", Act: 1, Attempt: 1, Params: []byte(`{"note":"done by somebody"}`)})
		add(eventlog.Event{Type: eventlog.InstanceCompleted, ID: id, Seq: 4, Run: r})
		if k%5000 == 0 {
			seq++
			add(eventlog.Event{Type: eventlog.AttemptRunning, ID: longID, Seq: seq, Run: run, Path: "P/do", Act: 1, Attempt: 1})
		}
	}
	if len(batch) > 0 {
		flush()
	}
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		tb.Fatal(err)
	}
	ends := map[string]uint64{}
	b := projection.Batch{New: projection.Watermark{N: n, Epoch: 1, Offset: topic.Partitions[0].End - 1, LogID: topic.ID}}
	for id, f := range folds {
		i := f.st.Instances[id]
		ends[id] = i.N
		b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: []byte(id), Value: encodeRow(i)})
	}
	b.Put = append(b.Put, index.done...)
	part, err := store.Acquire(ctx, 0, 1)
	if err != nil {
		tb.Fatal(err)
	}
	defer part.Close()
	if err := part.Apply(ctx, b); err != nil {
		tb.Fatal(err)
	}
	return ends
}

// filledBefore are the last events of the instances that the store has.
func filledBefore(ctx context.Context, tb testing.TB, store projection.Store) map[string]uint64 {
	tb.Helper()
	v, err := store.View(ctx, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer v.Close()
	ends := map[string]uint64{}
	for from := []byte(nil); ; {
		rows, _, err := v.Scan(ctx, projection.KindInstance, from, nil, 1000)
		if err != nil {
			tb.Fatal(err)
		}
		for _, row := range rows {
			var i machine.Instance
			if err := decodeRow(row.Value, &i); err != nil {
				tb.Fatal(err)
			}
			ends[string(row.Key)] = i.N
		}
		if len(rows) < 1000 {
			return ends
		}
		from = append(rows[len(rows)-1].Key, 0)
	}
}
