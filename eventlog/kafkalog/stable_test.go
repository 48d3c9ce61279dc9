package kafkalog

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

// TestOpenTransactionIsNamed: a transaction that somebody left open on a topic which a relay reads.
func TestOpenTransactionIsNamed(t *testing.T) {
	c := fake(t)
	addrs, app := strings.Join(c.ListenAddrs(), ","), newApp()
	l := openLog(t, addrs, app, "partitions=1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topic := newApp()
	if err := l.EnsureTopic(ctx, topic, 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Publish(ctx, eventlog.Record{Topic: topic, Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	m, err := l.Join(ctx, app+".relay."+topic+".id", topic)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Assigned(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Commit(ctx, 0, 1); err != nil {
		t.Fatal(err)
	}
	named := func() bool {
		t.Helper()
		found, err := eventlog.Check(ctx, appURL(addrs, app, "partitions=1").String())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(f eventlog.Finding) bool {
			return f.Level == eventlog.LevelWrong && strings.Contains(f.Subject, topic) && strings.Contains(f.Text, "a transaction is open since") && strings.Contains(f.Text, "from offset 1 on")
		})
	}
	if upto, since, err := l.Stable(ctx, topic, 0); upto != 1 || !since.IsZero() || err != nil || named() {
		t.Errorf("nothing is open: %d, %v, %v", upto, since, err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID(newApp()), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-2 * openLong).Truncate(time.Millisecond)
	if err := cl.ProduceSync(ctx, &kgo.Record{Value: []byte("y"), Timestamp: began}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if upto, since, err := l.Stable(ctx, topic, 0); upto != 1 || !since.Equal(began) || err != nil {
		t.Errorf("one is open since %v: %d, %v, %v", began, upto, since, err)
	}
	if !named() {
		t.Error("doctor does not name it")
	}
	if err := cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	if upto, since, err := l.Stable(ctx, topic, 0); upto != 3 || !since.IsZero() || err != nil || named() {
		t.Errorf("it has ended: %d, %v, %v", upto, since, err)
	}
}
