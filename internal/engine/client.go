package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// errMoved: the partition is elsewhere now, or will be; what was asked may have been applied.
var errMoved = errors.New("engine: the partition moved to another worker")

// call is somebody who waits for a reply.
type call struct {
	done chan reply
	wait bool // set by the runner: it waits for the end of a run
}

func newCall() *call { return &call{done: make(chan reply, 1)} }

// reply answers and never blocks; the first reply counts.
func (c *call) reply(r reply) {
	select {
	case c.done <- r:
	default:
	}
}

// Call asks an instance for something and waits for the answer. It fills V, and Request and
// Made where they are empty; to ask again after an error, give the same request again: it is
// decided once. The partition's owner in this process is asked at once; for another owner the
// request is appended to <app>.requests and the answer is read in the events. When Run has
// not been called the request is appended and the answer is empty. After an error or when ctx
// ends, the request may have been applied or may still be.
func (e *Engine) Call(ctx context.Context, r *eventlog.Request) (Answer, error) {
	if !r.Type.IsCall() {
		return Answer{}, fmt.Errorf("engine: %q is no call", r.Type)
	}
	if err := eventlog.ValidateID(r.ID); err != nil {
		return Answer{}, fmt.Errorf("engine: instance: %w", err)
	}
	r.V = 1
	now := e.cfg.Now()
	if r.Request == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return Answer{}, fmt.Errorf("make a request id: %w", err)
		}
		r.Request = id.String()
	} else if err := eventlog.ValidateID(r.Request); err != nil {
		return Answer{}, fmt.Errorf("engine: request: %w", err)
	}
	if r.Made == 0 {
		r.Made = now.UnixMilli()
	}
	if err := r.Validate(); err != nil {
		return Answer{}, fmt.Errorf("engine: %w", err)
	}
	if n := len(r.Params); n > eventlog.PayloadWarning {
		e.logger.WarnContext(ctx, "large payload: keep large data elsewhere and refer to it", "instance", r.ID, "bytes", n)
	}
	partition := eventlog.PartitionOf(r.ID, e.log.Partitions())
	x, err := e.ask(ctx, partition, unit{request: *r, offset: -1})
	switch {
	case err == nil:
		return x.answer, nil
	case !errors.Is(err, errMoved):
		return Answer{}, err
	}
	return e.callRemote(ctx, partition, r)
}

// ask puts a call or read to the owner in this process; errMoved when it is elsewhere.
func (e *Engine) ask(ctx context.Context, partition int32, u unit) (reply, error) {
	e.mu.Lock()
	state, owner := e.state, e.runners[partition]
	e.mu.Unlock()
	if state == isClosed {
		return reply{}, ErrClosed
	}
	if owner == nil {
		return reply{}, errMoved
	}
	c := newCall()
	u.token = c
	if !owner.submit(u) {
		return reply{}, errMoved
	}
	select {
	case x := <-c.done:
		return x, x.err
	case <-ctx.Done():
		if u.wait {
			owner.leave(u)
		}
		return reply{}, context.Cause(ctx)
	}
}

// callRemote appends a call to the requests topic and waits for the event that answers it.
func (e *Engine) callRemote(ctx context.Context, partition int32, r *eventlog.Request) (Answer, error) {
	value, err := eventlog.AppendRequest(nil, r)
	if err != nil {
		return Answer{}, fmt.Errorf("encode request: %w", err)
	}
	record := eventlog.Record{Topic: eventlog.RequestsTopic(e.log.App()), Partition: partition, Key: []byte(r.PartitionKey()), Value: value}
	if !e.running() {
		return Answer{}, e.publishCall(ctx, record)
	}
	s, err := e.followers.subscribe(ctx, partition, r.ID)
	if err != nil {
		return Answer{}, err
	}
	defer s.close()
	if err := e.publishCall(ctx, record); err != nil {
		return Answer{}, err
	}
	return e.awaitAnswer(ctx, partition, r, s)
}

func (e *Engine) publishCall(ctx context.Context, record eventlog.Record) error {
	if err := e.log.Publish(ctx, record); err != nil {
		return fmt.Errorf("append request: %w", err)
	}
	return nil
}

// unansweredAfter is how long an answer may take before a call looks whether its request was
// consumed without an event of its own, as one that was decided before is.
const unansweredAfter = time.Second

