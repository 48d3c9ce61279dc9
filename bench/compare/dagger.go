package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"time"

	_ "github.com/godagger/dagger/backends/all"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/workflow"
)

// logger reports what is wrong, of every system.
var logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))

// params of an instance, the same in every system.
type params struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
}

func openEmbedded(ctx context.Context, s *settings) (*opened, error) {
	return openDagger(ctx, s, &opened{
		storage: "embedded log + Pebble", durability: "each commit is synced before it counts",
	}, "file:"+s.dir+"/log")
}

func openKafka(ctx context.Context, s *settings) (*opened, error) {
	// A name of its own in each run: the topics stay behind.
	app := "compare-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	return openDagger(ctx, s, &opened{
		storage: "Kafka + Pebble", durability: "transactions, acks=all; syncs as the broker is set", server: s.kafkaPID,
	}, "kafka://"+s.kafka+"/"+app)
}

func openDagger(ctx context.Context, s *settings, o *opened, log string) (*opened, error) {
	e, err := workflow.Open(ctx, workflow.Config{Log: log, Store: "pebble:" + s.dir + "/store", Logger: logger})
	if err != nil {
		return nil, err
	}
	nothing := func(context.Context, *params) error { return nil }
	def := workflow.New("Compare", workflow.Process("Work",
		workflow.Execute("first", nothing), workflow.Execute("second", nothing), workflow.Execute("third", nothing)))
	if err := e.Register(def); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- e.Run(life) }() // waited for by close
	o.version = moduleVersion("github.com/godagger/dagger")
	o.one = func(ctx context.Context, id string) error {
		h, err := def.Start(ctx, e, id, params{OrderID: id, CustomerID: "7"})
		if err != nil {
			return err
		}
		_, err = h.Wait(ctx)
		return err
	}
	o.close = func() error {
		stop()
		return errors.Join(<-ended, e.Close())
	}
	return o, nil
}
