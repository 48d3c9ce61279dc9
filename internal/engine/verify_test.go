package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// ordersDone runs orders of which some wait for a message, some are done, and messages that
// nobody waits for, and stops in good order.
func ordersDone(t *testing.T, log eventlog.Log, store projection.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, stop := runEngine(t, log, store, runOrders(t))
	for k := range 30 {
		id, order := fmt.Sprintf("i-%02d", k), fmt.Sprintf("o-%d", k)
		if a, err := startOrder(ctx, e, id, order); err != nil || a.Answer != machine.OK {
			t.Fatalf("start %s: %+v, %v", id, a, err)
		}
		if k%2 == 0 {
			say(t, log, order, "ready")
		}
		say(t, log, fmt.Sprintf("unknown-%d", k), "for nobody")
	}
	for k := 0; k < 30; k += 2 {
		if i, err := e.Wait(ctx, fmt.Sprintf("i-%02d", k)); err != nil || i.Status != machine.Completed {
			t.Fatalf("wait: %+v, %v", i, err)
		}
	}
	if a, err := e.Call(ctx, &eventlog.Request{Type: eventlog.StopInstance, ID: "i-29"}); err != nil || a.Answer != machine.OK {
		t.Fatalf("stop: %+v, %v", a, err)
	}
	until(t, ctx, "all messages are kept", func() bool { return kept(t, store) == 30 })
	untilAtRest(t, log, store)
	stop()
}

