package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

// TestPublishWhileOnePartitionIsAway: a partition without enough replicas keeps only the calls
// for it, in their order, and what nobody waits for any more is not kept at all.
func TestPublishWhileOnePartitionIsAway(t *testing.T) {
	c := fake(t)
	l := openLog(t, strings.Join(c.ListenAddrs(), ","), newApp(), "partitions=3")
	name := eventlog.RequestsTopic(l.App())
	publish := func(ctx context.Context, partition int32, value string) error {
		return l.Publish(ctx, eventlog.Record{Topic: name, Partition: partition, Value: []byte(value)})
	}
	for p := range int32(3) {
		if err := publish(t.Context(), p, "before"); err != nil {
			t.Fatal(err)
		}
	}
	until := l.shared.until
	until(func() bool { return !l.shared.running }) // the loop that served those before has ended
	away := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: name, Partitions: []int32{0}, Err: kerr.NotEnoughReplicas, Count: -1})
	var calls sync.WaitGroup
	want := []string{"before"}
	for n := range 5 {
		value := fmt.Sprint(n)
		want = append(want, value)
		calls.Go(func() {
			if err := publish(t.Context(), 0, value); err != nil {
				t.Errorf("the %s. call for the partition that was away: %v", value, err)
			}
		})
		// One after the other: the first is on its way, alone, and the others wait behind it.
		until(func() bool { return len(l.shared.waiting) == n && (n > 0 || l.shared.running || l.shared.left > 0) })
	}
	for p := range int32(3) {
		if p == 0 {
			continue
		}
		for range 20 {
			if err := publish(t.Context(), p, "meanwhile"); err != nil {
				t.Fatalf("partition %d, while 0 is away: %v", p, err)
			}
		}
	}
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := publish(ctx, 0, "not waited for"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call that does not wait: %v", err)
		}
		cancel()
	}
	l.shared.mu.Lock()
	waiting := len(l.shared.waiting)
	l.shared.mu.Unlock()
	if waiting > 5 {
		t.Errorf("%d calls wait, of which 5 have somebody who waits", waiting)
	}
	away.Remove()
	calls.Wait()
	got := values(t, l, name, 0, eventlog.ReadUncommitted, len(want))
	if !slices.Equal(got, want) {
		t.Errorf("the partition that was away has %q, want %q", got, want)
	}
	if err := publish(t.Context(), 0, "after"); err != nil {
		t.Error(err)
	}
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	if l.shared.left > 0 || len(l.shared.held) > 0 {
		t.Errorf("%d batches are left, %v held", l.shared.left, l.shared.held)
	}
}

// until waits for what the producer says of itself under its lock.
func (p *sharedProducer) until(is func() bool) {
	for done := false; !done; runtime.Gosched() {
		p.mu.Lock()
		done = is()
		p.mu.Unlock()
	}
}

// TestPublishBeforeItsClientKnowsTheTopic: a client that learns of a topic when it has the calls
// for it writes to their records by itself; with -race nobody else looks at them.
func TestPublishBeforeItsClientKnowsTheTopic(t *testing.T) {
	c := fake(t)
	l := openLog(t, strings.Join(c.ListenAddrs(), ","), newApp(), "partitions=3")
	name := eventlog.RequestsTopic(l.App())
	publish := func(value string) error {
		return l.Publish(t.Context(), eventlog.Record{Topic: name, Partition: 2, Value: []byte(value)})
	}
	if err := publish("before"); err != nil {
		t.Fatal(err)
	}
	l.shared.until(func() bool { return !l.shared.running })
	old := l.shared.cl
	l.shared.replace(old) // the next call has a new client
	l.drop(old)
	release := make(chan struct{})
	c.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		<-release
		return nil, nil, false
	})
	away := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: name, Partitions: []int32{2}, Err: kerr.NotEnoughReplicas, Count: -1})
	said := make(chan error, 1)
	go func() { said <- publish("late") }()
	l.shared.until(func() bool { return l.shared.cl != nil && l.shared.cl.BufferedProduceRecords() == 1 })
	close(release)
	l.shared.until(func() bool { return l.shared.left == 1 })
	away.Remove()
	if err := <-said; err != nil {
		t.Error(err)
	}
	if got := values(t, l, name, 2, eventlog.ReadUncommitted, 2); !slices.Equal(got, []string{"before", "late"}) {
		t.Errorf("the partition has %q", got)
	}
}
