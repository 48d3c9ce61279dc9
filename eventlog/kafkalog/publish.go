package kafkalog

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

// mostTogether is how many records of concurrent Publish calls are sent in one go.
const mostTogether = 16 << 10

// sharedProducer serves Log.Publish: what arrives while a batch is on its way goes into the
// next one. After an error its client is replaced, so that nothing is sent behind a gap.
type sharedProducer struct {
	log *kafkaLog

	mu      sync.Mutex
	waiting []*publishCall
	running bool
	closed  bool
	cl      *kgo.Client
	changes int // of topics, when cl was made
}

type publishCall struct {
	ctx     context.Context // only asked whether the caller still waits
	records []*kgo.Record
	err     error
	done    chan struct{}
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
	call := &publishCall{ctx: ctx, records: out, done: make(chan struct{})}
	if err := l.shared.add(call); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	select {
	case <-call.done:
		err = call.err
	case <-ctx.Done():
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
	if !p.running {
		p.running = true
		p.log.wg.Go(p.run)
	}
	return nil
}

func (p *sharedProducer) run() {
	for {
		calls := p.take()
		if calls == nil {
			return
		}
		p.serve(calls)
		for _, c := range calls {
			close(c.done)
		}
	}
}

// take is the next calls to send together, or nil when there are none.
func (p *sharedProducer) take() []*publishCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, records := 0, 0
	for n < len(p.waiting) && (n == 0 || records+len(p.waiting[n].records) <= mostTogether) {
		records += len(p.waiting[n].records)
		n++
	}
	if n == 0 {
		p.running = false
		return nil
	}
	calls := p.waiting[:n:n]
	p.waiting = p.waiting[n:]
	return calls
}

func (p *sharedProducer) serve(calls []*publishCall) {
	cl, err := p.client()
	var all []*kgo.Record
	for _, c := range calls {
		if c.err = err; err == nil && c.ctx.Err() != nil {
			c.err = context.Cause(c.ctx)
		}
		if c.err == nil {
			all = append(all, c.records...)
		}
	}
	if len(all) == 0 {
		return
	}
	s := sender{cl: cl}
	b := s.send(all)
	<-b.done
	s.wg.Wait()
	at, failed := 0, false
	for _, c := range calls {
		if c.err != nil {
			continue
		}
		mine := batch{records: c.records, errs: b.errs[at : at+len(c.records)]}
		at += len(c.records)
		c.err = mine.err()
		failed = failed || c.err != nil
	}
	if failed {
		p.mu.Lock()
		p.cl = nil
		p.mu.Unlock()
		p.log.drop(cl)
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
