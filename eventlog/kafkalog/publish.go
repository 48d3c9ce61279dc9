package kafkalog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

const (
	// mostTogether is how many records of concurrent Publish calls are sent in one go.
	mostTogether = 16 << 10
	// unanswered is how long the calls for all partitions wait for those that are sent together;
	// mostLeft is how many clients are left with what is unanswered for longer.
	unanswered = time.Second
	mostLeft   = 4
)

// sharedProducer serves Log.Publish: what arrives while a batch is on its way goes into the
// next one. After an error its client is replaced, so that nothing is sent behind a gap. A
// batch for which some partition has no leader is left to its client: calls for the
// partitions that have not answered wait behind it, the others go on with another client.
type sharedProducer struct {
	log *kafkaLog

	mu      sync.Mutex
	waiting []*publishCall
	running bool
	closed  bool
	cl      *kgo.Client
	changes int           // of topics, when cl was made
	held    map[place]int // batches that were left with records for it
	left    int           // such batches
}

type place struct {
	topic     string
	partition int32
}

type publishCall struct {
	ctx     context.Context // only asked whether the caller still waits
	records []*kgo.Record
	places  []place // of the records, whose own partitions a client writes to once it has them
	errs    []error
	open    atomic.Int64 // records without an answer
	err     error        // before done is closed
	done    chan struct{}
}

// answered notes what became of one record.
func (c *publishCall) answered(k int, err error) {
	c.errs[k] = err
	if c.open.Add(-1) == 0 {
		c.err = (&batch{records: c.records, errs: c.errs}).err()
		close(c.done)
	}
}

func (c *publishCall) fail(err error) {
	c.err = err
	close(c.done)
}

func (l *kafkaLog) Publish(ctx context.Context, records ...eventlog.Record) error {
	out, err := l.records(ctx, records)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if len(out) == 0 {
		return nil
	}
	detach(out) // a call that no longer waits leaves them in flight
	call := &publishCall{ctx: ctx, records: out, places: make([]place, len(out)), errs: make([]error, len(out)), done: make(chan struct{})}
	for k, r := range out {
		call.places[k] = place{r.Topic, r.Partition}
	}
	call.open.Store(int64(len(out)))
	if err := l.shared.add(call); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	select {
	case <-call.done:
		err = call.err
	case <-ctx.Done():
		l.shared.forget(call)
		err = context.Cause(ctx)
	}
	if err != nil {
		for _, r := range out {
			l.topics.forget(r.Topic)
		}
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// detach gives records copies of the caller's slices.
func detach(records []*kgo.Record) {
	for _, r := range records {
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		for i := range r.Headers {
			r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
		}
	}
}

// add queues a call and starts the loop when none runs; it ends when the queue is empty.
func (p *sharedProducer) add(call *publishCall) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return eventlog.ErrClosed
	}
	p.waiting = append(p.waiting, call)
	p.start()
	return nil
}

// forget drops a call that is not on its way: nobody waits for it, and brokers may be away for
// long.
func (p *sharedProducer) forget(call *publishCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := slices.Index(p.waiting, call); k >= 0 {
		p.waiting = slices.Delete(p.waiting, k, k+1)
	}
}

func (p *sharedProducer) run() {
	for {
		calls := p.take()
		if calls == nil {
			return
		}
		p.serve(calls)
	}
}

// take is the next calls to send together, or nil when there are none. What must wait, and
// what must not overtake it, stays.
func (p *sharedProducer) take() (calls []*publishCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	records := 0
	var rest []*publishCall
	behind := map[place]bool{}
	for k, c := range p.waiting {
		if len(calls) > 0 && records+len(c.records) > mostTogether {
			rest = append(rest, p.waiting[k:]...)
			break
		}
		if p.left > 0 && slices.ContainsFunc(c.places, func(at place) bool { return p.held[at] > 0 || behind[at] }) {
			for _, at := range c.places {
				behind[at] = true
			}
			rest = append(rest, c)
			continue
		}
		records += len(c.records)
		calls = append(calls, c)
	}
	p.waiting = rest
	p.running = len(calls) > 0
	return calls
}

func (p *sharedProducer) serve(calls []*publishCall) {
	cl, err := p.client()
	var all []*publishCall
	n := 0
	for _, c := range calls {
		switch {
		case err != nil:
			c.fail(err)
		case c.ctx.Err() != nil:
			c.fail(context.Cause(c.ctx))
		default:
			all = append(all, c)
			n += len(c.records)
		}
	}
	if len(all) == 0 {
		return
	}
	sent := p.send(cl, all, n)
	late := time.NewTimer(unanswered)
	defer late.Stop()
	select {
	case <-sent:
	case <-late.C:
		if p.leave(cl, all, sent) {
			return
		}
		<-sent
	}
	if slices.ContainsFunc(all, func(c *publishCall) bool { return c.err != nil }) {
		p.replace(cl)
		p.log.drop(cl)
	}
}

// send hands the records of calls to a client. The channel is closed when all are answered.
func (p *sharedProducer) send(cl *kgo.Client, calls []*publishCall, records int) <-chan struct{} {
	done, sent := make(chan struct{}), make(chan struct{})
	left := new(atomic.Int64)
	left.Store(int64(records))
	ctx := cl.Context()
	for _, c := range calls {
		for k, r := range c.records {
			cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
				c.answered(k, err)
				if left.Add(-1) == 0 {
					close(done)
				}
			})
		}
	}
	p.log.wg.Go(func() {
		_ = cl.Flush(ctx) // its error stands in the records'
		<-done
		close(sent)
	})
	return sent
}

// leave lets a client go on by itself with calls, some of which are not answered. false: there
// are enough such clients.
func (p *sharedProducer) leave(cl *kgo.Client, calls []*publishCall, sent <-chan struct{}) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left >= mostLeft || p.closed {
		return false
	}
	var held []place
	for _, c := range calls {
		if c.open.Load() > 0 {
			held = append(held, c.places...)
		}
	}
	if p.held == nil {
		p.held = map[place]int{}
	}
	for _, at := range held {
		p.held[at]++
	}
	p.left++
	p.cl = nil
	p.log.wg.Go(func() {
		<-sent
		p.log.drop(cl)
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, at := range held {
			if p.held[at]--; p.held[at] == 0 {
				delete(p.held, at)
			}
		}
		p.left--
		p.start()
	})
	return true
}

// start starts the loop when none runs and something waits. Needs mu.
func (p *sharedProducer) start() {
	if !p.running && len(p.waiting) > 0 {
		p.running = true
		p.log.wg.Go(p.run)
	}
}

// replace lets the next batch have a new client.
func (p *sharedProducer) replace(cl *kgo.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cl == cl {
		p.cl = nil
	}
}

func (p *sharedProducer) client() (*kgo.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, eventlog.ErrClosed
	}
	changes := p.log.topics.changed()
	if p.cl != nil && p.changes != changes {
		p.log.dropLater(p.cl)
		p.cl = nil
	}
	if p.cl == nil {
		cl, err := p.log.newClient(p.log.producerOptions()...)
		if err != nil {
			return nil, err
		}
		p.cl, p.changes = cl, changes
	}
	return p.cl, nil
}

// close refuses further calls. Closing the clients, which the log does next, ends the rest.
func (p *sharedProducer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}
