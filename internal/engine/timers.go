package engine

import (
	"cmp"
	"container/heap"

	"github.com/godagger/dagger/internal/machine"
)

// timers are the due entries of the near future, each once, in order of time.
type timers struct {
	heap dueHeap
	has  map[machine.Due]struct{}
}

type armed struct {
	machine.Due
	found bool // by the rescan of the index, not when it was armed
}

func (t *timers) add(d machine.Due, found bool) {
	if _, twice := t.has[d]; twice {
		return
	}
	if t.has == nil {
		t.has = map[machine.Due]struct{}{}
	}
	t.has[d] = struct{}{}
	heap.Push(&t.heap, armed{d, found})
}

// next is the time of the earliest entry, or 0.
func (t *timers) next() int64 {
	if len(t.heap) == 0 {
		return 0
	}
	return max(t.heap[0].At, 1)
}

// pop takes an entry that is due.
func (t *timers) pop(now int64) (armed, bool) {
	if len(t.heap) == 0 || t.heap[0].At > now {
		return armed{}, false
	}
	a := heap.Pop(&t.heap).(armed)
	delete(t.has, a.Due)
	return a, true
}

type dueHeap []armed

func (h dueHeap) Len() int { return len(h) }

// Less orders by time, and at one time by what is due: in what order entries were armed may
// depend on that of a map.
func (h dueHeap) Less(i, j int) bool {
	a, b := &h[i].Due, &h[j].Due
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Act, b.Act), cmp.Compare(a.Path, b.Path),
		cmp.Compare(a.Msg, b.Msg), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Type, b.Type),
		cmp.Compare(a.Key.Topic, b.Key.Topic), cmp.Compare(a.Key.Key, b.Key.Key), cmp.Compare(a.Key.Value, b.Key.Value)) < 0
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(armed)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
