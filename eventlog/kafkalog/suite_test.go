package kafkalog

import (
	"context"
	"fmt"
	"net/url"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/eventlogtest"
)

// TestSuite runs the contract over the real brokers that KAFKA_BROKERS names, or over a
// fake one.
func TestSuite(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) *eventlogtest.Harness {
		addrs, _ := brokers(t)
		return harness(addrs)
	})
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
		Features: eventlogtest.Features{NoCrash: true},
	}
}