// kept is how many messages wait for somebody, by the store.
func kept(t *testing.T, store projection.Store) (n int) {
	t.Helper()
	partitions, err := store.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range partitions {
		v, err := store.View(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		rows, _, err := scanAll(t.Context(), v, projection.KindKept, nil, nil)
		if err = errors.Join(err, v.Close()); err != nil {
			t.Fatal(err)
		}
		n += len(rows)
	}
	return n
}

// untilAtRest waits until what partitions tell each other and what they were asked is in their
// events, and all events are in the store: an engine that stops now leaves nothing behind.
func untilAtRest(t *testing.T, log eventlog.Log, store projection.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	until(t, ctx, "nothing is under way", func() bool {
		rest, err := atRest(ctx, log, store)
		if err != nil && !errors.Is(err, eventlog.ErrOffsetGone) { // it may be trimmed meanwhile
			t.Fatal(err)
		}
		return rest
	})
}

func atRest(ctx context.Context, log eventlog.Log, store projection.Store) (bool, error) {
	requests, err := log.Topic(ctx, eventlog.RequestsTopic(log.App()))
	if err != nil {
		return false, err
	}
	told := map[way]eventlog.Mark{}
	states := make([]*machine.State, log.Partitions())
	for p := range log.Partitions() {
		f, err := newFinder(ctx, log, p)
		if err != nil {
			return false, err
		}
		last := uint64(0)
		if err := f.read(ctx, f.start, func(r *eventlog.Record) (bool, error) {
			e, err := decodeEvent(r, p)
			if err != nil {
				return false, err
			}
			last = e.N
			for k := range e.Out {
				told[way{p, e.Out[k].To}] = eventlog.Mark{Pos: int64(e.N), Index: k}
			}
			return true, nil
		}); err != nil {
			return false, err
		}
		w, err := watermark(ctx, store, p)
		if err != nil || w.N != last {
			return false, err
		}
		if states[p], err = storedPartition(ctx, store, p); err != nil || states[p].Offset < requests.Partitions[p].End {
			return false, err
		}
	}
	for w, mark := range told {
		if states[w.to].Sources[eventlog.Source{Partition: w.from}].Compare(mark) < 0 {
			return false, nil
		}
	}
	return true, nil
}

// storedPartition is where a partition stands by its rows.
func storedPartition(ctx context.Context, store projection.Store, p int32) (*machine.State, error) {
	v, err := store.View(ctx, p)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	base := map[projection.Kind][]projection.Row{}
	for _, kind := range []projection.Kind{projection.KindPartition, projection.KindSource} {
		if base[kind], _, err = scanAll(ctx, v, kind, nil, nil); err != nil {
			return nil, err
		}
	}
	s := machine.NewState(p, 1)
	return s, restore(s, base)
}

func dumpRows(t *testing.T, store projection.Store, p int32) []string {
	t.Helper()
	v, err := store.View(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var rows []string
	if err := v.Dump(t.Context(), func(r projection.Row) error {
		rows = append(rows, fmt.Sprintf("%#x %q %q", r.Kind, r.Key, r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestVerify(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	progress := map[int32][2]int64{}
	v, err := Verify(t.Context(), log, store, func(p int32, done, total int64) { progress[p] = [2]int64{done, total} })
	if err != nil {
		t.Fatal(err)
	}
	if v.Differences != 0 || v.Instances != 30 || v.Partitions != 4 || v.Events < 200 || len(v.AsOf) != 4 {
		t.Fatalf("%+v", v)
	}
	for p, x := range progress {
		if x[0] != x[1] || x[1] == 0 {
			t.Errorf("partition %d: progress ends at %d of %d", p, x[0], x[1])
		}
	}

	// Differences that are planted behind the log's back are found.
	id := "i-07"
	p := eventlog.PartitionOf(id, 4)
	tamper := func(b projection.Batch) {
		t.Helper()
		view, err := store.View(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		w, err := view.Watermark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		part, err := store.Acquire(t.Context(), p, w.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		b.Expected, b.New = w.N, w
		// A batch that moves the watermark nowhere counts as applied before.
		b.New.N++
		if err := part.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := part.Apply(t.Context(), projection.Batch{Expected: b.New.N, New: b.New}); err != nil {
			t.Fatal(err)
		}
	}
	view, err := store.View(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	values, _, err := view.Get(t.Context(), projection.KindInstance, [][]byte{[]byte(id)})
	if err != nil || values[0] == nil {
		t.Fatal(err)
	}
	tamper(projection.Batch{
		Put: []projection.Row{
			{Kind: projection.KindInstance, Key: []byte(id), Value: []byte(strings.Replace(string(values[0]), "EXECUTING", "COMPLETED", 1))},
			{Kind: projection.KindListAll, Key: listAllKey(1, "ghost")},
		},
		Del: []projection.Row{{Kind: projection.KindPlan, Key: []byte(runOrders(t).Plan.Hash())}},
		Add: []projection.Delta{{Key: countKey("Order", "COMPLETED"), N: 5}},
	})
	v, err = Verify(t.Context(), log, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The watermark was moved beyond the log's end, too.
	want := []string{"the store stands at event", `instance "i-07" differs`, "plan ", `instance "ghost" in the list index is in the store`, "count of Order/COMPLETED"}
	if v.Differences != int64(len(want)) || len(v.First) != len(want) {
		t.Fatalf("%+v", v)
	}
	for k, w := range want {
		if !strings.HasPrefix(v.First[k], fmt.Sprintf("partition %d: ", p)) || !strings.Contains(v.First[k], w) {
			t.Errorf("difference %q, want %q", v.First[k], w)
		}
	}

	if c := v.Found[1].Changes; len(c) != 1 || !strings.HasPrefix(c[0].String(), "~ ") || !strings.Contains(c[0].String(), "COMPLETED") {
		t.Errorf("what differs in the instance: %v", c)
	}

	// Rebuild mends it, and an empty store comes to the same rows.
	empty := memStore(t)
	for p := range log.Partitions() {
		a, err := rebuildOne(t.Context(), log, store, p, RebuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := rebuildOne(t.Context(), log, empty, p, RebuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if a != b || a.Events != int64(a.AsOf) || a.Events == 0 {
			t.Errorf("rebuilt %+v and %+v", a, b)
		}
		if diff := cmp.Diff(dumpRows(t, store, p), dumpRows(t, empty, p)); diff != "" {
			t.Errorf("partition %d: %s", p, diff)
		}
	}
	for _, s := range []projection.Store{store, empty} {
		if v, err := Verify(t.Context(), log, s, nil); err != nil || v.Differences != 0 || v.Instances != 30 {
			t.Errorf("after the rebuild: %+v, %v", v, err)
		}
	}

	// An engine goes on with a store that was rebuilt.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, stop := runEngine(t, log, empty, runOrders(t))
	say(t, log, "o-7", "now")
	if i, err := e.Wait(ctx, id); err != nil || i.Status != machine.Completed {
		t.Errorf("after the rebuild: %+v, %v", i, err)
	}
	stop()
	if v, err := Verify(t.Context(), log, empty, nil); err != nil || v.Differences != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestVerifyOnline compares a store again and again while an engine writes to it.
func TestVerifyOnline(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, stop := runEngine(t, log, store, runOrders(t))
	done := make(chan error, 1)
	go func() { // waited for below
		var err error
		for k := 0; k < 300 && err == nil; k++ {
			_, err = startOrder(ctx, e, fmt.Sprintf("i-%02d", k), fmt.Sprintf("o-%d", k))
		}
		done <- err
	}()
	for moved, running := 0, true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			running = false
			t.Logf("compared %d times", moved)
		default:
		}
		v, err := Verify(ctx, log, store, nil)
		if err != nil {
			t.Fatal(err)
		}
		if moved++; v.Differences > 0 {
			t.Fatalf("%q", v.First)
		}
	}
	stop()
}

func TestVerifyEmpty(t *testing.T) {
	log, store := memLog(t), memStore(t)
	v, err := Verify(t.Context(), log, store, nil)
	if err != nil || v.Differences != 0 || v.Events != 0 || v.Partitions != 4 {
		t.Errorf("%+v, %v", v, err)
	}
	if r, err := rebuildOne(t.Context(), log, store, 1, RebuildOptions{}); err != nil || r != (Rebuilt{Partition: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := rebuildOne(t.Context(), log, store, 4, RebuildOptions{}); err == nil {
		t.Error("rebuilt a partition that the log does not have")
	}
}

func TestReadsOfTheStore(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	idle, err := New(t.Context(), Config{Log: log, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	list := func(f Filter) (ids []string, pages int) {
		t.Helper()
		for {
			page, err := idle.List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, i := range page.Instances {
				ids = append(ids, i.ID)
			}
			if len(page.AsOf) != 4 {
				t.Errorf("as of %v", page.AsOf)
			}
			if f.Cursor = page.Cursor; f.Cursor == "" {
				return ids, pages
			}
		}
	}
	var all, completed, waiting []string
	for k := range 30 {
		id := fmt.Sprintf("i-%02d", k)
		all = append(all, id)
		switch {
		case k%2 == 0:
			completed = append(completed, id)
		case k != 29:
			waiting = append(waiting, id)
		}
	}
	for _, c := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, all},
		{Filter{Definition: "Order"}, all},
		{Filter{Definition: "Other"}, nil},
		{Filter{Status: string(machine.Completed)}, completed},
		{Filter{Definition: "Order", Status: string(machine.Executing)}, waiting},
		{Filter{Status: string(machine.Stopped)}, []string{"i-29"}},
		{Filter{IDPrefix: "i-1"}, all[10:20]},
		{Filter{IDPrefix: "i-1", Status: string(machine.Completed)}, completed[5:10]},
	} {
		for _, limit := range []int{0, 1, 7, 30} {
			c.filter.Limit = limit
			got, pages := list(c.filter)
			slices.Sort(got) // two may be created in the same millisecond
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%+v: %s", c.filter, diff)
			}
			if limit > 0 && pages != max(1, (len(c.want)+limit-1)/limit) {
				t.Errorf("%+v: %d pages", c.filter, pages)
			}
		}
		c.filter.Limit = 0
		counts, asOf, err := idle.Count(t.Context(), c.filter)
		if err != nil || len(asOf) != 4 {
			t.Fatal(asOf, err)
		}
		sum := int64(0)
		for n := range maps.Values(counts) {
			sum += n
		}
		if sum != int64(len(c.want)) {
			t.Errorf("%+v: counted %v, want %d", c.filter, counts, len(c.want))
		}
	}
	page, err := idle.List(t.Context(), Filter{Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []Filter{{Cursor: page.Cursor, Status: "X"}, {Cursor: "nonsense"}, {Cursor: "!"}} {
		if _, err := idle.List(t.Context(), f); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor of another filter: %v", err)
		}
	}
	soon, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := idle.List(soon, Filter{AtLeast: map[int32]uint64{1: 1 << 40}}); err == nil {
		t.Error("did not wait for an event that is not there")
	}

	// For tools: the store's row and the events after it, or the events alone.
	for _, s := range []projection.Store{store, nil} {
		i, plan, err := ReadInstance(t.Context(), log, s, "i-08")
		if err != nil || i.Status != machine.Completed || plan == nil || plan.Name != "Order" {
			t.Errorf("%+v, %+v, %v", i, plan, err)
		}
		if _, _, err := ReadInstance(t.Context(), log, s, "unknown"); err != ErrNotFound {
			t.Errorf("unknown id: %v", err)
		}
	}
	if page, err := ReadList(t.Context(), store, Filter{IDPrefix: "i-2"}); err != nil || len(page.Instances) != 10 {
		t.Errorf("%+v, %v", page, err)
	}
}

// appendEvents writes events into a partition as an owner would.
func appendEvents(t *testing.T, log eventlog.Log, p int32, events ...*eventlog.Event) {
	t.Helper()
	o, err := log.Own(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	values := [][]byte{eventlog.Barrier}
	types := []eventlog.Type{eventlog.BarrierType}
	for _, ev := range events {
		ev.V = 1
		values, types = append(values, eventlog.AppendEvent(nil, ev)), append(types, ev.Type)
	}
	if _, err := o.Append(t.Context(), values, types, nil); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyQuarantine keeps protocol rule 12: instances in quarantine are compared by id only.
func TestVerifyQuarantine(t *testing.T) {
	log, store := memLog(t), memStore(t)
	plan := orderCode(t, 1, time.Hour).Plan
	id := "a"
	p := eventlog.PartitionOf(id, 4)
	appendEvents(t, log, p,
		&eventlog.Event{N: 1, Type: eventlog.PartitionOwned, At: 5, Worker: "w"},
		&eventlog.Event{N: 2, Type: eventlog.PlanUsed, At: 5, Plan: plan.Hash(), PlanData: plan.Recorded()},
		&eventlog.Event{N: 3, Type: eventlog.InstanceStarted, At: 6, ID: id, Seq: 1, Run: 3, Definition: "Order", Plan: plan.Hash(), Params: []byte(`{}`),
			Starts: []eventlog.Start{{Path: "P/price", Kind: eventlog.Execute}}},
		&eventlog.Event{N: 4, Type: eventlog.InstanceQuarantined, At: 7, ID: id, Seq: 2, Run: 3, Act: 1, Reason: "fold panicked"},
	)
	rebuilt, err := rebuildOne(t.Context(), log, store, p, RebuildOptions{})
	if err != nil || rebuilt.AsOf != 4 {
		t.Fatal(rebuilt, err)
	}
	view, err := store.View(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	w, err := view.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	values, _, err := view.Get(t.Context(), projection.KindInstance, [][]byte{[]byte(id)})
	if err != nil {
		t.Fatal(err)
	}
	// What an older version's fold may have made of it: other parameters, another due entry,
	// another definition.
	part, err := store.Acquire(t.Context(), p, w.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(values[0]), `"params":{}`, `"params":{"x":1}`, 1)
	if other == string(values[0]) {
		t.Fatalf("no parameters in %s", values[0])
	}
	b := projection.Batch{Expected: 4, New: w,
		Put: []projection.Row{{Kind: projection.KindInstance, Key: []byte(id), Value: []byte(other)}},
		Del: []projection.Row{{Kind: projection.KindList, Key: listKey("QUARANTINED", "Order", 6, id)}},
		Add: []projection.Delta{{Key: countKey("Order", "QUARANTINED"), N: -1}}}
	b.New.N++
	if err := part.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, log, p, &eventlog.Event{N: 5, Type: eventlog.Checkpoint, At: 8, Pos: &eventlog.Position{}})
	v, err := Verify(t.Context(), log, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The checksum and the position were not written by a fold; the instance makes no difference.
	for _, d := range v.First {
		if strings.Contains(d, "instance") || strings.Contains(d, "count") {
			t.Errorf("an instance in quarantine: %s", d)
		}
	}

	// An event that is missing or can't be read stops the fold, and says where.
	for _, c := range []struct {
		event *eventlog.Event
		words string
	}{
		{&eventlog.Event{N: 7, Type: eventlog.Checkpoint, At: 9, Pos: &eventlog.Position{}}, "event 7 follows event 5 in partition"},
	} {
		appendEvents(t, log, p, c.event)
		if _, err := rebuildOne(t.Context(), log, memStore(t), p, RebuildOptions{}); err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), fmt.Sprintf("partition %d", p)) {
			t.Errorf("rebuild over a gap: %v", err)
		}
	}
}

// TestRebuildOfAnotherLogsStore: refused before anything is dropped, as is an engine on it.
func TestRebuildOfAnotherLogsStore(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	if _, err := Verify(t.Context(), memLog(t), store, nil); !errors.Is(err, ErrForeignStore) {
		t.Errorf("verify with another log: %v", err)
	}
	if _, err := New(t.Context(), Config{Log: memLog(t), Store: store}); !errors.Is(err, ErrForeignStore) {
		t.Errorf("engine with another log: %v", err)
	}
	before := dumpRows(t, store, 1)
	if _, err := rebuildOne(t.Context(), memLog(t), store, 1, RebuildOptions{}); !errors.Is(err, ErrForeignStore) {
		t.Errorf("rebuild with another log: %v", err)
	}
	if diff := cmp.Diff(before, dumpRows(t, store, 1)); diff != "" {
		t.Error(diff)
	}
}
