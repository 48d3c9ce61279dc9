package kafkalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

// cutter makes connections that lose the reply of chosen requests: the brokers do what they
// were asked for, the connection ends, and the client never learns of it.
type cutter struct {
	key  atomic.Int32 // of the next request to lose; -1 = none
	lost atomic.Int32
	then func() // when a reply is lost
}

func newCutter() *cutter {
	c := &cutter{}
	c.key.Store(-1)
	return c
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	return &cutConn{Conn: conn, cutter: c}, err
}

type cutConn struct {
	net.Conn
	cutter *cutter
	cut    atomic.Bool
}

func (c *cutConn) Write(p []byte) (int, error) {
	if len(p) >= 6 {
		key := int32(binary.BigEndian.Uint16(p[4:]))
		if c.cutter.key.CompareAndSwap(key, -1) {
			c.cut.Store(true)
		}
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.cut.Load() {
		c.cutter.lost.Add(1)
		if c.cutter.then != nil {
			c.cutter.then()
		}
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func openCut(t *testing.T, addrs string, partitions int) (*kafkaLog, *cutter) {
	t.Helper()
	c := newCutter()
	l, err := open(t.Context(), appURL(addrs, newApp(), fmt.Sprintf("partitions=%d", partitions)), kgo.Dialer(c.dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, c
}

// barrier owns partition 0 anew and returns all committed events before its own.
func barrier(t *testing.T, l eventlog.Log) []string {
	t.Helper()
	o := own(t, l, 0)
	at := add(t, o, "barrier")
	commit(t, o)
	r, err := l.Read(t.Context(), eventlog.EventsTopic(l.App()), 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var events []string
	for {
		records, next, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			if rec.Offset < at {
				events = append(events, string(rec.Value))
			}
		}
		if next > at {
			return events
		}
	}
}

func TestLostReplies(t *testing.T) {
	addrs, _ := brokers(t)
	t.Run("produce of an owner", func(t *testing.T) {
		l, c := openCut(t, addrs, 1)
		o := own(t, l, 0)
		add(t, o, "0")
		commit(t, o)
		c.key.Store(int32(kmsg.Produce))
		_, err := o.Append(t.Context(), raw("1"), typesOf([]string{"1"}), nil)
		want := []string{"0"}
		if err == nil {
			commit(t, o)
			want = append(want, "1")
		}
		t.Logf("append: %v", err)
		if got := barrier(t, l); !slices.Equal(got, want) || c.lost.Load() != 1 {
			t.Errorf("events %q, not %q, %d replies lost", got, want, c.lost.Load())
		}
	})
	t.Run("commit", func(t *testing.T) {
		l, c := openCut(t, addrs, 1)
		o := own(t, l, 0)
		add(t, o, "0")
		commit(t, o)
		add(t, o, "1")
		c.key.Store(int32(kmsg.EndTxn))
		err := o.Commit(t.Context())
		t.Logf("commit: %v", err)
		if errors.Is(err, eventlog.ErrFenced) {
			t.Errorf("nobody fenced it: %v", err)
		}
		got := barrier(t, l)
		if committed := slices.Equal(got, []string{"0", "1"}); c.lost.Load() != 1 || !committed && (err == nil || !slices.Equal(got, []string{"0"})) {
			t.Errorf("events %q after commit: %v", got, err)
		}
	})
	t.Run("commit, then fenced", func(t *testing.T) {
		l, c := openCut(t, addrs, 1)
		o := own(t, l, 0)
		add(t, o, "0")
		c.then = func() {
			if _, err := l.Own(context.WithoutCancel(t.Context()), 0); err != nil {
				t.Error(err)
			}
		}
		c.key.Store(int32(kmsg.EndTxn))
		err := o.Commit(t.Context())
		t.Logf("commit: %v", err)
		if err == nil || errors.Is(err, eventlog.ErrFenced) {
			t.Errorf("commit: %v; it is committed, so that only an unknown outcome is true", err)
		}
		if got := barrier(t, l); !slices.Equal(got, []string{"0"}) {
			t.Errorf("events %q", got)
		}
	})
	t.Run("publish", func(t *testing.T) {
		l, c := openCut(t, addrs, 1)
		topic := eventlog.RequestsTopic(l.App())
		for i := range 5 {
			if i == 2 {
				c.key.Store(int32(kmsg.Produce))
			}
			if err := l.Publish(t.Context(), eventlog.Record{Topic: topic, Value: []byte{byte('0' + i)}}); err != nil {
				t.Fatal(err)
			}
		}
		got := values(t, l, topic, 0, eventlog.ReadUncommitted, 5)
		if s := strings.Join(got, ""); s != "01234" || c.lost.Load() != 1 {
			t.Errorf("read %q, %d replies lost", s, c.lost.Load())
		}
	})
}

// TestConcurrentTransactions: what a broker answers when a produce comes while the last
// transaction's markers are still being written must cost milliseconds.
func TestConcurrentTransactions(t *testing.T) {
	inBubble(t, "partitions=1", func(t *testing.T, c *kfake.Cluster, l *kafkaLog) {
		o := own(t, l, 0)
		add(t, o, "warm")
		commit(t, o)
		for _, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn, kmsg.InitProducerID} {
			h := c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.ConcurrentTransactions, Count: 3, TopLevel: key != kmsg.Produce})
			start := time.Now()
			if key == kmsg.InitProducerID {
				o = own(t, l, 0)
			}
			add(t, o, "x")
			commit(t, o)
			if took := time.Since(start); took > 200*time.Millisecond || h.Hits() != 3 {
				t.Errorf("%v: %d times CONCURRENT_TRANSACTIONS took %v", key, h.Hits(), took)
			}
		}
	})
}

// TestRefusedMessage: what only the brokers can refuse is told with its index, and the owner
// goes on after an abort.
func TestRefusedMessage(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=1")
	adm := admin(t, addrs)
	good, small := l.App()+".good", l.App()+".small"
	for _, topic := range []string{good, small} {
		if err := l.EnsureTopic(t.Context(), topic, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.topics.get(t.Context(), small); err != nil { // with the old limit
		t.Fatal(err)
	}
	limit := "2000"
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, small); err != nil {
		t.Fatal(err)
	}
	o := own(t, l, 0)
	messages := []eventlog.Record{
		{Topic: good, Value: []byte("m")},
		{Topic: small, Value: incompressible(5000)},
	}
	_, err := o.Append(t.Context(), raw("1"), typesOf([]string{"1"}), messages)
	refused, ok := errors.AsType[*eventlog.RefusedError](err)
	if !ok || refused.Index != 1 || !errors.Is(err, eventlog.ErrTooLarge) {
		t.Fatalf("append: %v, not a RefusedError of message 1", err)
	}
	if err := o.Commit(t.Context()); err == nil {
		t.Error("commit without what was refused")
	}
	if err := o.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Append(t.Context(), raw("2"), typesOf([]string{"2"}), messages[:1]); err != nil {
		t.Fatal(err)
	}
	commit(t, o)
	if got := barrier(t, l); !slices.Equal(got, []string{"2"}) {
		t.Errorf("events %q", got)
	}
}

// incompressible are n bytes that no codec makes smaller.
func incompressible(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// TestCancelledInFlight: a context that ends while the brokers don't answer ends the call,
// and the owner is finished.
func TestCancelledInFlight(t *testing.T) {
	inBubble(t, "partitions=1", func(t *testing.T, c *kfake.Cluster, l *kafkaLog) {
		o := own(t, l, 0)
		add(t, o, "warm")
		commit(t, o)
		c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			return nil, nil, true // no answer, ever
		})
		cause := errors.New("enough")
		for what, call := range map[string]func(context.Context) error{
			"append": func(ctx context.Context) error {
				_, err := o.Append(ctx, raw("x"), typesOf([]string{"x"}), nil)
				return err
			},
			"publish": func(ctx context.Context) error {
				return l.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic(l.App()), Value: []byte("x")})
			},
			"publisher": func(ctx context.Context) error {
				p, err := l.Publisher(ctx)
				if err != nil {
					return err
				}
				defer p.Close()
				return p.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic(l.App()), Value: []byte("x")})
			},
		} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
			start := time.Now()
			if err := call(ctx); !errors.Is(err, cause) {
				t.Errorf("%s: %v", what, err)
			}
			cancel()
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s took %v after its context ended", what, took)
			}
		}
		if err := o.Commit(t.Context()); !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("commit of a finished owner: %v", err)
		}
	})
}

