package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// shop plays the other side: it reads the orders, and answers when a pizza is ready; now and
// then late, twice, or about an order that nobody has made. It knows nothing of workflows.
// Its consumer position is in the log: started again, it goes on where it was, and may answer
// some orders a second time.
type shop struct {
	log   eventlog.Log
	delay time.Duration
}

const shopGroup = "pizza-shop"

// run works until ctx ends.
func (s *shop) run(ctx context.Context) error {
	member, err := s.log.Join(ctx, shopGroup, orderTopic)
	if err != nil {
		return fmt.Errorf("join %s: %w", shopGroup, err)
	}
	work, failed := context.WithCancelCause(ctx)
	ovens := map[int32]func(){}
	var assignErr error
	for assignErr == nil {
		var assigned []int32
		if assigned, assignErr = member.Assigned(work); assignErr != nil {
			break
		}
		for p, stop := range ovens {
			if !slices.Contains(assigned, p) {
				stop()
				delete(ovens, p)
			}
		}
		for _, p := range assigned {
			if ovens[p] == nil {
				ovens[p] = s.open(work, member, p, failed)
			}
		}
	}
	for _, stop := range ovens {
		stop()
	}
	closeErr := member.Close()
	cause := context.Cause(work)
	failed(nil)
	switch {
	case ctx.Err() != nil:
		return nil
	case cause != nil:
		return cause
	}
	return errors.Join(assignErr, closeErr)
}

// open serves a partition in a goroutine; the function that it returns ends that and waits.
func (s *shop) open(ctx context.Context, member eventlog.Member, partition int32, failed func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.serve(ctx, member, partition)
		if err != nil && ctx.Err() == nil && !errors.Is(err, eventlog.ErrNotMember) {
			failed(fmt.Errorf("shop: %w", err))
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (s *shop) serve(ctx context.Context, member eventlog.Member, partition int32) error {
	topic, err := s.log.Topic(ctx, orderTopic)
	if err != nil {
		return err
	}
	from, err := member.Committed(ctx, partition)
	if err != nil {
		return err
	}
	// The shop reads committed records: what a worker could not commit was never ordered.
	r, err := s.log.Read(ctx, orderTopic, partition, max(from, topic.Partitions[partition].Start), topic.ID, eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		orders, next, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if err := s.answer(ctx, orders); err != nil {
			return err
		}
		if err := member.Commit(ctx, partition, next); err != nil {
			return err
		}
	}
}

// answer publishes the answers to some orders, each when its time has come.
func (s *shop) answer(ctx context.Context, orders []eventlog.Record) error {
	type due struct {
		after  time.Duration
		record eventlog.Record
	}
	var all []due
	for _, r := range orders {
		var o Placed
		if err := json.Unmarshal(r.Value, &o); err != nil {
			continue // not an order; a real shop would complain
		}
		add := func(after time.Duration, id string) error {
			value, err := json.Marshal(Ready{OrderID: id, Status: "READY"})
			all = append(all, due{after, eventlog.Record{Topic: statusTopic, Partition: -1, Key: []byte(id), Value: value}})
			return err
		}
		after := s.delay
		if chance("late "+o.OrderID, 6) {
			after *= 5
		}
		err := add(after, o.OrderID)
		if chance("twice "+o.OrderID, 6) {
			err = errors.Join(err, add(after+s.delay, o.OrderID))
		}
		if chance("unknown "+o.OrderID, 8) {
			err = errors.Join(err, add(after, "unknown-"+o.OrderID))
		}
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(all, func(a, b due) int { return int(a.after - b.after) })
	start := time.Now()
	for len(all) > 0 {
		select {
		case <-time.After(all[0].after - time.Since(start)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var now []eventlog.Record
		for len(all) > 0 && all[0].after <= time.Since(start) {
			now, all = append(now, all[0].record), all[1:]
		}
		if err := s.log.Publish(ctx, now...); err != nil {
			return err
		}
	}
	return nil
}
