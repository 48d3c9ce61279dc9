package kafkalog

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// leaderTimeout is how long a question for offsets waits for partitions whose broker is away
// to get another leader: a little more than a session of the brokers lasts by default.
const leaderTimeout = 15 * time.Second

// offsets asks until all partitions answer. The client asks each partition's leader once,
// and one that was killed does not answer until the others have noticed.
func (l *kafkaLog) offsets(ctx context.Context, name string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	late := time.NewTimer(leaderTimeout)
	defer late.Stop()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		all, err := list(ctx, name)
		if !leaderless(all[name], err) {
			return all, err
		}
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
		return all, err
	}
}

// leaderless tells whether it helps to ask again: a broker did not answer, or it no longer
// leads a partition.
func leaderless(partitions map[int32]kadm.ListedOffset, err error) bool {
	if err != nil {
		_, some := errors.AsType[*kadm.ShardErrors](err)
		return some
	}
	for _, p := range partitions {
		if kerr.IsRetriable(p.Err) && !noTopic(p.Err) {
			return true
		}
	}
	return false
}
