package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

// TestPeek: a peek begins where Read does, goes on to the end as that does, and gives little at
// first.
func TestPeek(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=1&replication=1")
	o := own(t, l, 0)
	var offsets []int64
	for k := range 60 {
		offsets = append(offsets, add(t, o, fmt.Sprintf(`{"v":1,"n":%d,"type":"Checkpoint","at":1,"worker":"%x"}`, k+1, incompressible(8_000))))
		commit(t, o)
	}
	topic := eventlog.EventsTopic(l.App())
	read, err := l.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Peek(t.Context(), topic, 0, offsets[30], read.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []int64
	for most := 15; len(got) < 30; most *= 3 {
		records, _, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(records) > most {
			t.Errorf("%d records of 8 kB at once, after %d", len(records), len(got))
		}
		for _, x := range records {
			got = append(got, x.Offset)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(offsets[30:]) {
		t.Errorf("peeked at %v, appended at %v", got, offsets[30:])
	}
}

// dials counts connections.
type dials struct{ n atomic.Int32 }

func (d *dials) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.n.Add(1)
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, addr)
}

// peeked is a log with n events, its events topic, and their offsets.
func peeked(t *testing.T, c *kfake.Cluster, n int, extra ...kgo.Opt) (*kafkaLog, eventlog.Topic, []int64) {
	t.Helper()
	u := &url.URL{Scheme: "kafka", Host: strings.Join(c.ListenAddrs(), ","), Path: newApp(), RawQuery: "partitions=1&replication=1"}
	l, err := open(t.Context(), u, extra...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	o := own(t, l, 0)
	var offsets []int64
	for k := range n {
		offsets = append(offsets, add(t, o, strconv.Itoa(k)))
		commit(t, o)
	}
	topic, err := l.Topic(t.Context(), eventlog.EventsTopic(l.App()))
	if err != nil {
		t.Fatal(err)
	}
	return l, topic, offsets
}

// peekAt is the first record at an offset.
func peekAt(ctx context.Context, l *kafkaLog, topic eventlog.Topic, offset int64) (int64, error) {
	r, err := l.Peek(ctx, topic.Name, 0, offset, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		if err != nil {
			return 0, err
		}
		if len(records) > 0 {
			return records[0].Offset, nil
		}
	}
}

// TestPeeksShareAConnection: a place in the log costs no connection of its own, not even when many
// are looked at at once.
func TestPeeksShareAConnection(t *testing.T) {
	var d dials
	l, topic, offsets := peeked(t, fake(t), 40, kgo.Dialer(d.dial))
	if _, err := peekAt(t.Context(), l, topic, offsets[0]); err != nil {
		t.Fatal(err)
	}
	before := d.n.Load()
	var wg sync.WaitGroup
	for _, offset := range offsets {
		wg.Go(func() {
			if got, err := peekAt(t.Context(), l, topic, offset); err != nil || got != offset {
				t.Errorf("at %d there is %d, %v", offset, got, err)
			}
		})
	}
	wg.Wait()
	if n := d.n.Load() - before; n > 0 {
		t.Errorf("%d connections for 40 places", n)
	}
}

// TestPeekWhenTheLeaderMoves: a peek goes on with the partition's next leader, and one that begins
// later finds it.
func TestPeekWhenTheLeaderMoves(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3))
	l, topic, offsets := peeked(t, c, 2)
	r, err := l.Peek(t.Context(), topic.Name, 0, offsets[0], topic.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := offsets[0]
	for next <= offsets[1] {
		if _, next, err = r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		node := (c.LeaderFor(topic.Name, 0) + 1) % 3
		if err := c.MoveTopicPartition(topic.Name, 0, node); err != nil {
			t.Fatal(err)
		}
		if got, err := peekAt(t.Context(), l, topic, offsets[1]); err != nil || got != offsets[1] {
			t.Errorf("broker %d leads now, and at %d there is %d, %v", node, offsets[1], got, err)
		}
	}
	o := own(t, l, 0)
	want := add(t, o, "later")
	commit(t, o)
	for {
		records, _, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			continue
		}
		if records[0].Offset != want {
			t.Errorf("read %d, appended %d", records[0].Offset, want)
		}
		return
	}
}

// TestPeekAfterABrokerLeft: what is remembered of a leader that the cluster no longer has is
// looked up again.
func TestPeekAfterABrokerLeft(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3))
	l, topic, offsets := peeked(t, c, 1)
	if _, err := peekAt(t.Context(), l, topic, offsets[0]); err != nil {
		t.Fatal(err)
	}
	l.topics.mu.Lock()
	known := l.topics.known[topic.Name]
	known.leaders = []leader{{node: 77, epoch: known.leaders[0].epoch}}
	l.topics.known[topic.Name] = known
	l.topics.mu.Unlock()
	if got, err := peekAt(t.Context(), l, topic, offsets[0]); err != nil || got != offsets[0] {
		t.Errorf("at %d there is %d, %v", offsets[0], got, err)
	}
}

