package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
)

// TestStoreOfAnotherHistory: a store has folded other events than the log has, as after that was put
// back to an older copy, and went on or did not. Its owner does not go on with the rows, but folds
// the log anew.
func TestStoreOfAnotherHistory(t *testing.T) {
	for name, other := range map[string]func(*projection.Watermark){
		"another event":            func(w *projection.Watermark) { w.Sum++ },
		"an event that is not yet": func(w *projection.Watermark) { w.N += 1000; w.Offset += 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			log, store := memLog(t), memStore(t)
			ordersDone(t, log, store)
			for p := range log.Partitions() {
				w, err := watermark(t.Context(), store, p)
				if err != nil {
					t.Fatal(err)
				}
				if err := store.Drop(t.Context(), p, w.Epoch); err != nil {
					t.Fatal(err)
				}
				part, err := store.Acquire(t.Context(), p, w.Epoch)
				if err != nil {
					t.Fatal(err)
				}
				other(&w)
				ghost := []projection.Row{
					{Kind: projection.KindInstance, Key: []byte("ghost"), Value: encodeRow(map[string]string{"id": "ghost"})},
					{Kind: projection.KindListAll, Key: listAllKey(1, "ghost"), Value: []byte{}},
				}
				if err := errors.Join(part.Apply(t.Context(), projection.Batch{New: w, Put: ghost}), part.Close()); err != nil {
					t.Fatal(err)
				}
			}
			e, stop := runEngine(t, log, store, runOrders(t))
			moreOrders(t, log, e, 0, 10)
			untilAtRest(t, log, store)
			stop()
			wantVerified(t, log, store)
		})
	}
}

// TestStoreOfAnotherLogUnderAWorker: under an engine that works somebody puts another log's store,
// one with fewer events, in the place of its own. The partition stops, says why, and leaves rows
// and epoch alone, which are not its own; emptied, it is folded and goes on.
func TestStoreOfAnotherLogUnderAWorker(t *testing.T) {
	log, store := memLog(t), memStore(t)
	e, stop := runEngine(t, log, store, runOrders(t))
	moreOrders(t, log, e, 0, 10)
	untilAtRest(t, log, store)
	const p = 1
	w, err := watermark(t.Context(), store, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Drop(t.Context(), p, w.Epoch); err != nil {
		t.Fatal(err)
	}
	part, err := store.Acquire(t.Context(), p, w.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	theirs := projection.Watermark{N: 5, Epoch: w.Epoch, Offset: 4, LogID: "theirs", Sum: 1}
	ghost := projection.Row{Kind: projection.KindInstance, Key: []byte("ghost"), Value: encodeRow(map[string]string{"id": "ghost"})}
	if err := errors.Join(part.Apply(t.Context(), projection.Batch{New: theirs, Put: []projection.Row{ghost}}), part.Close()); err != nil {
		t.Fatal(err)
	}
	for k := range 40 { // all partitions have something to write
		say(t, log, fmt.Sprintf("nobody-%d", k), "ready")
	}
	until(t, t.Context(), "the partition says whose store it is", func() bool {
		for _, s := range e.Partitions() {
			if s.Partition == p && strings.Contains(s.Err, ErrForeignStore.Error()) {
				return true
			}
		}
		return false
	})
	if rows := dumpRows(t, store, p); len(rows) != 1 || !strings.Contains(rows[0], "ghost") {
		t.Errorf("the other log's store has now %q", rows)
	}
	if now, err := watermark(t.Context(), store, p); err != nil || now != theirs {
		t.Errorf("the other log's store stands at %+v, %v; it stood at %+v: its owner is shut out", now, err, theirs)
	}
	if err := store.Drop(t.Context(), p, 1<<60); err != nil {
		t.Fatal(err)
	}
	moreOrders(t, log, e, 10, 20)
	untilAtRest(t, log, store)
	stop()
	wantVerified(t, log, store)
}