// TestCloseUnderLoad: Close ends what runs, and nothing hangs or outlives it.
func TestCloseUnderLoad(t *testing.T) {
	addrs, _ := brokers(t)
	for range 3 {
		l := openLog(t, addrs, newApp(), "partitions=2")
		var busy sync.WaitGroup
		started := make(chan struct{}, 8)
		work := func(f func() error) {
			busy.Go(func() {
				for n := 0; ; n++ {
					if err := f(); err != nil {
						if !errors.Is(err, eventlog.ErrClosed) {
							t.Logf("ended with %v", err)
						}
						return
					}
					if n == 3 {
						started <- struct{}{}
					}
				}
			})
		}
		record := eventlog.Record{Topic: eventlog.RequestsTopic(l.App()), Partition: -1, Value: []byte("x")}
		for range 3 {
			work(func() error { return l.Publish(t.Context(), record) })
		}
		p, err := l.Publisher(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		work(func() error { return p.Publish(t.Context(), record) })
		o := own(t, l, 0)
		work(func() error {
			if _, err := o.Append(t.Context(), raw("x"), typesOf([]string{"x"}), nil); err != nil {
				return err
			}
			return o.Commit(t.Context())
		})
		for range 5 {
			<-started
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		busy.Wait()
	}
}

// TestFirstTransaction: a new client's first transactions, whose topics it only now learns
// of, are committed and aborted as asked.
func TestFirstTransaction(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=1")
	out := l.App() + ".out"
	if err := l.EnsureTopic(t.Context(), out, 1); err != nil {
		t.Fatal(err)
	}
	message := []eventlog.Record{{Topic: out, Value: []byte("m")}}
	var want []string
	for n := range 20 {
		o := own(t, l, 0)
		add(t, o, fmt.Sprint(n, "a"))
		commit(t, o)
		for _, last := range []bool{false, true} {
			if _, err := o.Append(t.Context(), raw(fmt.Sprint(n, last)), typesOf([]string{""}), message); err != nil {
				t.Fatal(err)
			}
			if !last {
				if err := o.Abort(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		commit(t, o)
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprint(n, "a"), fmt.Sprint(n, true))
	}
	if got := barrier(t, l); !slices.Equal(got, want) {
		t.Errorf("events %q, not %q", got, want)
	}
}
