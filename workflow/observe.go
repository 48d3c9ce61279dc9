package workflow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Observer is a set of functions that the engine calls when something happens, for metrics.
// Every field may be nil. A function is called from many goroutines and must not block. Its
// arguments are fit for labels: names and numbers, never ids.
type Observer struct {
	// Event: an event was committed. definition is that of the event's instance; "" where the
	// event belongs to a partition or a correlation key.
	Event func(typ eventlog.Type, definition string)
	// Turn: a transaction with this many events took this long, from its first append until the
	// log answered its commit. err is nil when the commit is known to have succeeded.
	Turn func(took time.Duration, events int, err error)
	// Timer: a timer fired this long after its time.
	Timer func(late time.Duration)
	// Handler: an attempt of a task ran this long. ok says that it returned no error.
	Handler func(definition, path string, took time.Duration, ok bool)
	// Store: the store took this long for a batch with this many rows.
	Store func(took time.Duration, rows int, err error)
	// DeadLetter: a message or request went to the dead-letter topic.
	DeadLetter func()
	// Mended: a look at the store found a timer that was due and missing in memory. It fires
	// all the same, but this should not happen.
	Mended func()
	// Verified: the background verifier (Config.VerifyInterval) has compared this many
	// instances with the log. differences counts what was not as the log says.
	Verified func(instances, differences int)
}

// PartitionStatus is how a partition of this process stands.
type PartitionStatus struct {
	Partition int32
	Ready     bool          // it takes requests
	Event     uint64        // number of the last event
	Stored    uint64        // number of the last event that the store has acknowledged
	Queued    int           // requests, results of handlers and calls that wait
	Behind    time.Duration // how far this machine's clock is behind the partition's last event
	Since     time.Time     // since when it has been ready, or not ready
	Err       string        // why it is not ready; "" = it is, or is being recovered
}

// Slots counts handlers, and the places for those that run at once (Config.Slots).
type Slots struct {
	Total   int // places
	Running int // handlers that run
	Queued  int // handlers that wait for a place
	Parked  int // handlers whose code this process does not have
}

// Partitions lists the partitions of this process, by number; none before Run.
func (e *Engine) Partitions() []PartitionStatus {
	var l []PartitionStatus
	for _, p := range e.run.Partitions() {
		l = append(l, PartitionStatus(p))
	}
	return l
}

// Slots says how busy the handlers are.
func (e *Engine) Slots() Slots { return Slots(e.run.Slots()) }

// clockLimit is how far the clock may lag behind a partition's last event; protocol rule 11.
const clockLimit = 30 * time.Second

// Ready is nil when this engine can take work; otherwise the error lists why not. It can when it
// runs and is a member of its consumer group, each of its partitions takes requests, this
// machine's clock is not far behind the log, messages reach the tasks that listen for them,
// and the log and the store answer.
func (e *Engine) Ready(ctx context.Context) error {
	var problems []error
	if !e.run.Running() {
		problems = append(problems, errors.New("engine: Run does not work"))
	}
	for _, p := range e.run.Problems() {
		problems = append(problems, errors.New(p))
	}
	for _, p := range e.run.Partitions() {
		switch {
		case !p.Ready && p.Err != "":
			problems = append(problems, fmt.Errorf("partition %d: %s, since %s", p.Partition, p.Err, p.Since.UTC().Format(time.RFC3339)))
		case !p.Ready:
			problems = append(problems, fmt.Errorf("partition %d: being recovered", p.Partition))
		case p.Behind > clockLimit:
			problems = append(problems, fmt.Errorf("partition %d: this clock is %v behind the log", p.Partition, p.Behind))
		}
	}
	// Both at once: a log that does not answer must not take the store's time, which would be blamed.
	var log, store error
	var asked sync.WaitGroup
	asked.Go(func() { _, log = e.log.Topic(ctx, eventlog.EventsTopic(e.log.App())) })
	asked.Go(func() { _, store = e.store.Partitions(ctx) })
	asked.Wait()
	if log != nil {
		problems = append(problems, fmt.Errorf("log: %w", log))
	}
	if store != nil {
		problems = append(problems, fmt.Errorf("store: %w", store))
	}
	return errors.Join(problems...)
}
