package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

// forwarder appends what committed events tell other partitions to their inboxes, in order,
// at least once. After an error it sends nothing more with that publisher and goes on from
// the first request that was not acknowledged; receivers drop what they have counted.
// Protocol rules 6, 7, 16.
type forwarder struct {
	r    *runner
	mu   sync.Mutex
	list []told
	more chan struct{}
}

func (r *runner) newForwarder() *forwarder {
	f := &forwarder{r: r, more: make(chan struct{}, 1)}
	life := r.life
	r.wg.Go(func() { f.run(life) })
	return f
}

func (f *forwarder) add(l []told) {
	f.mu.Lock()
	f.list = append(f.list, l...)
	f.mu.Unlock()
	select {
	case f.more <- struct{}{}:
	default:
	}
}

const forwardBatch = 1000

func (f *forwarder) run(life context.Context) {
	var publisher eventlog.Publisher
	defer func() {
		if publisher != nil {
			publisher.Close()
		}
	}()
	part := fmt.Sprintf("what partition %d tells the others", f.r.partition)
	defer f.r.e.problems.set(part, nil)
	backoff := backoffMin
	for {
		f.mu.Lock()
		l := f.list[:min(len(f.list), forwardBatch)]
		f.mu.Unlock()
		if len(l) == 0 {
			select {
			case <-f.more:
				continue
			case <-life.Done():
				return
			}
		}
		done := f.r.e.problems.watch(part, answerAfter, errUnanswered)
		err := f.send(life, &publisher, l)
		done(err)
		if life.Err() != nil {
			return
		}
		if err != nil {
			f.r.logger.Warn("forward to other partitions", "err", err, "in", backoff)
			if publisher != nil {
				publisher.Close()
				publisher = nil
			}
			sleep(life, backoff)
			backoff = min(2*backoff, backoffMax)
			continue
		}
		backoff = backoffMin
		f.mu.Lock()
		f.list = f.list[len(l):]
		upto := l[len(l)-1].n
		if len(f.list) > 0 && f.list[0].n == upto {
			upto-- // the event has more to tell
		}
		f.mu.Unlock()
		f.r.post(func(m *mail) { m.forwarded = max(m.forwarded, upto) })
	}
}

func (f *forwarder) send(life context.Context, publisher *eventlog.Publisher, l []told) (err error) {
	if *publisher == nil {
		if *publisher, err = f.r.e.log.Publisher(life); err != nil {
			return err
		}
	}
	records := make([]eventlog.Record, len(l))
	topic := eventlog.RequestsTopic(f.r.e.log.App())
	for k := range l {
		value, err := eventlog.AppendRequest(nil, &l[k].request)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		records[k] = eventlog.Record{Topic: topic, Partition: l[k].to, Key: []byte(l[k].request.PartitionKey()), Value: value}
	}
	return (*publisher).Publish(life, records...)
}
