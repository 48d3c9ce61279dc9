package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

// leaderTimeout is how long a question waits for brokers that are away, and for partitions
// whose leader was there to get another one: a little more than a session of the brokers
// lasts by default.
const leaderTimeout = 15 * time.Second

// persist asks until the answer is final. The client asks a partition's leader once, and one
// that was killed does not answer until the others have noticed.
func (l *kafkaLog) persist(ctx context.Context, ask func() (final bool)) {
	late := time.NewTimer(leaderTimeout)
	defer late.Stop()
	for wait := 20 * time.Millisecond; !ask(); wait = min(2*wait, 500*time.Millisecond) {
		l.cl.ForceMetadataRefresh()
		again := time.NewTimer(wait)
		select {
		case <-again.C:
			continue
		case <-late.C:
		case <-ctx.Done():
		case <-l.cl.Context().Done():
		}
		again.Stop()
		return
	}
}

// offsets asks for offsets of all partitions of a topic.
func (l *kafkaLog) offsets(ctx context.Context, name string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (all kadm.ListedOffsets, err error) {
	l.persist(ctx, func() bool {
		if all, err = list(ctx, name); err != nil {
			return !brokerAway(err)
		}
		for _, p := range all[name] {
			if brokerAway(p.Err) && !noTopic(p.Err) {
				return false
			}
		}
		return true
	})
	return all, err
}

// Stable compares the last stable offset with the high watermark.
func (l *kafkaLog) Stable(ctx context.Context, topic string, partition int32) (upto int64, since time.Time, err error) {
	fail := func(err error) (int64, time.Time, error) {
		return 0, time.Time{}, fmt.Errorf("look for open transactions on %s, partition %d: %w", topic, partition, l.because(ctx, err))
	}
	stable, err := l.offsets(ctx, topic, l.adm.ListCommittedOffsets)
	if err != nil {
		return fail(err)
	}
	ends, err := l.offsets(ctx, topic, l.adm.ListEndOffsets)
	if err != nil {
		return fail(err)
	}
	upto, err = listed(stable, topic, partition)
	end, err2 := listed(ends, topic, partition)
	if err = errors.Join(err, err2); err != nil || upto >= end {
		return upto, time.Time{}, err
	}
	r, err := l.Peek(ctx, topic, partition, upto, "", eventlog.ReadUncommitted)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	for {
		records, next, err := r.Next(ctx)
		switch {
		case err != nil:
			return fail(err)
		case len(records) > 0:
			return upto, records[0].Time, nil
		case next >= end: // it has ended
			return next, time.Time{}, nil
		}
	}
}

// Kept asks the leader where the epoch of the last record ended, as KIP-320 has it: an epoch of
// which the leader knows less than was read was cut off.
func (l *kafkaLog) Kept(ctx context.Context, topic string, partition int32, offset int64, term int32) (upto int64, err error) {
	if term <= 0 || offset <= 0 {
		return offset, nil
	}
	end := int64(-1)
	l.persist(ctx, func() bool {
		var all kadm.OffsetsForLeaderEpochs
		all, err = l.adm.OffsetForLeaderEpoch(ctx, kadm.OffsetForLeaderEpochRequest{topic: {partition: term - 1}})
		if o, answered := all[topic][partition]; answered && err == nil {
			end, err = o.EndOffset, o.Err
		}
		return !brokerAway(err)
	})
	if err != nil {
		return offset, fmt.Errorf("ask for the end of leader epoch %d of %s, partition %d: %w", term-1, topic, partition, l.because(ctx, err))
	}
	if end < 0 { // the leader knows of no such epoch, nor of a later one
		return offset, nil
	}
	return min(offset, end), nil
}

// metadata asks for what the brokers know of topics.
func (l *kafkaLog) metadata(ctx context.Context, names ...string) (meta kadm.Metadata, err error) {
	l.persist(ctx, func() bool {
		meta, err = l.adm.Metadata(ctx, names...)
		return !brokerAway(err)
	})
	return meta, err
}

// brokerAway tells whether it helps to ask again: a broker did not answer, or it no longer
// leads a partition.
func brokerAway(err error) bool {
	if _, some := errors.AsType[*kadm.ShardErrors](err); some {
		return true
	}
	if _, network := errors.AsType[net.Error](err); network {
		return true
	}
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err)
}
