package embedlog

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// blockingKV holds every write until it is let go.
type blockingKV struct {
	kv
	arrived chan int
	release chan struct{}
}

func (b *blockingKV) apply(ops []op, sync bool) error {
	b.arrived <- len(ops)
	<-b.release
	return b.kv.apply(ops, sync)
}

// What waits while a group is written makes one group; a caller that gives up before its
// turn writes nothing, and the others are served.
func TestGroupCommit(t *testing.T) {
	l, err := OpenMemory(Options{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.EnsureTopic(t.Context(), "x", 1); err != nil {
		t.Fatal(err)
	}
	store := &blockingKV{l.store, make(chan int), make(chan struct{})}
	l.store = store
	results := make(chan error, 10)
	publish := func(ctx context.Context, value string) {
		go func() {
			results <- l.Publish(ctx, eventlog.Record{Topic: "x", Value: []byte(value)})
		}()
	}
	publish(t.Context(), "a")
	if n := <-store.arrived; n != 1 {
		t.Fatalf("%d chunks in the first group", n)
	}
	cause := errors.New("given up")
	ctx, cancel := context.WithCancelCause(t.Context())
	publish(ctx, "b")
	waitQueued(l, 1)
	publish(t.Context(), "c")
	waitQueued(l, 2)
	publish(t.Context(), "d")
	waitQueued(l, 3)
	cancel(cause)
	if err := <-results; !errors.Is(err, cause) {
		t.Fatalf("cancelled: %v", err)
	}
	if p := mustTopic(t, l, "x").Partitions[0]; p.End != 0 {
		t.Fatalf("end %d before anything is durable", p.End)
	}
	store.release <- struct{}{}
	if n := <-store.arrived; n != 2 {
		t.Fatalf("%d chunks in the second group", n)
	}
	store.release <- struct{}{}
	for range 3 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range readAll(t, l, "x", 0) {
		got = append(got, string(r.Value))
	}
	if d := cmp.Diff([]string{"a", "c", "d"}, got); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

// An owner's commit that waits for its turn when another Own comes is refused; one that is
// being written is before the new owner's first offset.
func TestOwnDuringCommit(t *testing.T) {
	for _, waits := range []bool{true, false} {
		l, err := OpenMemory(Options{Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		old, err := l.Own(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.Append(t.Context(), [][]byte{[]byte("1")}, make([]eventlog.Type, 1), nil); err != nil {
			t.Fatal(err)
		}
		store := &blockingKV{l.store, make(chan int), make(chan struct{})}
		l.store = store
		other, committed := make(chan error, 1), make(chan error, 1)
		if waits {
			go func() { other <- l.Publish(t.Context(), eventlog.Record{Topic: eventlog.RequestsTopic("dagger")}) }()
			<-store.arrived
		}
		go func() { committed <- old.Commit(t.Context()) }()
		if waits {
			waitQueued(l, 1)
		} else {
			<-store.arrived
		}
		owned := make(chan eventlog.Owner, 1)
		go func() {
			o, err := l.Own(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			owned <- o
		}()
		if waits {
			waitQueued(l, 2)
		} else {
			waitQueued(l, 1)
		}
		store.release <- struct{}{}
		<-store.arrived
		store.release <- struct{}{}
		o := <-owned
		err = <-committed
		l.store = store.kv
		first, appendErr := o.Append(t.Context(), [][]byte{[]byte("2")}, make([]eventlog.Type, 1), nil)
		if appendErr != nil {
			t.Fatal(appendErr)
		}
		if waits && (!errors.Is(err, eventlog.ErrFenced) || first != 0) {
			t.Errorf("a commit that waited: %v, the new owner begins at %d", err, first)
		}
		if !waits && (err != nil || first != 1) {
			t.Errorf("a commit under way: %v, the new owner begins at %d", err, first)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func waitQueued(l *Log, n int) {
	for have := -1; have != n; {
		l.commits.mu.Lock()
		have = len(l.commits.queue)
		l.commits.mu.Unlock()
	}
}
