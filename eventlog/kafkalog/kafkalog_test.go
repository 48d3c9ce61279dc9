package kafkalog

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokers are the real ones that KAFKA_BROKERS names, else a fake one.
func brokers(t testing.TB) (addrs string, real bool) {
	t.Helper()
	if a := os.Getenv("KAFKA_BROKERS"); a != "" {
		return a, true
	}
	c := fake(t)
	return strings.Join(c.ListenAddrs(), ","), false
}

func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// newApp is an application name that no other test has.
func newApp() string { return "t-" + strings.ToLower(rand.Text()[:10]) }

func openLog(t testing.TB, addrs, app, params string) *kafkaLog {
	t.Helper()
	u, err := url.Parse("kafka://x/" + app + "?" + params)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = addrs
	l, err := open(t.Context(), u)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close log: %v", err)
		}
	})
	return l
}

func own(t testing.TB, l eventlog.Log, p int32) eventlog.Owner {
	t.Helper()
	o, err := l.Own(t.Context(), p)
	if err != nil {
		t.Fatalf("own: %v", err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func add(t testing.TB, o eventlog.Owner, events ...string) int64 {
	t.Helper()
	first, err := o.Append(t.Context(), raw(events...), typesOf(events), nil)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return first
}

func raw(events ...string) (out [][]byte) {
	for _, e := range events {
		out = append(out, []byte(e))
	}
	return out
}

func typesOf(events []string) []eventlog.Type {
	return slices.Repeat([]eventlog.Type{eventlog.Checkpoint}, len(events))
}

func commit(t testing.TB, o eventlog.Owner) {
	t.Helper()
	if err := o.Commit(t.Context()); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// values reads n values of a partition from its start.
func values(t testing.TB, l eventlog.Log, topic string, p int32, iso eventlog.Isolation, n int) []string {
	t.Helper()
	r, err := l.Read(t.Context(), topic, p, 0, "", iso)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []string
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for len(out) < n {
		records, _, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("next after %d of %d records: %v", len(out), n, err)
		}
		for _, rec := range records {
			out = append(out, string(rec.Value))
		}
	}
	return out
}

func TestAppendCommitRead(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=2")
	if err := l.EnsureTopic(t.Context(), l.App()+".out", 3); err != nil {
		t.Fatal(err)
	}
	o := own(t, l, 1)
	first, err := o.Append(t.Context(), raw("a", "b"), typesOf([]string{"a", "b"}), []eventlog.Record{
		{Topic: l.App() + ".out", Partition: 2, Value: []byte("m")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if first != 0 {
		t.Errorf("first event has offset %d, not 0", first)
	}
	commit(t, o)
	add(t, o, "gone")
	if err := o.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, o, "c")
	commit(t, o)
	got := values(t, l, eventlog.EventsTopic(l.App()), 1, eventlog.ReadCommitted, 3)
	if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("committed events are %q, not %q", got, want)
	}
	if got := values(t, l, l.App()+".out", 2, eventlog.ReadCommitted, 1); got[0] != "m" {
		t.Errorf("the message is %q", got)
	}
}

func TestFencedOwner(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=1")
	old := own(t, l, 0)
	add(t, old, "1")
	commit(t, old)
	add(t, old, "lost")
	owner := own(t, l, 0)
	add(t, owner, "2")
	commit(t, owner)
	if err := old.Commit(t.Context()); !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("late commit: %v, not ErrFenced", err)
	}
	if _, err := old.Append(t.Context(), raw("x"), typesOf([]string{"x"}), nil); !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("late append: %v, not ErrFenced", err)
	}
	add(t, owner, "3")
	commit(t, owner)
	got := values(t, l, eventlog.EventsTopic(l.App()), 0, eventlog.ReadCommitted, 3)
	if want := []string{"1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("events are %q, not %q", got, want)
	}
}

func TestPublishAndMember(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=4")
	topic := eventlog.RequestsTopic(l.App())
	if err := l.Publish(t.Context(), eventlog.Record{Topic: topic, Partition: -1, Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	p := eventlog.PartitionOfKey("k", 4)
	if got := values(t, l, topic, p, eventlog.ReadUncommitted, 1); got[0] != "v" {
		t.Errorf("read %q", got)
	}
	a, err := l.Join(t.Context(), l.App(), topic)
	if err != nil {
		t.Fatal(err)
	}
	all, err := a.Assigned(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("the only member has %v, %v", all, err)
	}
	if err := a.Commit(t.Context(), 2, 17); err != nil {
		t.Fatal(err)
	}
	if at, err := a.Committed(t.Context(), 2); at != 17 || err != nil {
		t.Errorf("committed %d, %v", at, err)
	}
	if at, err := a.Committed(t.Context(), 1); at != -1 || err != nil {
		t.Errorf("committed %d, %v, not -1", at, err)
	}
	b, err := l.Join(t.Context(), l.App(), topic)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for len(all) != 2 {
		if all, err = a.Assigned(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan error)
	go func() { _, err := a.Assigned(ctx); waits <- err }() // the change is in force
	var half []int32
	for len(half) != 2 {
		if half, err = b.Assigned(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("rebalance took %v", time.Since(start))
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("Assigned: %v", err)
	}
	if err := a.Commit(t.Context(), half[0], 3); !errors.Is(err, eventlog.ErrNotMember) {
		t.Errorf("commit for another's partition: %v, not ErrNotMember", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for len(all) != 4 {
		if all, err = a.Assigned(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
