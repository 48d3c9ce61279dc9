package eventlogtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

var groupCases = []contract{
	{"group/share", "The members of a group share out the partitions: each has one owner, 1 to 2 to 1 members.", groupShare},
	{"group/commit", "Commit stores a position that any member reads; of a partition that another may have, it is ErrNotMember.", groupCommit},
	{"group/acknowledge", "A partition goes to another member when the one that loses it has acknowledged, or after two seconds.", groupAcknowledge},
	{"group/cancel", "Cancelling the context ends Assigned with its cause; Close of the member ends it with ErrClosed.", groupCancel},
	{"group/apart", "Groups do not touch each other: each has all partitions and its own positions.", groupApart},
}

// follower calls Assigned again and again, as a worker does.
type follower struct {
	eventlog.Member
	mu   sync.Mutex
	has  []int32
	done chan struct{}
	err  error
}

func (s *suite) follow(l eventlog.Log, group, topic string) *follower {
	s.Helper()
	m, err := l.Join(s.ctx, s.h.App+"-"+group, topic)
	s.ok(err, "join group")
	f := &follower{Member: m, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for {
			has, err := m.Assigned(s.ctx)
			f.mu.Lock()
			f.has, f.err = slices.Clone(has), err
			f.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	s.Cleanup(f.leave)
	return f
}

func (f *follower) leave() {
	_ = f.Close()
	<-f.done
}

func (f *follower) assigned() []int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.has)
}

// shared waits until the followers have all partitions among them, as equally as can be.
func (s *suite) shared(partitions int, followers ...*follower) {
	s.Helper()
	s.until("the partitions are shared out", func() (bool, error) {
		var all []int32
		fair := true
		for _, f := range followers {
			has := f.assigned()
			fair = fair && len(has) >= partitions/len(followers)
			all = append(all, has...)
		}
		slices.Sort(all)
		return fair && len(all) == partitions && len(slices.Compact(all)) == partitions, nil
	})
}

func groupShare(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "share", 5)
	a := s.follow(l, "g", topic)
	s.shared(5, a)
	b := s.follow(l, "g", topic)
	s.shared(5, a, b)
	c := s.follow(l, "g", topic)
	s.shared(5, a, b, c)
	a.leave()
	s.shared(5, b, c)
	b.leave()
	s.shared(5, c)
}

func groupCommit(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "commit", 4)
	a := s.follow(l, "g", topic)
	s.shared(4, a)
	s.ok(a.Commit(s.ctx, 2, 7), "commit")
	b := s.follow(l, "g", topic)
	s.shared(4, a, b)
	mine, yours := a.assigned(), b.assigned()
	s.retry("commit of a held partition", func() error { return a.Commit(s.ctx, mine[0], 10) })
	s.retry("commit of a held partition", func() error { return b.Commit(s.ctx, yours[0], 20) })
	s.is(a.Commit(s.ctx, yours[0], 99), eventlog.ErrNotMember, "commit of a partition that another has")
	for _, m := range []*follower{a, b} {
		for p, want := range map[int32]int64{mine[0]: 10, yours[0]: 20} {
			got, err := m.Committed(s.ctx, p)
			s.ok(err, "committed position")
			s.equal(got, want, "position")
		}
	}
	b.leave()
	if err := b.Commit(s.ctx, yours[0], 99); !errors.Is(err, eventlog.ErrNotMember) && !errors.Is(err, eventlog.ErrClosed) {
		s.Errorf("commit of a member that left: %v", err)
	}
	s.shared(4, a)
	s.retry("commit of what the other had", func() error { return a.Commit(s.ctx, yours[0], 21) })
	got, err := a.Committed(s.ctx, yours[0])
	s.ok(err, "committed position")
	s.equal(got, int64(21), "position")
}

// retry goes on while a rebalance may still be under way.
func (s *suite) retry(what string, f func() error) {
	s.Helper()
	s.until(what, func() (bool, error) { err := f(); return err == nil, err })
}

func groupAcknowledge(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "ack", 2)
	a, err := l.Join(s.ctx, s.h.App+"-g", topic)
	s.ok(err, "join")
	defer a.Close()
	has, err := a.Assigned(s.ctx)
	for err == nil && len(has) < 2 {
		has, err = a.Assigned(s.ctx)
	}
	s.ok(err, "first assignment")

	// b comes; a is told that it loses one, and uses it for a while before it says so.
	told := make(chan []int32, 1)
	go func() {
		has, err := a.Assigned(s.ctx)
		if err != nil {
			s.Errorf("assigned: %v", err)
		}
		told <- has
	}()
	b := s.follow(l, "g", topic)
	if left := <-told; len(left) > 1 {
		s.Fatalf("a is left with %v", left)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, 300*time.Millisecond)
	defer cancel()
	for ctx.Err() == nil {
		if got := b.assigned(); len(got) > 0 && time.Since(start) < 300*time.Millisecond {
			s.Fatalf("b has %v although a has not let go", got)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	// a never acknowledges: after the limit b gets its share all the same.
	s.until("b has a partition", func() (bool, error) { return len(b.assigned()) > 0, nil })
}

func groupCancel(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "cancel", 1)
	m, err := l.Join(s.ctx, s.h.App+"-g", topic)
	s.ok(err, "join")
	if _, err := m.Assigned(s.ctx); err != nil {
		s.Fatal(err)
	}
	cause := errors.New("the suite's cause")
	ctx, cancel := context.WithCancelCause(s.ctx)
	result := make(chan error, 1)
	go func() { _, err := m.Assigned(ctx); result <- err }()
	cancel(cause)
	s.is(<-result, cause, "a cancelled Assigned")
	go func() {
		for {
			if _, err := m.Assigned(s.ctx); err != nil {
				result <- err
				return
			}
		}
	}()
	s.ok(m.Close(), "close the member")
	s.is(<-result, eventlog.ErrClosed, "Assigned of a closed member")
	s.ok(m.Close(), "close the member twice")
	_, err = l.Join(s.ctx, s.h.App+"-g", s.h.App+"-missing")
	s.is(err, eventlog.ErrNoTopic, "join for a missing topic")
}

func groupApart(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "apart", 2)
	a, b := s.follow(l, "g1", topic), s.follow(l, "g2", topic)
	s.shared(2, a)
	s.shared(2, b)
	s.retry("commit", func() error { return a.Commit(s.ctx, 0, 5) })
	got, err := b.Committed(s.ctx, 0)
	s.ok(err, "committed position")
	s.equal(got, int64(-1), "position of the other group")
}
