package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// assigning is a log whose group assigns what a test says: each Join has the next list of
// assignments, and an error behind it, unless it is the last.
type assigning struct {
	eventlog.Log
	joins [][][]int32
	next  atomic.Int32
}

func (l *assigning) Join(ctx context.Context, group, topic string) (eventlog.Member, error) {
	if !strings.HasSuffix(group, ".owners") {
		return l.Log.Join(ctx, group, topic)
	}
	k := int(l.next.Add(1)) - 1
	return &assignedMember{to: l.joins[k], last: k == len(l.joins)-1}, nil
}

type assignedMember struct {
	to   [][]int32
	last bool
}

func (m *assignedMember) Assigned(ctx context.Context) ([]int32, error) {
	switch {
	case len(m.to) > 0:
		a := m.to[0]
		m.to = m.to[1:]
		return a, nil
	case !m.last:
		time.Sleep(time.Second)
		return nil, errors.New("the right to read the group was withdrawn")
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (*assignedMember) Commit(context.Context, int32, int64) error      { return nil }
func (*assignedMember) Committed(context.Context, int32) (int64, error) { return 0, nil }
func (*assignedMember) Close() error                                    { return nil }

func runAssigned(t *testing.T, joins ...[][]int32) *Engine {
	t.Helper()
	e, err := New(t.Context(), Config{Log: &assigning{Log: memLog(t), joins: joins}, Store: memStore(t), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func owned(e *Engine) (l []int32) {
	for _, p := range e.Partitions() {
		if p.Ready {
			l = append(l, p.Partition)
		}
	}
	return l
}

// TestNothingLeftToAssign: a worker that had to join again, and finds that the others have all
// partitions now, lets go of those that it had.
func TestNothingLeftToAssign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := runAssigned(t, [][]int32{{0, 1, 2, 3}}, nil)
		time.Sleep(500 * time.Millisecond)
		if l := owned(e); len(l) != 4 {
			t.Errorf("it owns %v", l)
		}
		time.Sleep(2 * assignedAfter)
		if l := e.Partitions(); len(l) > 0 {
			t.Errorf("the group gives it nothing, and it has %+v", l)
		}
	})
}

// TestPartitionsAddedToRequests: what somebody adds to the topic is no partition of the
// application; a problem says that nobody reads it.
func TestPartitionsAddedToRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := runAssigned(t, [][]int32{{0, 1, 2, 3}, {0, 1, 2, 3, 4, 5}})
		time.Sleep(5 * time.Second)
		if l := owned(e); !slices.Equal(l, []int32{0, 1, 2, 3}) {
			t.Errorf("it owns %v", l)
		}
		if p := e.Problems(); len(p) != 1 || !strings.Contains(p[0], "more than the 4") {
			t.Errorf("problems: %q", p)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.runners) != 4 {
			t.Errorf("%d owners run", len(e.runners))
		}
	})
}

// TestAssigned follows a member through three assignments: what goes is told why and waited for,
// what stays goes on, what is new starts once.
func TestAssigned(t *testing.T) {
	var mu sync.Mutex
	var said []string
	say := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, s)
	}
	name := func(p int32) string { return string(rune('a' + p)) }
	began := make(chan struct{}, 10)
	a := assigned{
		begin: func(p int32) func(context.Context) {
			say("begin " + name(p))
			return func(ctx context.Context) {
				began <- struct{}{}
				<-ctx.Done()
				if errors.Is(context.Cause(ctx), ErrPartitionLost) {
					say("lost " + name(p))
				} else if errors.Is(context.Cause(ctx), ErrShutdown) {
					say("shut down " + name(p))
				}
			}
		},
		ended: func(p int32, _ error) { say("ended " + name(p)) },
	}
	for _, step := range []struct {
		partitions []int32
		want       []string
	}{
		{[]int32{0, 1}, []string{"begin a", "begin b"}},
		{[]int32{1, 2, 2}, []string{"begin c", "ended a", "lost a"}},
		{[]int32{2, 1}, nil},
		{nil, []string{"ended b", "ended c", "lost b", "lost c"}},
		{[]int32{3}, []string{"begin d"}},
	} {
		said = nil
		a.become(t.Context(), step.partitions)
		mu.Lock()
		slices.Sort(said)
		if !slices.Equal(said, step.want) {
			t.Errorf("become(%v): %q, want %q", step.partitions, said, step.want)
		}
		mu.Unlock()
	}
	for range 4 {
		<-began
	}
	said = nil
	a.close()
	slices.Sort(said)
	if want := []string{"ended d", "shut down d"}; !slices.Equal(said, want) {
		t.Errorf("close: %q, want %q", said, want)
	}
	a.close()
}
