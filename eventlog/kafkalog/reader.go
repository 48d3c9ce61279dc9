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

// position is how far somebody has read in a partition.
type position struct {
	log       *kafkaLog
	topic     string
	partition int32
	next      int64
}

// reader is a client that fetches one partition.
type reader struct {
	position
	cl *kgo.Client
	id kadm.TopicID
}

const readBytes = 4 << 20 // of a fetch

func (l *kafkaLog) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	fail := func(err error) (eventlog.Reader, error) {
		return nil, fmt.Errorf("read %s, partition %d: %w", topic, partition, err)
	}
	t, err := l.topics.read(ctx, topic)
	if err == nil {
		err = t.has(partition, topicID)
	}
	if err != nil {
		return fail(err)
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
		kgo.FetchMaxPartitionBytes(readBytes),
	)
	if err != nil {
		return fail(err)
	}
	return &reader{position: position{log: l, topic: topic, partition: partition, next: from}, cl: cl, id: t.id}, nil
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
func (r *position) take(records []eventlog.Record, fetched []*kgo.Record) []eventlog.Record {
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
			Key: k.Key, Value: k.Value, Term: k.LeaderEpoch + 1,
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
func (r *position) explain(ctx context.Context, err error) error {
	_, lost := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case lost:
		err = fmt.Errorf("%w: %w", eventlog.ErrTruncated, err)
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
func (r *position) gone(ctx context.Context, err error) error {
	if _, lookup := r.log.topics.read(ctx, r.topic); errors.Is(lookup, eventlog.ErrNoTopic) {
		return fmt.Errorf("%w: %w", eventlog.ErrNoTopic, err)
	}
	return fmt.Errorf("%w: %w", eventlog.ErrTopicChanged, err)
}

func (r *reader) Close() error {
	r.log.drop(r.cl)
	return nil
}
