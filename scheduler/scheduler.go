package scheduler

import "container/heap"

// Config says how a Scheduler works. All times are in milliseconds.
type Config struct {
	// Interval is the time between two reads of the index.
	Interval int64
	// Horizon is how far into the future entries are kept in memory. It must be longer than
	// Interval, so that nothing becomes due between two reads that memory does not have.
	Horizon int64
	// Late is how long overdue an entry must be, when a read of the index finds it, to count as
	// forgotten. One that is less overdue may just have been on its way to the index.
	Late int64
}

// Scheduler keeps entries of type E in the order of their times. One goroutine uses it.
type Scheduler[E comparable] struct {
	config  Config
	at      func(E) int64
	compare func(a, b E) int
	next    int64 // when the index is read again
	entries entries[E]
	has     map[E]struct{}
}

// New makes a Scheduler without entries, whose index must be read at once. at returns the time of an
// entry. compare orders entries of the same time, so that equal runs give equal results.
func New[E comparable](c Config, at func(E) int64, compare func(a, b E) int) *Scheduler[E] {
	s := &Scheduler[E]{config: c, at: at, compare: compare, has: map[E]struct{}{}}
	s.entries.scheduler = s
	return s
}

// Arm keeps a new entry if it becomes due before the horizon. Later ones are in the index only.
func (s *Scheduler[E]) Arm(e E, now int64) {
	if s.at(e) <= now+s.config.Horizon {
		s.add(e, false)
	}
}

// Recover keeps an entry that was read from the index when the partition was taken over. It does not
// count as forgotten, however much it is overdue.
func (s *Scheduler[E]) Recover(e E) { s.add(e, false) }

// Found keeps an entry that a later read of the index has found. It counts as forgotten if memory
// should have had it.
func (s *Scheduler[E]) Found(e E, now int64) { s.add(e, s.at(e) < now-s.config.Late) }

func (s *Scheduler[E]) add(e E, forgotten bool) {
	if _, twice := s.has[e]; twice {
		return
	}
	s.has[e] = struct{}{}
	heap.Push(&s.entries, entry[E]{e, forgotten})
}

// Due takes the earliest entry that is due; ok is false if none is. forgotten says that only a read
// of the index has found the entry.
func (s *Scheduler[E]) Due(now int64) (e E, forgotten, ok bool) {
	if len(s.entries.list) == 0 || s.at(s.entries.list[0].e) > now {
		return e, false, false
	}
	x := heap.Pop(&s.entries).(entry[E])
	delete(s.has, x.e)
	return x.e, x.forgotten, true
}

// Read says whether the index must be read now (due), and up to which time (until, included). If so,
// it counts as read. A clock that was set back does not delay the next read.
func (s *Scheduler[E]) Read(now int64) (until int64, due bool) {
	if now < s.next && s.next <= now+s.config.Interval {
		return 0, false
	}
	return s.ReadNow(now), true
}

// ReadNow counts the index as read now, and returns the time up to which it must be read.
func (s *Scheduler[E]) ReadNow(now int64) (until int64) {
	s.next = now + s.config.Interval
	return now + s.config.Horizon
}

// Wake returns the time at which an entry becomes due or the index must be read, whichever is first.
func (s *Scheduler[E]) Wake() int64 {
	if len(s.entries.list) > 0 {
		return min(s.next, max(s.at(s.entries.list[0].e), 1))
	}
	return s.next
}

// Len is the number of entries in memory.
func (s *Scheduler[E]) Len() int { return len(s.entries.list) }

type entry[E comparable] struct {
	e         E
	forgotten bool
}

// entries are a heap.
type entries[E comparable] struct {
	list      []entry[E]
	scheduler *Scheduler[E]
}

func (h *entries[E]) Len() int { return len(h.list) }

func (h *entries[E]) Less(i, j int) bool {
	a, b := h.list[i].e, h.list[j].e
	if x, y := h.scheduler.at(a), h.scheduler.at(b); x != y {
		return x < y
	}
	return h.scheduler.compare(a, b) < 0
}

func (h *entries[E]) Swap(i, j int) { h.list[i], h.list[j] = h.list[j], h.list[i] }

// Push implements heap.Interface.
func (h *entries[E]) Push(x any) { h.list = append(h.list, x.(entry[E])) }

// Pop implements heap.Interface.
func (h *entries[E]) Pop() any {
	last := len(h.list) - 1
	x := h.list[last]
	h.list[last] = entry[E]{}
	h.list = h.list[:last]
	return x
}
