package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

const (
	// A member that is silent for sessionTimeout loses its partitions.
	sessionTimeout    = 8 * time.Second
	heartbeatInterval = 500 * time.Millisecond
	// A rebalance waits for letGo until the member no longer uses what it must give up.
	letGo        = 2 * time.Second
	leaveTimeout = 3 * time.Second
)

// member is a group consumer that consumes nothing: it only gets partitions assigned.
type member struct {
	log          *kafkaLog
	cl           *kgo.Client
	group, topic string
	stop         context.CancelFunc
	polling      sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed at each change
	owned    map[int32]bool
	told     map[int32]bool // what Assigned returned last
	version  int            // of owned
	toldAt   int            // version that Assigned returned last
	inForce  int            // version that the caller acts on
	failed   error
	isClosed bool
}

func (l *kafkaLog) Join(ctx context.Context, group, topic string) (eventlog.Member, error) {
	if _, err := l.topics.read(ctx, topic); err != nil {
		return nil, fmt.Errorf("join group %s: %w", group, err)
	}
	m := &member{log: l, group: group, topic: topic, changed: make(chan struct{}), owned: map[int32]bool{}, told: map[int32]bool{}}
	cl, err := l.newClient(
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.RebalanceTimeout(30*time.Second),
		kgo.FetchMaxWait(250*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, ps map[string][]int32) { m.assigned(ps[topic]) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, ps map[string][]int32) { m.revoked(ctx, ps[topic]) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, ps map[string][]int32) { m.remove(ps[topic]) }),
	)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", group, err)
	}
	cl.PauseFetchTopics(topic)
	m.cl = cl
	var polling context.Context
	polling, m.stop = context.WithCancel(cl.Context())
	m.polling.Go(func() { m.poll(polling) })
	l.closing(cl, func() { _ = m.Close() })
	return m, nil
}

// poll learns of errors that the group does not get over by itself.
func (m *member) poll(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := m.cl.PollFetches(ctx)
		if fetches.IsClientClosed() {
			break
		}
		for _, e := range fetches.Errors() {
			for _, fatal := range []error{kerr.GroupAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.InvalidSessionTimeout, kerr.InconsistentGroupProtocol} {
				if errors.Is(e.Err, fatal) {
					m.fail(m.denied(e.Err))
				}
			}
		}
	}
	m.fail(eventlog.ErrClosed)
}

func (m *member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		m.failed = err
	}
	m.wake()
}

// denied names the right that is missing.
func (m *member) denied(err error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return denied(err, "Read", "topic", m.topic)
	}
	return denied(err, "Read", "group", m.group)
}

// wake tells all that wait of a change. The lock is held.
func (m *member) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *member) assigned(ps []int32) {
	if len(ps) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range ps {
		m.owned[p] = true
	}
	m.version++
	m.wake()
}

func (m *member) remove(ps []int32) (version int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(ps) == 0 {
		return 0
	}
	for _, p := range ps {
		delete(m.owned, p)
	}
	m.version++
	m.wake()
	return m.version
}

