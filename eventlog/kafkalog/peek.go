package kafkalog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

// peek reads one partition by requests of its own, over a connection that all peeks of a log
// share: a client for each would need several round trips before its first record. The broker
// answers the requests of a connection one after the other, so none of them waits there.
type peek struct {
	position
	topicID   string // "" until the first answer where the caller named none
	isolation eventlog.Isolation
	bytes     int32

	ahead   []eventlog.Record // what opening it fetched
	fetched bool

	closed chan struct{}
	close  sync.Once
}

const (
	peekBytes = 32 << 10 // of the first fetch
	mostPeek  = 1 << 20  // each fetch is twice as large as the one before, up to this
	// peekPause is the longest time between two questions for what is not there yet.
	peekPause = 250 * time.Millisecond
)

// Peek is Read by small fetches. What Read would say at its first Next, it says at once.
func (l *kafkaLog) Peek(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	p := &peek{
		position:  position{log: l, topic: topic, partition: partition, next: from},
		topicID:   topicID,
		isolation: isolation,
		bytes:     peekBytes,
		closed:    make(chan struct{}),
	}
	var err error
	p.ahead, err = p.fetch(ctx)
	if p.fetched = p.next > from; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *peek) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	if p.fetched {
		records := p.ahead
		p.ahead, p.fetched = nil, false
		return records, p.next, nil
	}
	from := p.next
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, peekPause) {
		records, err := p.fetch(ctx)
		if err == nil && p.next == from {
			err = p.pause(ctx, wait)
		}
		if err != nil || p.next > from {
			return records, p.next, err
		}
	}
}

func (p *peek) pause(ctx context.Context, d time.Duration) error {
	again := time.NewTimer(d)
	defer again.Stop()
	select {
	case <-again.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.closed:
	case <-p.log.cl.Context().Done():
	}
	return eventlog.ErrClosed
}

func (p *peek) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

// fetch asks whoever leads the partition for what comes next, and goes on by what is there.
func (p *peek) fetch(ctx context.Context) (records []eventlog.Record, err error) {
	again := false
	var lookUp error
	p.log.persist(ctx, func() (final bool) {
		var t topicInfo
		if t, lookUp = p.lookUp(ctx, again); lookUp != nil {
			return true
		}
		from, known := p.next, !again
		if records, err = p.ask(ctx, t); err == nil || p.next > from { // an error comes again
			p.topicID, err = t.id.String(), nil
			return true
		}
		again = true // it may have another leader, or be another topic
		return !known && !brokerAway(err)
	})
	switch {
	case lookUp != nil:
		return nil, fmt.Errorf("read %s, partition %d: %w", p.topic, p.partition, lookUp)
	case err != nil:
		return nil, p.explain(ctx, err)
	}
	p.bytes = min(2*p.bytes, mostPeek)
	return records, nil
}

// lookUp is what is known of the topic; again: what the brokers know of it now.
func (p *peek) lookUp(ctx context.Context, again bool) (topicInfo, error) {
	if !again {
		if t, err := p.log.topics.get(ctx, p.topic); err != nil || t.has(p.partition, p.topicID) == nil {
			return t, err
		}
	}
	t, err := p.log.topics.read(ctx, p.topic)
	if err == nil {
		err = t.has(p.partition, p.topicID)
	}
	return t, err
}

// ask sends one request.
func (p *peek) ask(ctx context.Context, t topicInfo) ([]eventlog.Record, error) {
	leader := t.leaders[p.partition]
	if leader.node < 0 {
		return nil, kerr.LeaderNotAvailable
	}
	at := kmsg.NewFetchRequestTopicPartition()
	at.Partition, at.CurrentLeaderEpoch = p.partition, leader.epoch
	at.FetchOffset, at.PartitionMaxBytes = p.next, p.bytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = p.topic, t.id
	topic.Partitions = append(topic.Partitions, at)
	req := kmsg.NewPtrFetchRequest()
	req.MinBytes, req.MaxBytes = 0, p.bytes
	req.Topics = append(req.Topics, topic)
	level := kgo.ReadUncommitted()
	if p.isolation == eventlog.ReadCommitted {
		level, req.IsolationLevel = kgo.ReadCommitted(), 1
	}
	resp, err := p.log.request(ctx, leader.node, req)
	if err != nil {
		return nil, err
	}
	fetched := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
		return nil, err
	}
	if len(fetched.Topics) != 1 || len(fetched.Topics[0].Partitions) != 1 || fetched.Topics[0].Partitions[0].Partition != p.partition {
		return nil, fmt.Errorf("the answer of broker %d is about something else", leader.node)
	}
	opts := kgo.ProcessFetchPartitionOpts{Topic: p.topic, Partition: p.partition, Offset: p.next, IsolationLevel: level}
	got, next := kgo.ProcessFetchPartition(opts, &fetched.Topics[0].Partitions[0], decompressor, nil)
	records := p.take(nil, got.Records)
	p.next = next // markers and what was aborted are passed
	return records, got.Err
}

var decompressor = kgo.DefaultDecompressor()

// request asks a broker. A context that ends leaves the answer to itself: the client would close
// the connection under all others who wait for theirs.
func (l *kafkaLog) request(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	type answer struct {
		resp kmsg.Response
		err  error
	}
	answered := make(chan answer, 1)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, eventlog.ErrClosed
	}
	l.wg.Go(func() {
		resp, err := l.cl.Broker(int(broker)).Request(context.WithoutCancel(ctx), req)
		answered <- answer{resp, err}
	})
	l.mu.Unlock()
	select {
	case a := <-answered:
		return a.resp, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
