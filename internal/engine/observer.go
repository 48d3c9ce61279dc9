package engine

import (
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Observer is told what the engine does, for metrics. Every field may be nil; a field is
// called from many goroutines, must not block, and gets no ids: what it is told is fit for
// labels.
type Observer struct {
	// Event: an event of a definition's instance was committed. definition is "" where the
	// event belongs to a partition or a correlation key.
	Event func(typ eventlog.Type, definition string)
	// Turn: a transaction of so many events took so long from its first append to the
	// answer of its commit. err is nil when it is known to have succeeded.
	Turn func(took time.Duration, events int, err error)
	// Timer: a timer fired so long after its time.
	Timer func(late time.Duration)
	// Handler: an attempt of a task ran so long. ok: it returned no error.
	Handler func(definition, path string, took time.Duration, ok bool)
	// Store: the store took a batch of so many rows in so long.
	Store func(took time.Duration, rows int, err error)
	// DeadLetter: a message or request was set aside.
	DeadLetter func()
	// Mended: the rescan fired a timer that memory had forgotten.
	Mended func()
	// Verified: the background verifier compared so many instances with the log; differences is
	// how many things were not as the log says.
	Verified func(instances, differences int)
}

// PartitionStatus is how a partition of this process stands.
type PartitionStatus struct {
	Partition int32
	Ready     bool          // its owner is in its loop
	Event     uint64        // last event folded
	Stored    uint64        // last event that the store has acknowledged
	Queued    int           // requests, results and calls that wait
	Behind    time.Duration // how far the clock is behind the partition's last event; protocol rule 11
	Since     time.Time     // of Ready, or since when it is not
	Err       string        // why it is not ready
}

// Slots are the pool's.
type Slots struct{ Total, Running, Queued, Parked int }

// Partitions says how the partitions of this process stand, by number.
func (e *Engine) Partitions() []PartitionStatus {
	var l []PartitionStatus
	for p := range e.log.Partitions() {
		if r := e.runner(p); r != nil {
			s := r.partitionStatus()
			e.absence.tell(&s)
			l = append(l, s)
		}
	}
	return l
}

// Slots says how busy the handlers are.
func (e *Engine) Slots() Slots { return e.pool.count() }

// partitionStatus is safe to call from any goroutine.
func (r *runner) partitionStatus() PartitionStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Partition, s.Ready = r.partition, r.ready
	if s.Ready && !r.sent.IsZero() && time.Since(r.sent) > answerAfter {
		s.Ready, s.Since = false, r.sent
		s.Err = fmt.Sprintf("it waits for the store, which is at event %d of %d", s.Stored, s.Event)
	}
	s.Queued += len(r.mail.inbox) + len(r.mail.results) + len(r.mail.calls)
	return s
}

// answerAfter is how long a store may take for a batch while its partition is called ready.
const answerAfter = 10 * time.Second

// note copies what partitionStatus tells. mu is held; the owner is this goroutine's.
func (r *runner) note() {
	if r.o.st == nil {
		return
	}
	r.status.Event, r.status.Stored = r.o.st.N, r.o.mark.N
	r.status.Queued = len(r.o.inbox) + len(r.o.results) + len(r.o.calls) + len(r.o.queue)
	if r.o.flight == nil {
		r.sent = time.Time{}
	}
	r.status.Behind = max(0, time.Duration(r.o.st.At-r.e.cfg.Now().UnixMilli())*time.Millisecond)
}

// failed notes why the partition is not ready, and says for how long it was.
func (r *runner) failed(err error) (lasted time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.Err == "" {
		if !r.status.Since.IsZero() {
			lasted = time.Since(r.status.Since)
		}
		r.status.Since = time.Now()
	}
	r.status.Err = err.Error()
	return lasted
}

// turned tells the observer how a transaction ended.
func (r *runner) turned(err error) {
	if f := r.e.cfg.Observer.Turn; f != nil {
		f(time.Since(r.began), r.events, err)
	}
}

func (r *runner) observe(f *effects) {
	o := &r.e.cfg.Observer
	if o.Event != nil {
		for _, e := range f.events {
			o.Event(e.typ, e.definition)
		}
	}
	if o.Timer != nil {
		for _, ms := range f.late {
			o.Timer(time.Duration(ms) * time.Millisecond)
		}
	}
	if o.DeadLetter != nil {
		for range f.letters {
			o.DeadLetter()
		}
	}
	if o.Mended != nil {
		for range f.mended {
			o.Mended()
		}
	}
}
