package embedlog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// ackLimit is how long a rebalance waits for the member that loses a partition.
const ackLimit = 2 * time.Second

// groups are the consumer groups of this Log. They have no goroutine: members that wait
// move the partitions whose time has come.
type groups struct {
	log *Log

	mu     sync.Mutex
	groups map[groupID]*group
}

type groupID struct {
	name  string
	topic uint32
}

// group shares out the partitions of one topic. Guarded by groups.mu.
type group struct {
	id      groupID
	topic   *topic
	members []*member
	parts   []share
	changed chan struct{} // closed at the next change
}

// share is one partition: it goes from holder to target when the holder has let go.
type share struct {
	holder, target *member
	until          time.Time // the holder is not waited for any longer
}

// member is one membership. Guarded by groups.mu.
type member struct {
	log      *Log
	group    *group
	returned []int32 // by the last call of Assigned
	inUse    []int32 // as the last call but one returned, until it is acknowledged
	closed   bool
}

func (g *groups) init(l *Log) { g.log, g.groups = l, map[groupID]*group{} }

// Join makes another member of the group, which shares the partitions of the topic with
// the other members that joined by this Log.
func (l *Log) Join(ctx context.Context, name, topicName string) (eventlog.Member, error) {
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	t, err := l.topic(topicName)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", name, err)
	}
	l.groups.mu.Lock()
	defer l.groups.mu.Unlock()
	id := groupID{name, t.Number}
	g := l.groups.groups[id]
	if g == nil {
		g = &group{id: id, topic: t, parts: make([]share, t.Partitions), changed: make(chan struct{})}
		l.groups.groups[id] = g
	}
	m := &member{log: l, group: g}
	g.members = append(g.members, m)
	g.rebalance(l.now())
	return m, nil
}

// topicGone tells the members of a deleted topic.
func (g *groups) topicGone(t *topic) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, group := range g.groups {
		if group.topic == t {
			group.wake()
			delete(g.groups, id)
		}
	}
}

func (g *group) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// rebalance gives each member its share, moving as few partitions as it can.
func (g *group) rebalance(now time.Time) {
	if n := len(g.members); n > 0 {
		least, more := len(g.parts)/n, len(g.parts)%n
		count := map[*member]int{}
		var free []int
		for i := range g.parts {
			m := g.parts[i].target
			switch {
			case m == nil || m.closed:
			case count[m] < least:
				count[m]++
				continue
			case count[m] == least && more > 0:
				more--
				count[m]++
				continue
			}
			free = append(free, i)
		}
		for _, i := range free {
			to := g.members[0]
			for _, m := range g.members[1:] {
				if count[m] < count[to] {
					to = m
				}
			}
			count[to]++
			g.aim(i, to, now)
		}
	} else {
		for i := range g.parts {
			g.aim(i, nil, now)
		}
	}
	g.settle(now)
	g.wake()
}

func (g *group) aim(i int, to *member, now time.Time) {
	s := &g.parts[i]
	if s.holder == s.target { // its holder begins to lose it
		s.until = now.Add(ackLimit)
	}
	s.target = to
}

// settle gives partitions to their targets where the holder has let go, or had its time.
func (g *group) settle(now time.Time) {
	moved := false
	for i := range g.parts {
		s := &g.parts[i]
		if s.holder == s.target {
			continue
		}
		if h := s.holder; h == nil || h.closed || !h.uses(int32(i)) || !now.Before(s.until) {
			s.holder = s.target
			moved = true
		}
	}
	if moved {
		g.wake()
	}
}

func (m *member) uses(p int32) bool {
	return slices.Contains(m.inUse, p) || slices.Contains(m.returned, p)
}

// view is what a member may use.
func (g *group) view(m *member) []int32 {
	var v []int32
	for i := range g.parts {
		if g.parts[i].holder == m && g.parts[i].target == m {
			v = append(v, int32(i))
		}
	}
	return v
}

// soonest is when settle has to look again, zero when nothing is under way.
func (g *group) soonest() (t time.Time) {
	for i := range g.parts {
		s := &g.parts[i]
		if s.holder != s.target && (t.IsZero() || s.until.Before(t)) {
			t = s.until
		}
	}
	return t
}

// Assigned waits for another assignment than the last one; a new member has none.
func (m *member) Assigned(ctx context.Context) ([]int32, error) {
	l, g := m.log, m.group
	l.groups.mu.Lock()
	defer l.groups.mu.Unlock()
	m.inUse = m.returned
	for {
		if err := l.check(ctx); err != nil {
			return nil, err
		}
		if m.closed {
			return nil, eventlog.ErrClosed
		}
		if g.topic.isDeleted() {
			return nil, fmt.Errorf("%w: %s", eventlog.ErrTopicChanged, g.topic.name)
		}
		now := l.now()
		g.settle(now)
		if v := g.view(m); !slices.Equal(v, m.returned) {
			m.returned = v
			return slices.Clone(v), nil
		}
		changed, soonest := g.changed, g.soonest()
		l.groups.mu.Unlock()
		var due <-chan time.Time
		var timer *time.Timer
		if !soonest.IsZero() {
			timer = time.NewTimer(soonest.Sub(now))
			due = timer.C
		}
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
		case <-l.closing:
		}
		if timer != nil {
			timer.Stop()
		}
		l.groups.mu.Lock()
	}
}

// Commit stores an offset while the member holds the partition.
func (m *member) Commit(ctx context.Context, partition int32, offset int64) error {
	if err := m.enter(ctx, partition); err != nil {
		return err
	}
	defer m.log.leave()
	g := m.group
	m.log.groups.mu.Lock() // a later holder's offset must not be overwritten
	defer m.log.groups.mu.Unlock()
	if m.closed || g.parts[partition].holder != m || g.topic.isDeleted() {
		return fmt.Errorf("commit offset of %s/%d: %w %s", g.topic.name, partition, eventlog.ErrNotMember, g.id.name)
	}
	row := op{opSet, groupKey(g.topic.Number, partition, g.id.name), appendInt(offset)}
	if err := m.log.store.apply([]op{row}, false); err != nil {
		return fmt.Errorf("commit offset of %s/%d: %w", g.topic.name, partition, err)
	}
	return nil
}

// Committed is the stored offset, or -1.
func (m *member) Committed(ctx context.Context, partition int32) (int64, error) {
	if err := m.enter(ctx, partition); err != nil {
		return 0, err
	}
	defer m.log.leave()
	g := m.group
	v, err := m.log.store.get(groupKey(g.topic.Number, partition, g.id.name))
	if err != nil {
		return 0, fmt.Errorf("read offset of %s/%d: %w", g.topic.name, partition, err)
	}
	if v == nil {
		return -1, nil
	}
	return readInt(v), nil
}

func (m *member) enter(ctx context.Context, partition int32) error {
	if err := m.log.check(ctx); err != nil {
		return err
	}
	if _, err := m.group.topic.partition(partition); err != nil {
		return err
	}
	return m.log.enter()
}

// Close leaves the group and wakes the member's own Assigned.
func (m *member) Close() error {
	m.log.groups.mu.Lock()
	defer m.log.groups.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	g := m.group
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
	g.rebalance(m.log.now())
	return nil
}
