package embedlog

import (
	"context"
	"fmt"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

// Publish appends records as one: they become visible and durable together.
func (l *Log) Publish(ctx context.Context, records ...eventlog.Record) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	var m messages
	for i := range records {
		if err := m.add(l, &records[i]); err != nil {
			return fmt.Errorf("publish record %d: %w", i, err)
		}
	}
	if len(m.chunks) == 0 {
		return nil
	}
	t := &txn{chunks: m.chunks}
	for i := range t.chunks {
		if t.chunks[i].p.topic == l.events {
			t.check = func() error { return notOwned(t.chunks) }
		}
	}
	if err := l.commits.submit(ctx, t); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// notOwned refuses records for an events partition that has an owner.
func notOwned(chunks []staged) error {
	for i := range chunks {
		p := chunks[i].p
		p.mu.Lock()
		owned := p.owner != nil
		p.mu.Unlock()
		if owned {
			return fmt.Errorf("%s is written by its owner", p)
		}
	}
	return nil
}

// messages collects records by partition.
type messages struct {
	chunks []staged
	open   map[*partition]int // the chunk that is filled
}

// add stages a record. After an error nothing of it is staged.
func (m *messages) add(l *Log, r *eventlog.Record) error {
	p, err := l.place(r)
	if err != nil {
		return err
	}
	m.stage(p, r, l.now().UnixMilli())
	return nil
}

func (m *messages) stage(p *partition, r *eventlog.Record, now int64) {
	if m.open == nil {
		m.open = map[*partition]int{}
	}
	i, found := m.open[p]
	if !found || m.chunks[i].b.full(recordSize(r)) {
		i = len(m.chunks)
		m.chunks = append(m.chunks, staged{p: p})
		m.open[p] = i
	}
	m.chunks[i].b.record(r, now)
}

// place finds a record's partition and refuses what does not fit.
func (l *Log) place(r *eventlog.Record) (*partition, error) {
	t, err := l.topic(r.Topic)
	if err != nil {
		return nil, err
	}
	if n := recordSize(r); n > l.maxRecord {
		return nil, fmt.Errorf("%w: %d bytes for %s, which takes %d", eventlog.ErrTooLarge, n, r.Topic, l.maxRecord)
	}
	index := r.Partition
	switch {
	case index != -1:
	case r.Key == nil:
		index = t.roundRobin()
	default:
		index = eventlog.PartitionOfKey(string(r.Key), t.Partitions)
	}
	return t.partition(index)
}

// publisher stops at its first error.
type publisher struct {
	log *Log

	mu     sync.Mutex
	err    error
	closed bool
}

// Publisher appends like Publish and stops at the first error.
func (l *Log) Publisher(ctx context.Context) (eventlog.Publisher, error) {
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	return &publisher{log: l}, nil
}

// Publish appends records. Concurrent calls are in no order among each other.
func (p *publisher) Publish(ctx context.Context, records ...eventlog.Record) error {
	if err := p.state(); err != nil {
		return err
	}
	err := p.log.Publish(ctx, records...)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.err == nil {
			p.err = err
		}
	}
	return err
}

func (p *publisher) state() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return eventlog.ErrClosed
	case p.err != nil:
		return fmt.Errorf("publisher stopped after: %w", p.err)
	}
	return nil
}

// Close ends the publisher.
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}
