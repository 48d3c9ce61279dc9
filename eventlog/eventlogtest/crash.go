package eventlogtest

import (
	"context"
	"fmt"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

var crashCases = []contract{
	{"crash/acknowledged", "After a crash all that was acknowledged is there; of the rest whole transactions, in order, or nothing.", crashAcknowledged},
	{"crash/fenced", "An owner from before a crash stays fenced; the new one's barrier is behind all it committed.", crashOwner},
}

const crashes = 4

// crashAcknowledged lets owners and publishers work, crashes the log under them, opens it
// again, and compares, several times over one log.
func crashAcknowledged(s *suite) {
	if s.h.Features.NoCrash {
		s.Skip("the driver can't crash")
	}
	const partitions = 2
	l := s.open(partitions)
	topic := s.topic(l, "crash", partitions)
	acked := make([]int, partitions) // transactions of each owner, over all rounds
	published := make([]int, partitions)
	for round := range crashes {
		ctx, cancel := context.WithCancel(s.ctx)
		var wg sync.WaitGroup
		enough := make(chan struct{}, 2*partitions)
		for p := range int32(partitions) {
			o, err := l.Own(s.ctx, p)
			s.ok(err, "own")
			base := acked[p]
			wg.Go(func() {
				defer o.Close()
				for i := base; ctx.Err() == nil; i++ {
					m := []eventlog.Record{message(topic, p, fmt.Sprintf("m%d", i)), message(topic, (p+1)%partitions, fmt.Sprintf("n%d", i))}
					if _, err := o.Append(ctx, bodies(fmt.Sprintf("%d.0", i), fmt.Sprintf("%d.1", i)), types(2), m); err != nil {
						break
					}
					if err := o.Commit(ctx); err != nil {
						break
					}
					if acked[p]++; i == base+20 {
						enough <- struct{}{}
					}
				}
			})
			from := published[p]
			wg.Go(func() {
				for i := from; ctx.Err() == nil; i++ {
					if l.Publish(ctx, message(topic, p, fmt.Sprintf("p%d", i))) != nil {
						break
					}
					if published[p]++; i == from+20 {
						enough <- struct{}{}
					}
				}
			})
		}
		for range 2 * partitions {
			select {
			case <-enough:
			case <-s.ctx.Done():
				s.Fatalf("round %d: the writers stopped", round)
			}
		}
		s.ok(s.h.Crash(l), "crash")
		cancel()
		wg.Wait()
		_ = l.Close()
		l = s.open(partitions)

		got := make([][]string, partitions)
		for p := range int32(partitions) {
			got[p] = s.settled(l, topic, p)
		}
		for p := range int32(partitions) {
			events, o := s.events(l, p)
			_ = o.Close()
			events = withPrefix(events, `{"name":"`)
			var kept []string
			for _, e := range events {
				if e != event("barrier") {
					kept = append(kept, e)
				}
			}
			n := len(kept) / 2
			if n < acked[p] {
				s.Fatalf("round %d: partition %d has %d transactions, %d were acknowledged", round, p, n, acked[p])
			}
			var want []string
			for i := range n {
				want = append(want, event(fmt.Sprintf("%d.0", i)), event(fmt.Sprintf("%d.1", i)))
			}
			s.equal(kept, want, "events after a crash")
			s.equal(withPrefix(got[p], "m"), numbered("m", n), "messages of the same transactions")
			s.equal(withPrefix(got[(p+1)%partitions], "n"), numbered("n", n), "messages of the same transactions in the other partition")
			sent := withPrefix(got[p], "p")
			if len(sent) < published[p] {
				s.Fatalf("round %d: %d records were published, %d acknowledged", round, len(sent), published[p])
			}
			s.equal(sent, numbered("p", len(sent)), "published records")
			acked[p], published[p] = n, len(sent)
		}
	}
}

func crashOwner(s *suite) {
	if s.h.Features.NoCrash {
		s.Skip("the driver can't crash")
	}
	l := s.open(1)
	old := s.own(l, 0)
	s.commit(old, "1")
	s.append(old, "open")
	s.ok(s.h.Crash(l), "crash")
	again := s.open(1)
	got, o := s.events(again, 0)
	s.equal(got, eventValues("1"), "events")
	if err := old.Commit(s.ctx); err == nil {
		s.Error("the old owner commits after the crash")
	}
	_ = l.Close()
	s.commit(o, "2")
	got, _ = s.events(again, 0)
	s.equal(got, eventValues("1", "barrier", "2"), "events")
}
