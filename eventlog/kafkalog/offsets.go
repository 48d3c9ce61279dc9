package kafkalog

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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
