package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// followers read the events of partitions that other processes own, one reader for all who
// wait for something in a partition. A follower starts with the first of them and ends when
// nobody has waited for a while; close waits for all.
type followers struct {
	log     eventlog.Log
	eventID string // of the events topic
	ctx     context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex
	parts map[int32]*follower
}

// followerIdle is how long a follower reads on without anybody waiting.
const followerIdle = 10 * time.Second

type follower struct {
	all       *followers
	partition int32

	// Guarded by all.mu.
	next   int64 // what is read from here on goes to the subscriptions
	subs   map[string][]*subscription
	count  int
	idle   *time.Timer
	cancel context.CancelFunc
	topic  string // requests topic id of the last position
	offset int64  // the last position
}

// subscription gets the events that touch an instance.
type subscription struct {
	f    *follower
	id   string
	from int64         // events at and above this offset come
	more chan struct{} // there is something to take

	// Guarded by followers.mu.
	events []*eventlog.Event
	err    error
	topic  string // requests topic id and offset that are waited for; "" = none
	offset int64
	passed bool
}

func newFollowers(log eventlog.Log, eventsID string) *followers {
	ctx, end := context.WithCancel(context.Background()) // ended by close
	return &followers{log: log, eventID: eventsID, ctx: ctx, end: end, parts: map[int32]*follower{}}
}

// close ends all followers and waits for them.
func (s *followers) close() {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.wg.Wait()
}

// subscribe begins to collect the events of an instance.
func (s *followers) subscribe(ctx context.Context, partition int32, id string) (*subscription, error) {
	for {
		s.mu.Lock()
		if s.ctx.Err() != nil {
			s.mu.Unlock()
			return nil, ErrClosed
		}
		if f := s.parts[partition]; f != nil {
			sub := f.add(id)
			s.mu.Unlock()
			return sub, nil
		}
		s.mu.Unlock()
		topic, err := s.log.Topic(ctx, eventlog.EventsTopic(s.log.App()))
		if err != nil {
			return nil, fmt.Errorf("describe the events topic: %w", err)
		}
		s.mu.Lock()
		if s.parts[partition] == nil && s.ctx.Err() == nil {
			s.start(partition, topic.Partitions[partition].End)
		}
		s.mu.Unlock()
	}
}

// start needs mu.
func (s *followers) start(partition int32, from int64) {
	ctx, cancel := context.WithCancel(s.ctx)
	f := &follower{all: s, partition: partition, next: from, subs: map[string][]*subscription{}, cancel: cancel}
	s.parts[partition] = f
	f.rest()
	s.wg.Go(func() { f.run(ctx) })
}

// rest ends the follower when nobody comes for a while. Needs mu.
func (f *follower) rest() {
	f.idle = time.AfterFunc(followerIdle, func() {
		f.all.mu.Lock()
		defer f.all.mu.Unlock()
		if f.count == 0 {
			f.gone()
		}
	})
}

// gone takes the follower away; the next subscriber gets a new one. Needs mu.
func (f *follower) gone() {
	f.cancel()
	f.idle.Stop()
	if f.all.parts[f.partition] == f {
		delete(f.all.parts, f.partition)
	}
}

// add needs mu.
func (f *follower) add(id string) *subscription {
	f.idle.Stop()
	f.count++
	sub := &subscription{f: f, id: id, from: f.next, more: make(chan struct{}, 1)}
	f.subs[id] = append(f.subs[id], sub)
	return sub
}

func (s *subscription) close() {
	f := s.f
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	l := slices.DeleteFunc(f.subs[s.id], func(x *subscription) bool { return x == s })
	if len(l) == 0 {
		delete(f.subs, s.id)
	} else {
		f.subs[s.id] = l
	}
	if f.count--; f.count == 0 && f.all.parts[f.partition] == f {
		f.rest()
	}
}

// await asks to be told when an owner has consumed requests up to an offset.
func (s *subscription) await(topicID string, offset int64) {
	s.f.all.mu.Lock()
	defer s.f.all.mu.Unlock()
	s.topic, s.offset = topicID, offset
	s.look()
}

// look needs mu.
func (s *subscription) look() {
	if s.topic != "" && s.topic == s.f.topic && s.f.offset >= s.offset && !s.passed {
		s.passed = true
		s.wake()
	}
}

func (s *subscription) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// take returns what came since the last time; passed when the awaited offset is behind and
// everything up to it came.
func (s *subscription) take() (events []*eventlog.Event, passed bool, err error) {
	s.f.all.mu.Lock()
	defer s.f.all.mu.Unlock()
	events, s.events = s.events, nil
	return events, s.passed, s.err
}

// run reads until ctx ends. What can be tried again is.
func (f *follower) run(ctx context.Context) {
	for backoff := backoffMin; ctx.Err() == nil; backoff = min(2*backoff, backoffMax) {
		err := f.read(ctx)
		if ctx.Err() != nil || errors.Is(err, eventlog.ErrClosed) || errors.Is(err, eventlog.ErrTopicChanged) || errors.Is(err, eventlog.ErrOffsetGone) || errors.Is(err, errUndecodable) {
			f.fail(err)
			return
		}
		sleep(ctx, backoff)
	}
	f.fail(ErrClosed)
}

func (f *follower) fail(err error) {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	if f.all.ctx.Err() != nil {
		err = ErrClosed
	}
	f.gone()
	for _, l := range f.subs {
		for _, s := range l {
			s.err = err
			s.wake()
		}
	}
}

func (f *follower) read(ctx context.Context) error {
	reader, err := f.all.log.Read(ctx, eventlog.EventsTopic(f.all.log.App()), f.partition, f.next, f.all.eventID, eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	for {
		records, next, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		events := make([]*eventlog.Event, 0, len(records))
		for k := range records {
			ev, err := decodeEvent(&records[k], f.partition)
			if err != nil {
				return err
			}
			if ev != nil {
				events = append(events, ev)
			}
		}
		f.pass(events, next)
	}
}

// pass gives events to those who wait for them.
func (f *follower) pass(events []*eventlog.Event, next int64) {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.next = next
	moved := false
	for _, ev := range events {
		if len(f.subs) > 0 {
			ids, _, _ := machine.Touches(ev)
			for _, id := range ids {
				for _, s := range f.subs[id] {
					s.events = append(s.events, ev)
					s.wake()
				}
			}
		}
		if ev.Pos != nil {
			f.topic, f.offset, moved = ev.Pos.TopicID, ev.Pos.Offset, true
		}
	}
	if moved {
		for _, l := range f.subs {
			for _, s := range l {
				s.look()
			}
		}
	}
}
