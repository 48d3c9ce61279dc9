package engine

import (
	"container/heap"

	"github.com/godagger/dagger/internal/machine"
)

// timers are the due entries of the near future, each once, in order of time and arrival.
type timers struct {
	heap dueHeap
	has  map[machine.Due]struct{}
	seq  uint64
}

type armed struct {
	machine.Due
	seq   uint64
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
	t.seq++
	heap.Push(&t.heap, armed{d, t.seq, found})
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
func (h dueHeap) Less(i, j int) bool {
	return h[i].At < h[j].At || h[i].At == h[j].At && h[i].seq < h[j].seq
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(armed)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
