package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

// producerOptions are those of every producer. It buffers until it is told to flush, so
// that the records of one call travel in one batch for each partition: when the batch is
// refused, nothing of that partition is sent after it.
func (l *kafkaLog) producerOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(l.topics.maxBatch),
		kgo.MaxBufferedRecords(1 << 24),
		kgo.MaxProduceRequestsInflightPerBroker(1),
		kgo.ProducerLinger(0),
		kgo.ManualFlushing(),
	}
}

// record makes a client's record of ours, with its partition chosen. ErrNoTopic and
// ErrTooLarge are found here, before anything is sent.
func (l *kafkaLog) record(ctx context.Context, r eventlog.Record) (*kgo.Record, error) {
	t, err := l.topics.get(ctx, r.Topic)
	if err != nil {
		return nil, err
	}
	size := len(r.Key) + len(r.Value)
	out := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Time}
	if len(r.Headers) > 0 {
		out.Headers = make([]kgo.RecordHeader, len(r.Headers))
		for i, h := range r.Headers {
			out.Headers[i] = kgo.RecordHeader(h)
			size += len(h.Key) + len(h.Value)
			if i >= 64 {
				size += 10 // the lengths of the first ones are in batchOverhead
			}
		}
	}
	if size > t.maxRecord() {
		return nil, fmt.Errorf("%w: %d bytes, topic %s takes %d", eventlog.ErrTooLarge, size, r.Topic, t.maxRecord())
	}
	switch {
	case r.Partition >= t.partitions || r.Partition < -1:
		return nil, fmt.Errorf("%w: %s has no partition %d", eventlog.ErrNoTopic, r.Topic, r.Partition)
	case r.Partition == -1 && r.Key != nil:
		out.Partition = eventlog.PartitionOfKey(string(r.Key), t.partitions)
	case r.Partition == -1:
		out.Partition = rand.Int32N(t.partitions)
	}
	return out, nil
}

// sender sends with one client and waits, when closed, for what it started.
type sender struct {
	cl *kgo.Client
	wg sync.WaitGroup
}

// batch is some records on their way; done is closed when all are answered.
type batch struct {
	records []*kgo.Record
	errs    []error // of each record
	done    chan struct{}
}

// send hands records to the client and flushes it. It takes no context, for one that ends
// would not stop what is in flight: who no longer wants to wait closes the client.
func (s *sender) send(records []*kgo.Record) *batch {
	b := &batch{records: records, errs: make([]error, len(records)), done: make(chan struct{})}
	if len(records) == 0 {
		close(b.done)
		return b
	}
	left := new(atomic.Int64)
	left.Store(int64(len(records)))
	ctx := s.cl.Context()
	for i, r := range records {
		s.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			b.errs[i] = err
			if left.Add(-1) == 0 {
				close(b.done)
			}
		})
	}
	s.wg.Go(func() { _ = s.cl.Flush(ctx) }) // its error stands in the records'
	return b
}

// err is the first error of the records, when all are answered.
func (b *batch) err() error {
	for i, err := range b.errs {
		if err != nil {
			return publishError(b.records[i], err)
		}
	}
	return nil
}

func publishError(r *kgo.Record, err error) error {
	switch {
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, context.Canceled):
		return eventlog.ErrClosed // the only context of a record is its client's
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return fmt.Errorf("append to %s: %w: %w", r.Topic, eventlog.ErrTooLarge, err)
	case noTopic(err):
		return fmt.Errorf("append to %s: %w: %w", r.Topic, eventlog.ErrNoTopic, err)
	}
	return fmt.Errorf("append to %s: %w", r.Topic, denied(err, "Write", "topic", r.Topic))
}

// records are a call's records, checked before anything is sent.
func (l *kafkaLog) records(ctx context.Context, in []eventlog.Record) ([]*kgo.Record, error) {
	out := make([]*kgo.Record, len(in))
	for i, r := range in {
		var err error
		if out[i], err = l.record(ctx, r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// publisher is a producer of its own. After an error it sends nothing more: what follows a
// gap would be taken for what belongs there (protocol rule 17).
type publisher struct {
	log *kafkaLog
	s   sender

	mu   sync.Mutex
	dead error
}

func (l *kafkaLog) Publisher(ctx context.Context) (eventlog.Publisher, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	cl, err := l.newClient(append(l.producerOptions(), kgo.StopProducerOnDataLossDetected())...)
	if err != nil {
		return nil, fmt.Errorf("open publisher: %w", err)
	}
	return &publisher{log: l, s: sender{cl: cl}}, nil
}

func (p *publisher) Publish(ctx context.Context, records ...eventlog.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead != nil {
		return fmt.Errorf("publish: %w", p.dead)
	}
	out, err := p.log.records(ctx, records)
	if err == nil {
		b := p.s.send(out)
		select {
		case <-b.done:
			err = b.err()
		case <-ctx.Done():
			p.log.drop(p.s.cl) // ends what is in flight
			<-b.done           // nothing reads the caller's slices any more
			err = context.Cause(ctx)
		}
		if err != nil {
			p.forget(out)
		}
	}
	if err != nil {
		p.dead = fmt.Errorf("%w: this publisher had an error before", eventlog.ErrClosed)
		p.log.drop(p.s.cl)
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// forget makes the next producer ask again for the topics of records that failed.
func (p *publisher) forget(records []*kgo.Record) {
	for _, r := range records {
		p.log.topics.forget(r.Topic)
	}
}

func (p *publisher) Close() error {
	p.log.drop(p.s.cl) // first, so that a Publish that waits comes back
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = eventlog.ErrClosed
	p.s.wg.Wait()
	return nil
}
