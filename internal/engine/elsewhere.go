package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// ElsewhereError says that what was asked for is in the store of another process, which owns
// the partition, and which could not be asked.
type ElsewhereError struct {
	Partition int32
	Worker    string // that owns it
	Address   string // where it can be asked; "" = it did not say
	Err       error  // why it did not answer; nil = it was not asked
}

func (e *ElsewhereError) Error() string {
	s := fmt.Sprintf("engine: partition %d is in the store of worker %s", e.Partition, e.Worker)
	if e.Address != "" {
		s += " at " + e.Address
	}
	if e.Err != nil {
		s += ", which can't be asked: " + e.Err.Error()
	}
	return s
}

func (e *ElsewhereError) Unwrap() error { return e.Err }

// perProcess are the schemes of stores that only one process sees.
var perProcess = []string{"pebble:", "mem:"}

// ownStore says whether other processes don't see this one's store.
func (e *Engine) ownStore() bool {
	for _, scheme := range perProcess {
		if strings.HasPrefix(e.store.URL(), scheme) {
			return true
		}
	}
	return false
}

// divide says which of the partitions are in the store of this process, and who owns the
// others and has them in a store of its own. A list without those would look whole.
func (e *Engine) divide(ctx context.Context, partitions []int32) (here []int32, others map[int32]lastOwner, err error) {
	if !e.ownStore() {
		return partitions, nil, nil
	}
	others = map[int32]lastOwner{}
	for _, p := range partitions {
		if e.runner(p) != nil {
			here = append(here, p)
			continue
		}
		last, err := e.owners.last(ctx, e, p)
		if err != nil {
			return nil, nil, fmt.Errorf("look for the owner of partition %d: %w", p, err)
		}
		w, err := watermark(ctx, e.store, p)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case errors.Is(err, projection.ErrInUse), err == nil && w.Epoch < last.epoch:
			others[p] = last
		case err != nil:
			return nil, nil, fmt.Errorf("read watermark of partition %d: %w", p, err)
		default:
			here = append(here, p)
		}
	}
	return here, others, nil
}

// owners remembers who owned which partition last.
type owners struct {
	turn chan struct{} // one looks at a time
	of   map[int32]lastOwner
}

func newOwners() owners { return owners{turn: make(chan struct{}, 1), of: map[int32]lastOwner{}} }

type lastOwner struct {
	epoch           uint64
	worker, address string
	from, until     int64 // offsets between which the events were searched
}

// last is the owner that the events name last; its epoch is 0 when there is none. It searches
// backwards from the end, in ever larger steps; what was searched when ctx ends is remembered.
func (o *owners) last(ctx context.Context, e *Engine, partition int32) (lastOwner, error) {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return lastOwner{}, context.Cause(ctx)
	}
	topic, err := e.log.Topic(ctx, eventlog.EventsTopic(e.log.App()))
	if err != nil {
		return lastOwner{}, fmt.Errorf("describe the events topic: %w", err)
	}
	start, end := topic.Partitions[partition].Start, topic.Partitions[partition].End
	have, known := o.of[partition]
	if !known {
		have.from, have.until = end, end
	}
	defer func() { o.of[partition] = have }()
	search := func(from, until int64) (found bool, err error) {
		// Records that do not have the word are passed over without decoding.
		s := scan{log: e.log, partition: partition, topicID: e.eventsID, id: string(eventlog.PartitionOwned), from: from, until: until}
		err = s.run(ctx, func(ev *eventlog.Event, _ int64) bool {
			if ev.Type == eventlog.PartitionOwned {
				have.epoch, have.worker, have.address, found = ev.N, ev.Worker, ev.Address, true
			}
			return true
		})
		return found, err
	}
	if end > have.until {
		if _, err := search(have.until, end); err != nil {
			return lastOwner{}, err
		}
		have.until = end
	}
	for size := int64(256); have.epoch == 0 && have.from > start; size *= 4 {
		from := max(start, have.from-size)
		if _, err := search(from, have.from); err != nil {
			have.epoch, have.worker, have.address = 0, "", "" // not the last of that step, perhaps
			return lastOwner{}, err
		}
		have.from = from
	}
	return have, nil
}

// FindPlan is Plan, after another look into <app>.definitions when the hash is not known.
func (e *Engine) FindPlan(ctx context.Context, hash string) *machine.Plan {
	if p := e.registry.Plan(hash); p != nil || hash == "" {
		return p
	}
	if err := e.registry.lock(ctx); err != nil {
		return nil
	}
	defer func() { <-e.registry.turn }()
	if err := e.registry.refresh(ctx); err != nil {
		e.logger.WarnContext(ctx, "look for a plan", "plan", hash, "err", err)
	}
	return e.registry.Plan(hash)
}