// revoked gives the caller of Assigned time to stop using what is taken away.
func (m *member) revoked(ctx context.Context, ps []int32) {
	version := m.remove(ps)
	late := time.NewTimer(letGo)
	defer late.Stop()
	for {
		m.mu.Lock()
		done, changed := m.inForce >= version || m.isClosed, m.changed
		m.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (m *member) Assigned(ctx context.Context) ([]int32, error) {
	m.mu.Lock()
	m.inForce = m.toldAt
	m.wake()
	for {
		if m.isClosed || m.failed != nil {
			defer m.mu.Unlock()
			if m.isClosed {
				return nil, eventlog.ErrClosed
			}
			return nil, fmt.Errorf("group %s: %w", m.group, m.failed)
		}
		if !maps.Equal(m.owned, m.told) {
			defer m.mu.Unlock()
			m.told, m.toldAt = maps.Clone(m.owned), m.version
			return slices.Sorted(maps.Keys(m.owned)), nil
		}
		m.toldAt, m.inForce = m.version, m.version // nothing differs
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
		m.mu.Lock()
	}
}

// Commit is refused by the brokers only when the membership ended; a partition that moved
// to another member is known from the assignment.
func (m *member) Commit(ctx context.Context, partition int32, offset int64) error {
	return m.CommitTerm(ctx, partition, offset, 0)
}

// CommitTerm commits the leader epoch with the offset, as Kafka's consumers do.
func (m *member) CommitTerm(ctx context.Context, partition int32, offset int64, term int32) error {
	m.mu.Lock()
	owned, closed := m.owned[partition], m.isClosed
	m.mu.Unlock()
	fail := func(err error) error {
		return fmt.Errorf("commit offset %d of %s, partition %d, in group %s: %w", offset, m.topic, partition, m.group, err)
	}
	if closed {
		return fail(eventlog.ErrClosed)
	}
	if !owned {
		return fail(eventlog.ErrNotMember)
	}
	var err error
	m.log.persist(ctx, func() (final bool) { // the group's coordinator may be the broker that has died
		err = m.commit(ctx, partition, offset, term)
		return !brokerAway(err) || membershipLost(err) || !m.owns(partition)
	})
	switch {
	case membershipLost(err), err != nil && !m.owns(partition):
		return fail(fmt.Errorf("%w: %w", eventlog.ErrNotMember, err))
	case err != nil:
		return fail(m.denied(m.log.because(ctx, err)))
	}
	return nil
}

func (m *member) owns(partition int32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owned[partition]
}

func (m *member) commit(ctx context.Context, partition int32, offset int64, term int32) (err error) {
	m.cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{m.topic: {partition: {Epoch: term - 1, Offset: offset}}},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, failed error) {
			if err = failed; err != nil {
				return
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
				}
			}
		})
	return err
}

// membershipLost tells whether the brokers count this member out.
func membershipLost(err error) bool {
	for _, lost := range []error{
		kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.FencedInstanceID, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

func (m *member) Committed(ctx context.Context, partition int32) (int64, error) {
	var resp kadm.OffsetResponses
	var err error
	m.log.persist(ctx, func() bool { // the group's coordinator may be the broker that has died
		resp, err = m.log.adm.FetchOffsetsForTopics(ctx, m.group, m.topic)
		if o, ok := resp.Lookup(m.topic, partition); err == nil && ok {
			return !brokerAway(o.Err)
		}
		return !brokerAway(err)
	})
	if err == nil {
		if o, ok := resp.Lookup(m.topic, partition); ok {
			if o.Err == nil {
				return o.At, m.kept(ctx, partition, o.At, o.LeaderEpoch+1)
			}
			err = o.Err
		} else {
			return -1, nil
		}
	}
	return -1, fmt.Errorf("fetch the offset of %s, partition %d, in group %s: %w", m.topic, partition, m.group, m.denied(m.log.because(ctx, err)))
}

// kept is ErrTruncated when records below the committed offset were lost.
func (m *member) kept(ctx context.Context, partition int32, offset int64, term int32) error {
	upto, err := m.log.Kept(ctx, m.topic, partition, offset, term)
	if err == nil && upto < offset {
		err = fmt.Errorf("%w: %s, partition %d, from offset %d to the committed %d, by an unclean leader election or disks that lost data", eventlog.ErrTruncated, m.topic, partition, upto, offset)
	}
	return err
}

func (m *member) Close() error {
	m.mu.Lock()
	if m.isClosed {
		m.mu.Unlock()
		m.polling.Wait()
		return nil
	}
	m.isClosed = true
	m.wake()
	m.mu.Unlock()
	// No caller's context is left. When the brokers are away, the session ends by itself,
	// so that it is no error.
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_ = m.cl.LeaveGroupContext(ctx)
	m.stop()
	m.log.drop(m.cl)
	m.polling.Wait()
	return nil
}
