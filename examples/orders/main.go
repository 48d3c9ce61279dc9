// Command orders is a service that fulfils orders: workflows started, moved on and stopped by
// messages, with an HTTP API.
//
//	go run ./examples/orders -log kafka://127.0.0.1:9092/orders
//	go run ./examples/orders/play -log kafka://127.0.0.1:9092/orders
//
// The second program plays all other services. `make orders` runs both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	_ "github.com/godagger/dagger/backends/all"
	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/telemetry/prom"
	"github.com/godagger/dagger/webui"
	"github.com/godagger/dagger/workflow"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stderr))
}

type options struct {
	http, log, store, updates string
	interval                  time.Duration
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("orders", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.http, "http", "127.0.0.1:6066", "`ADDRESS` of the HTTP API")
	flags.StringVar(&o.log, "log", "kafka://127.0.0.1:9092/orders", "`URL` of the log: kafka://host:9092/app, or file:DIR in one process")
	flags.StringVar(&o.store, "store", "", "`URL` of the store (default pebble:dagger-data/store; mem: with the log mem:)")
	flags.StringVar(&o.updates, "updates", "task_update_topic", "`TOPIC` that gets each instance after each change; empty = none")
	flags.DurationVar(&o.interval, "interval", 10*time.Second, "`TIME` between the counts of an order")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.interval < time.Millisecond:
		err = errors.New("-interval must be at least a millisecond")
	}
	if err != nil {
		fmt.Fprintln(stderr, "orders:", err)
		flags.Usage()
	}
	return o, err
}

// run is the program: 0 it was told to end, 1 it could not go on, 2 wrong usage.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	if err := serve(ctx, o, slog.New(slog.NewTextHandler(stderr, nil)), nil); err != nil {
		fmt.Fprintln(stderr, "orders:", err)
		return 1
	}
	return 0
}

var errEnough = errors.New("it has done what it was to do")

// serve runs the workflows and the API until ctx ends, or until then does, if it is not nil.
// That is given the log and the API's address.
func serve(ctx context.Context, o options, logger *slog.Logger, then func(ctx context.Context, log eventlog.Log, address string) error) (err error) {
	log, err := eventlog.Open(ctx, o.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	listener, err := webui.Listen(o.http)
	if err != nil {
		return err
	}
	defer listener.Close() // Serve has done so, if it came to that
	metrics := prom.New()
	eng, err := workflow.Open(ctx, workflow.Config{OpenedLog: log, Store: o.store, Address: webui.URL(listener), UpdatesTopic: o.updates,
		Logger: logger, Observer: metrics.Observer()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	if err := eng.Register(orderWorkflow(o.interval, logger), simpleLibrary, composed()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	errs := make([]error, 3)
	until := func(k int, work func() error) {
		running.Go(func() {
			if errs[k] = work(); errs[k] != nil {
				cancel(errs[k])
			}
		})
	}
	until(0, func() error { return eng.Run(ctx) })
	until(1, func() error {
		return webui.Serve(ctx, listener, webui.New(eng, webui.Options{Metrics: metrics.Handler(eng)}))
	})
	logger.Info("orders are fulfilled", "http", "http://"+listener.Addr().String())
	if then != nil {
		until(2, func() error {
			defer cancel(errEnough)
			return then(ctx, log, listener.Addr().String())
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
