package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

// reader is a client that fetches one partition.
type reader struct {
	log       *kafkaLog
	cl        *kgo.Client
	topic     string
	partition int32
	id        kadm.TopicID
	next      int64
}

const (
	readBytes = 4 << 20 // of a fetch
	peekBytes = 64 << 10
)

func (l *kafkaLog) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	return l.reader(ctx, topic, partition, from, topicID, isolation, readBytes)
}

// Peek is Read by small fetches.
func (l *kafkaLog) Peek(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	return l.reader(ctx, topic, partition, from, topicID, isolation, peekBytes)
}

func (l *kafkaLog) reader(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation, bytes int32) (eventlog.Reader, error) {
	fail := func(err error) (eventlog.Reader, error) {
		return nil, fmt.Errorf("read %s, partition %d: %w", topic, partition, err)
	}
	t, err := l.topics.read(ctx, topic)
	if err != nil {
		return fail(err)
	}
	if topicID != "" && topicID != t.id.String() {
		return fail(fmt.Errorf("%w: its id is %s, not %s", eventlog.ErrTopicChanged, t.id, topicID))
	}
	if partition < 0 || partition >= t.partitions {
		return fail(fmt.Errorf("%w: it has %d partitions", eventlog.ErrNoTopic, t.partitions))
	}
	starts, err := l.offsets(ctx, topic, l.adm.ListStartOffsets)
	if err != nil {
		return fail(l.because(ctx, err))
	}
	start, err := listed(starts, topic, partition)
	if err != nil {
		return fail(err)
	}
	if from < start {
		return fail(fmt.Errorf("%w: offset %d, start %d", eventlog.ErrOffsetGone, from, start))
	}
	level := kgo.ReadCommitted()
	if isolation == eventlog.ReadUncommitted {
		level = kgo.ReadUncommitted()
	}
	cl, err := l.newClient(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // never skip in silence
		kgo.FetchIsolationLevel(level),
		kgo.KeepControlRecords(),        // their offsets are passed too
		kgo.FetchMaxWait(5*time.Second), // an idle partition costs next to nothing; what comes ends the wait
		kgo.FetchMaxPartitionBytes(bytes),
	)
	if err != nil {
		return fail(err)
	}
	return &reader{log: l, cl: cl, topic: topic, partition: partition, id: t.id, next: from}, nil
}

func (r *reader) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	for {
		fetches := r.cl.PollFetches(ctx)
		if fetches.IsClientClosed() {
			return nil, r.next, eventlog.ErrClosed
		}
		var records []eventlog.Record
		var failed error
		from := r.next
		for _, f := range fetches {
			for _, t := range f.Topics {
				for _, p := range t.Partitions {
					if err := r.check(t.TopicID, p.Err); err != nil {
						failed = err
						break
					}
					records = r.take(records, p.Records)
				}
			}
		}
		switch {
		case r.next > from: // an error comes again
			return records, r.next, nil
		case ctx.Err() != nil:
			return nil, r.next, context.Cause(ctx)
		case failed != nil:
			return nil, r.next, r.explain(ctx, failed)
		}
	}
}

func (r *reader) check(id kadm.TopicID, err error) error {
	if err == nil && id != (kadm.TopicID{}) && id != r.id {
		return kerr.UnknownTopicID
	}
	return err
}

// take adds what is at or after the next offset.
func (r *reader) take(records []eventlog.Record, fetched []*kgo.Record) []eventlog.Record {
	n := 0
	for _, k := range fetched {
		n += len(k.Headers)
	}
	headers := make([]eventlog.Header, 0, n) // of all
	records = slices.Grow(records, len(fetched))
	for _, k := range fetched {
		if k.Offset < r.next {
			continue
		}
		r.next = k.Offset + 1
		if k.Attrs.IsControl() {
			continue
		}
		out := eventlog.Record{
			Topic: k.Topic, Partition: k.Partition, Offset: k.Offset, Time: k.Timestamp,
			Key: k.Key, Value: k.Value,
		}
		if len(k.Headers) > 0 {
			at := len(headers)
			for _, h := range k.Headers {
				headers = append(headers, eventlog.Header(h))
			}
			out.Headers = headers[at:len(headers):len(headers)]
		}
		records = append(records, out)
	}
	return records
}

// explain turns a fetch error into what the caller can act on.
func (r *reader) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, kerr.UnknownTopicID):
		err = r.gone(ctx, err)
	case noTopic(err):
		err = fmt.Errorf("%w: %w", eventlog.ErrNoTopic, err)
	case errors.Is(err, kerr.OffsetOutOfRange):
		starts, listErr := r.log.offsets(ctx, r.topic, r.log.adm.ListStartOffsets)
		if start, e := listed(starts, r.topic, r.partition); listErr == nil && e == nil && r.next >= start {
			err = fmt.Errorf("offset %d is beyond the end of the log: records were lost: %w", r.next, err)
		} else {
			err = fmt.Errorf("%w: %w", eventlog.ErrOffsetGone, err)
		}
	}
	return fmt.Errorf("read %s, partition %d: %w", r.topic, r.partition, denied(r.log.because(ctx, err), "Read", "topic", r.topic))
}

// gone tells a topic that was deleted from one that was created again.
func (r *reader) gone(ctx context.Context, err error) error {
	if _, lookup := r.log.topics.read(ctx, r.topic); errors.Is(lookup, eventlog.ErrNoTopic) {
		return fmt.Errorf("%w: %w", eventlog.ErrNoTopic, err)
	}
	return fmt.Errorf("%w: %w", eventlog.ErrTopicChanged, err)
}

func (r *reader) Close() error {
	r.log.drop(r.cl)
	return nil
}
