// Command play plays the services around examples/orders: it places orders, is paid for them,
// packs them, and starts and stops what is simple. It shows how each of them ends.
//
//	go run ./examples/orders/play -log kafka://127.0.0.1:9092/orders -orders 10
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	log, http string
	orders    int
	first     int64
	timeout   time.Duration
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("play", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.log, "log", "kafka://127.0.0.1:9092/orders", "`URL` of the service's log")
	flags.StringVar(&o.http, "http", "127.0.0.1:6066", "`ADDRESS` or URL of the service's API")
	flags.IntVar(&o.orders, "orders", 5, "`NUMBER` of orders to place")
	flags.Int64Var(&o.first, "first", time.Now().Unix(), "`NUMBER` of the first order; the default makes new ones each time, the same as before goes on with those")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Minute, "give up after this `TIME`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.orders < 1 || o.orders > 100_000:
		err = errors.New("-orders must be from 1 to 100000")
	case o.first < 0:
		err = errors.New("-first must not be negative")
	}
	if err != nil {
		fmt.Fprintln(stderr, "play:", err)
		flags.Usage()
	}
	return o, err
}

// run is the program: 0 all ended as expected, 1 not all, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not all have ended after %v", o.timeout))
	defer cancel()
	r, err := open(ctx, o, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "play:", err)
	}
	fmt.Fprintln(stdout, r)
	if err != nil || !r.expected() {
		return 1
	}
	return 0
}

// open opens the log and plays on it.
func open(ctx context.Context, o options, out io.Writer) (r result, err error) {
	log, err := eventlog.Open(ctx, o.log)
	if err != nil {
		return result{orders: o.orders}, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return playOn(ctx, log, o, out)
}