func (e *Engine) awaitAnswer(ctx context.Context, partition int32, r *eventlog.Request, s *subscription) (Answer, error) {
	look := time.NewTimer(unansweredAfter)
	defer look.Stop()
	for {
		select {
		case <-s.more:
		case <-look.C:
			topic, err := e.log.Topic(ctx, eventlog.RequestsTopic(e.log.App()))
			if err != nil {
				return Answer{}, fmt.Errorf("describe the requests topic: %w", err)
			}
			s.await(topic.ID, topic.Partitions[partition].End)
			continue
		case <-ctx.Done():
			return Answer{}, context.Cause(ctx)
		}
		events, passed, err := s.take()
		for _, ev := range events {
			if a, ok := answerOf(ev, r); ok {
				return a, nil
			}
		}
		switch {
		case err != nil:
			return Answer{}, err
		case passed:
			return e.answerBefore(ctx, partition, r)
		}
	}
}

// answerOf is the answer that an event gives to a call.
func answerOf(ev *eventlog.Event, r *eventlog.Request) (Answer, bool) {
	if ev.ID == r.ID && ev.Request == r.Request && ev.Seq > 0 {
		run := ev.Run
		if ev.Type == eventlog.InstanceStarted {
			run = ev.N
		}
		return Answer{Answer: machine.OK, Run: run}, true
	}
	if ev.Pos != nil {
		for _, f := range ev.Pos.Refused {
			if f.ID == r.ID && f.Request == r.Request {
				return Answer{Answer: f.Answer, Run: 0}, true
			}
		}
	}
	return Answer{}, false
}

// answerBefore finds the answer of a call that was decided before, in the events of the time
// for which answers are remembered. Where there is none it was not applied: protocol rule 8.
func (e *Engine) answerBefore(ctx context.Context, partition int32, r *eventlog.Request) (a Answer, err error) {
	const memory = 26 * time.Hour
	name := eventlog.EventsTopic(e.log.App())
	offsets, err := e.log.OffsetAt(ctx, name, time.Now().Add(-memory))
	if err != nil {
		return Answer{}, fmt.Errorf("find the events of the last day: %w", err)
	}
	found, at := false, int64(0)
	sc := scan{log: e.log, partition: partition, topicID: e.eventsID, id: r.ID, from: offsets[partition]}
	err = sc.run(ctx, func(ev *eventlog.Event, _ int64) bool {
		at = ev.At
		if x, ok := answerOf(ev, r); ok {
			a, found = x, true
		}
		return !found
	})
	switch {
	case err != nil || found:
		return a, err
	case r.Made > max(at, e.cfg.Now().UnixMilli()):
		return Answer{Answer: machine.Ahead}, nil
	}
	return Answer{Answer: machine.Expired}, nil
}

// Get returns the instance as its owner has it, or as the log has it when the owner is
// another process that does not answer. ErrNotFound when the id never ran.
func (e *Engine) Get(ctx context.Context, id string) (*machine.Instance, error) {
	return e.see(ctx, id, false)
}

// Wait returns the instance when its current run has ended. ErrNotFound when the id never
// ran.
func (e *Engine) Wait(ctx context.Context, id string) (*machine.Instance, error) {
	return e.see(ctx, id, true)
}

func (e *Engine) see(ctx context.Context, id string, wait bool) (*machine.Instance, error) {
	if err := eventlog.ValidateID(id); err != nil {
		return nil, fmt.Errorf("engine: instance: %w", err)
	}
	partition := eventlog.PartitionOf(id, e.log.Partitions())
	for {
		x, err := e.ask(ctx, partition, unit{request: eventlog.Request{ID: id}, offset: -1, read: true, wait: wait})
		if err == nil {
			return x.instance, nil
		}
		if !errors.Is(err, errMoved) {
			return nil, err
		}
		if !wait {
			break
		}
		i, err := e.waitRemote(ctx, partition, id)
		if !errors.Is(err, ErrTrimmed) {
			return i, err
		}
		// Only an owner can tell, and perhaps this process is about to be one.
		if sleep(ctx, trimmedWait); ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
	if i, answered, err := e.getElsewhere(ctx, partition, id); answered {
		return i, err
	}
	i, _, err := ReadInstance(ctx, e.log, e.store, id)
	return i, err
}

// trimmedWait is how long Wait waits for an owner where the log alone can't tell.
const trimmedWait = 100 * time.Millisecond

// waitRemote follows an instance of another owner until its run has ended. ErrTrimmed: the
// log has dropped the events that would tell whether there is one.
func (e *Engine) waitRemote(ctx context.Context, partition int32, id string) (*machine.Instance, error) {
	s, err := e.followers.subscribe(ctx, partition, id)
	if err != nil {
		return nil, err
	}
	defer s.close()
	f := newFold(e.log.Partitions(), id)
	// What stands before the subscription's beginning is read here, the rest comes by it.
	if err := f.read(ctx, e.log, e.store, s.from); err != nil {
		return nil, err
	}
	for {
		i, err := f.instance()
		if err != nil || i.Terminal() {
			return i, err
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		events, _, err := s.take()
		for _, ev := range events {
			if err := f.event(ev); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return nil, err
		}
	}
}
