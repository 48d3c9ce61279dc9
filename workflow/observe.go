package workflow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// Observer is told what the engine does, for metrics. Every field may be nil; a field is
// called from many goroutines, must not block, and gets no ids.
type Observer = engine.Observer

// PartitionStatus is how a partition of this process stands.
type PartitionStatus = engine.PartitionStatus

// Slots are the places for handlers that run at once.
type Slots = engine.Slots

// Partitions says how the partitions of this process stand, by number; none before Run.
func (e *Engine) Partitions() []PartitionStatus { return e.run.Partitions() }

// Slots says how busy the handlers are.
func (e *Engine) Slots() Slots { return e.run.Slots() }

// clockLimit is how far the clock may lag behind a partition's last event; protocol rule 11.
const clockLimit = 30 * time.Second

// Ready says why this engine should get no new work, or nil: it runs and is in its group,
// every partition that the group gave it is in its loop, its clock is not far behind the
// log's, the messages that tasks listen for are relayed, and log and store answer.
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
	if _, err := e.log.Topic(ctx, eventlog.EventsTopic(e.log.App())); err != nil {
		problems = append(problems, fmt.Errorf("log: %w", err))
	}
	if _, err := e.store.Partitions(ctx); err != nil {
		problems = append(problems, fmt.Errorf("store: %w", err))
	}
	return errors.Join(problems...)
}
