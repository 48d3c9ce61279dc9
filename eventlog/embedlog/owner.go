package embedlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// owner appends to one events partition. What is appended stays in memory until Commit.
type owner struct {
	log   *Log
	p     *partition
	epoch uint64

	end      int64 // of the partition with what is staged
	events   []staged
	messages messages
	refused  bool  // until Abort
	err      error // finished
}

var errRefused = errors.New("a record of the transaction was refused: abort it first")

// Own shuts out earlier owners of the partition: from here on their appends and commits
// fail, also after the process has died and the log was opened again.
func (l *Log) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	p, err := l.events.partition(partition)
	if err != nil {
		return nil, err
	}
	o := &owner{log: l, p: p}
	p.mu.Lock()
	p.epoch++
	o.epoch = p.epoch
	p.owner = o
	p.mu.Unlock()
	// Groups are committed in order: when this one is durable, what an earlier owner had on
	// its way is too, and its end is known.
	err = l.commits.submit(ctx, &txn{
		check: o.check,
		ops:   []op{{opSet, partitionKey(epochRow, p.topic.Number, partition), appendInt(int64(o.epoch))}},
		then:  func() { o.end = p.state().End },
	})
	if err != nil {
		_ = o.Close()
		return nil, fmt.Errorf("own %s: %w", p, err)
	}
	return o, nil
}

// check fails when there is a later owner.
func (o *owner) check() error {
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	if o.p.epoch != o.epoch {
		return fmt.Errorf("%w: %s has epoch %d, this owner %d", eventlog.ErrFenced, o.p, o.p.epoch, o.epoch)
	}
	return nil
}

func (o *owner) ready(ctx context.Context) error {
	if o.err != nil {
		return o.err
	}
	if err := o.check(); err != nil {
		return o.finish(err)
	}
	if err := o.log.check(ctx); err != nil {
		return o.finish(err)
	}
	return nil
}

func (o *owner) finish(err error) error {
	o.err = err
	o.drop()
	return err
}

// Append stages events and messages.
func (o *owner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, records []eventlog.Record) (int64, error) {
	if err := o.ready(ctx); err != nil {
		return 0, err
	}
	if o.refused {
		return 0, o.finish(errRefused)
	}
	if len(events) != len(types) {
		return 0, o.finish(fmt.Errorf("append to %s: %d events, %d types", o.p, len(events), len(types)))
	}
	for i, e := range events {
		if n := len(e) + len(types[i]) + len(contentTypeHeader) + len(contentTypeJSON) + len(typeHeader); n > o.log.maxRecord {
			return 0, o.finish(fmt.Errorf("append event to %s: %w: %d bytes, %d fit", o.p, eventlog.ErrTooLarge, n, o.log.maxRecord))
		}
	}
	// Refused before anything is staged (protocol rule 9).
	to := make([]*partition, len(records))
	for i := range records {
		p, err := o.log.place(&records[i])
		if err == nil && p.topic == o.log.events {
			err = errors.New("events are not messages")
		}
		if err != nil {
			o.refused = true
			return 0, &eventlog.RefusedError{Index: i, Err: err}
		}
		to[i] = p
	}
	first, now := o.end, o.log.now().UnixMilli()
	size := 0
	for i := range events {
		size += len(events[i]) + len(types[i]) + 12
	}
	for i, e := range events {
		n := len(o.events)
		if n == 0 || o.events[n-1].b.full(len(e)) {
			o.events = append(o.events, staged{p: o.p, b: builder{buf: make([]byte, 0, min(size, chunkBytes)+64)}})
			n++
		}
		o.events[n-1].b.event(e, types[i], now)
	}
	o.end += int64(len(events))
	for i := range records {
		o.messages.stage(to[i], &records[i], now)
	}
	return first, nil
}

// Commit writes what was appended as one.
func (o *owner) Commit(ctx context.Context) error {
	if err := o.ready(ctx); err != nil {
		return err
	}
	if o.refused {
		return o.finish(errRefused)
	}
	if len(o.events) == 0 && len(o.messages.chunks) == 0 {
		return nil
	}
	t := &txn{chunks: append(o.events, o.messages.chunks...), check: o.check}
	o.drop()
	if err := o.log.commits.submit(ctx, t); err != nil {
		return o.finish(fmt.Errorf("commit to %s: %w", o.p, err))
	}
	return nil
}

// Abort forgets what was appended since the last Commit.
func (o *owner) Abort(ctx context.Context) error {
	if err := o.ready(ctx); err != nil {
		return err
	}
	o.drop()
	o.refused = false
	o.end = o.p.state().End
	return nil
}

func (o *owner) drop() { o.events, o.messages = nil, messages{} }

// Close ends the ownership. Nothing is written.
func (o *owner) Close() error {
	o.finish(eventlog.ErrClosed)
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	if o.p.owner == o {
		o.p.owner = nil
	}
	return nil
}
