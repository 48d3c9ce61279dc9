package engine

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/godagger/dagger/projection"
)

// TestCopyState copies the state into an empty store. What is wrong in the old one is not copied
// but found; what is wrong in neither is no difference.
func TestCopyState(t *testing.T) {
	log, from, to := memLog(t), memStore(t), memStore(t)
	ordersDone(t, log, from)
	var made, compared atomic.Int64
	c, err := CopyState(t.Context(), log, from, to, CopyStateOptions{Parallel: 2, Progress: func(compares bool, _ int32, _, _ int64) {
		if compares {
			compared.Add(1)
		} else {
			made.Add(1)
		}
	}})
	if err != nil || c.Differences != 0 || c.Partitions != 4 || c.Compared != 4 || c.Instances != 30 || c.Events == 0 {
		t.Fatalf("%+v, %v; want 30 instances in 4 partitions, all compared", c, err)
	}
	if made.Load() == 0 || compared.Load() == 0 {
		t.Errorf("progress was told %d and %d times", made.Load(), compared.Load())
	}
	wantSameRows(t, log, from, to)

	// One that is behind is compared as far as it goes.
	behind := memStore(t)
	if _, err := Rebuild(t.Context(), log, behind, RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	e, stop := runEngine(t, log, from, runOrders(t))
	moreOrders(t, log, e, 0, 20)
	untilAtRest(t, log, from)
	stop()
	if c, err = CopyState(t.Context(), log, behind, memStore(t), CopyStateOptions{}); err != nil || c.Differences != 0 || c.Compared != 4 || c.Instances != 50 {
		t.Errorf("an old store that is behind: %+v, %v; want no difference", c, err)
	}
	to = memStore(t)
	if c, err = CopyState(t.Context(), log, from, to, CopyStateOptions{}); err != nil || c.Differences != 0 {
		t.Errorf("%+v, %v", c, err)
	}

	// A row that somebody added, with another event, and as of the same one.
	p, err := from.Acquire(t.Context(), 1, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	row := projection.Row{Kind: projection.KindListAll, Key: []byte("nobody"), Value: []byte{}}
	next := w
	next.N++
	if err := p.Apply(t.Context(), projection.Batch{Expected: w.N, New: next, Put: []projection.Row{row}}); err != nil {
		t.Fatal(err)
	}
	c, err = CopyState(t.Context(), log, from, memStore(t), CopyStateOptions{})
	if err != nil || c.Differences == 0 || c.Compared != 4 || !strings.Contains(c.First[0], "the old store, partition 1: the store stands at event") {
		t.Errorf("an old store ahead of its log: %+v, %v", c, err)
	}
	if err := from.Drop(t.Context(), 1, 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), projection.Batch{New: w, Put: []projection.Row{row}}); err != nil {
		t.Fatal(err)
	}
	other := memStore(t)
	c, err = CopyState(t.Context(), log, from, other, CopyStateOptions{})
	if err != nil || c.Differences != 1 || len(c.First) != 1 || !strings.Contains(c.First[0], "partition 1") {
		t.Errorf("a store that was changed by hand: %+v, %v; want partition 1", c, err)
	}
	wantSameRows(t, log, to, other)
}
