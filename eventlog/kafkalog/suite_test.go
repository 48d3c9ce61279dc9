package kafkalog

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/eventlogtest"
	"github.com/godagger/dagger/internal/kafkatest"
)

// TestSuite runs the contract over the real brokers that KAFKA_BROKERS names, or over a
// fake one. Real brokers are joined by one that may be killed, for the crashes.
func TestSuite(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) *eventlogtest.Harness {
		addrs, real := brokers(t)
		if real && strings.Contains(t.Name(), "/crash/") {
			return crashing(t)
		}
		return harness(addrs)
	})
}

// TestSuitePeek runs the contract over a log whose every reader peeks.
func TestSuitePeek(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) *eventlogtest.Harness {
		addrs, _ := brokers(t)
		h := harness(addrs)
		open, deleteTopic := h.Open, h.DeleteTopic
		h.Open = func(ctx context.Context, partitions int32) (eventlog.Log, error) {
			l, err := open(ctx, partitions)
			if err != nil {
				return nil, err
			}
			return peeking{l.(*kafkaLog)}, nil
		}
		h.DeleteTopic = func(ctx context.Context, l eventlog.Log, name string) error {
			return deleteTopic(ctx, l.(peeking).kafkaLog, name)
		}
		return h
	})
}

type peeking struct{ *kafkaLog }

func (p peeking) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	return p.Peek(ctx, topic, partition, from, topicID, isolation)
}

func harness(addrs string) *eventlogtest.Harness {
	app := newApp()
	return &eventlogtest.Harness{
		App: app,
		Open: func(ctx context.Context, partitions int32) (eventlog.Log, error) {
			return Open(ctx, &url.URL{Scheme: "kafka", Host: addrs, Path: "/" + app, RawQuery: fmt.Sprintf("partitions=%d", partitions)})
		},
		DeleteTopic: func(ctx context.Context, l eventlog.Log, name string) error {
			resp, err := l.(*kafkaLog).adm.DeleteTopic(ctx, name)
			if err == nil {
				err = resp.Err
			}
			return err
		},
		// A fake broker loses what a transaction of the same id writes after a crash.
		Features: eventlogtest.Features{NoCrash: true},
	}
}

// crashing is a harness over a broker of its own, which is killed and started again.
func crashing(t *testing.T) *eventlogtest.Harness {
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("a broker that can be killed needs Java:", err)
	}
	b, err := kafkatest.Start(t.Context(), kafkatest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	h := harness(b.Addr())
	h.Features = eventlogtest.Features{}
	h.Crash = func(eventlog.Log) error {
		if err := b.Kill(); err != nil {
			return err
		}
		return b.Restart(t.Context())
	}
	return h
}