// TestPeekCancelled: who gives up a question leaves the connection to the others.
func TestPeekCancelled(t *testing.T) {
	var d dials
	c := fake(t)
	l, topic, offsets := peeked(t, c, 2, kgo.Dialer(d.dial))
	if _, err := peekAt(t.Context(), l, topic, offsets[0]); err != nil {
		t.Fatal(err)
	}
	before := d.n.Load()
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(func() {
			close(asked)
			c.SleepControl(func() { <-release })
		})
		return nil, nil, false
	})
	why := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := peekAt(ctx, l, topic, offsets[0])
		first <- err
	}()
	<-asked
	go func() {
		got, err := peekAt(t.Context(), l, topic, offsets[1])
		if err == nil && got != offsets[1] {
			err = fmt.Errorf("at %d there is %d", offsets[1], got)
		}
		second <- err
	}()
	cancel(why)
	if err := <-first; !errors.Is(err, why) {
		t.Errorf("the first says %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if n := d.n.Load() - before; n > 0 {
		t.Errorf("%d new connections", n)
	}
}

// TestPeekOfAnotherTopic: a topic that was created again is another one, for a peek that is open
// and for one by what was known before.
func TestPeekOfAnotherTopic(t *testing.T) {
	l, topic, offsets := peeked(t, fake(t), 1)
	r, err := l.Peek(t.Context(), topic.Name, 0, offsets[0], topic.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, _, err := r.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp, err := l.adm.DeleteTopic(t.Context(), topic.Name)
	if err != nil || resp.Err != nil {
		t.Fatal(err, resp.Err)
	}
	if _, err := peekAt(t.Context(), l, topic, offsets[0]); !errors.Is(err, eventlog.ErrNoTopic) {
		t.Errorf("the topic was deleted: %v", err)
	}
	if err := l.createTopic(t.Context(), topic.Name, 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := peekAt(t.Context(), l, topic, offsets[0]); !errors.Is(err, eventlog.ErrTopicChanged) {
		t.Errorf("a peek at the topic with its old id: %v", err)
	}
	if _, _, err := r.Next(t.Context()); !errors.Is(err, eventlog.ErrTopicChanged) {
		t.Errorf("an open peek: %v", err)
	}
	any, err := l.Peek(t.Context(), topic.Name, 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatalf("a peek at whatever topic is there: %v", err)
	}
	defer any.Close()
}

// TestPeekOutsideTheLog: below the start of the log is another error than beyond its end.
func TestPeekOutsideTheLog(t *testing.T) {
	l, topic, offsets := peeked(t, fake(t), 5)
	r, err := l.Peek(t.Context(), topic.Name, 0, topic.Partitions[0].End, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.(*peek).next = offsets[1]
	if err := l.DeleteRecords(t.Context(), topic.Name, 0, offsets[3]); err != nil {
		t.Fatal(err)
	}
	if _, err := peekAt(t.Context(), l, topic, offsets[2]); !errors.Is(err, eventlog.ErrOffsetGone) {
		t.Errorf("below the start: %v", err)
	}
	if _, _, err := r.Next(t.Context()); !errors.Is(err, eventlog.ErrOffsetGone) {
		t.Errorf("an open peek below the start: %v", err)
	}
	if got, err := peekAt(t.Context(), l, topic, offsets[3]); err != nil || got != offsets[3] {
		t.Errorf("at the start there is %d, %v", got, err)
	}
	if _, err := peekAt(t.Context(), l, topic, topic.Partitions[0].End+10); err == nil || errors.Is(err, eventlog.ErrOffsetGone) || !strings.Contains(err.Error(), "beyond the end") {
		t.Errorf("beyond the end: %v", err)
	}
}

// TestPeekEnds: a peek that waits at the end of the log ends with itself and with the log.
func TestPeekEnds(t *testing.T) {
	l, topic, _ := peeked(t, fake(t), 1)
	waiting := func() (eventlog.Reader, chan error) {
		r, err := l.Peek(t.Context(), topic.Name, 0, topic.Partitions[0].End, topic.ID, eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, _, err := r.Next(t.Context())
			ended <- err
		}()
		return r, ended
	}
	r, ended := waiting()
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, eventlog.ErrClosed) {
		t.Errorf("a closed peek says %v", err)
	}
	_, ended = waiting()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, eventlog.ErrClosed) {
		t.Errorf("a peek of a closed log says %v", err)
	}
	if _, err := l.Peek(t.Context(), topic.Name, 0, 0, topic.ID, eventlog.ReadCommitted); !errors.Is(err, eventlog.ErrClosed) {
		t.Errorf("a peek at a closed log: %v", err)
	}
}
