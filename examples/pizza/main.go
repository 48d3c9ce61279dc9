// Command pizza takes orders, has a simulated shop bake them and delivers them. Kill it and
// start it again with the same input: it finishes what is left and starts nothing twice.
//
//	go run ./examples/pizza
//	go run ./examples/pizza -orders my.jsonl -log kafka://localhost:9092/pizza -store pebble:pizza-store
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
	"github.com/godagger/dagger/workflow"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

type options struct {
	log, store, orders string
	rate               float64
	shopDelay          time.Duration
	exitWhenDone       bool
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("pizza", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.log, "log", "file:dagger-data/log", "`URL` of the log: file:DIR, mem: or kafka://host:9092/app")
	flags.StringVar(&o.store, "store", "", "`URL` of the store (default pebble:dagger-data/store; mem: with the log mem:)")
	flags.StringVar(&o.orders, "orders", "", "`FILE` of orders, one JSON object a line; - is standard input (default the 20 that ship with the program)")
	flags.Float64Var(&o.rate, "rate", 0, "orders a second; 0 = as fast as it goes")
	flags.DurationVar(&o.shopDelay, "shop-delay", 20*time.Millisecond, "how long the shop takes for a pizza")
	flags.BoolVar(&o.exitWhenDone, "exit-when-done", true, "exit when every order has ended")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rate != 0 && !(o.rate >= 1e-3 && o.rate <= 1e6):
		err = errors.New("-rate must be 0, or from 0.001 to 1000000")
	case o.shopDelay < 0:
		err = errors.New("-shop-delay must not be negative")
	}
	if err != nil {
		fmt.Fprintln(stderr, "pizza:", err)
		flags.Usage()
	}
	return o, err
}

// run is the program: 0 all orders completed, 1 not all, 2 wrong usage.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	input, err := openOrders(o.orders, stdin)
	if err != nil {
		fmt.Fprintln(stderr, "pizza:", err)
		return 2
	}
	defer input.Close()
	started := time.Now()
	t := newTally(stdout, stderr)
	err = serve(ctx, o, input, t, stderr)
	if err != nil {
		t.complain("%v", err)
	}
	if allCompleted := t.summary(time.Since(started)); err != nil || !allCompleted {
		return 1
	}
	return 0
}

var errInterrupted = errors.New("interrupted; started again with the same orders, it finishes what is left")

// serve opens log and engine, runs them with the shop, and feeds the orders.
func serve(ctx context.Context, o options, input io.Reader, t *tally, stderr io.Writer) (err error) {
	closing := func(what string, c io.Closer) {
		if cerr := c.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close %s: %w", what, cerr))
		}
	}
	log, err := eventlog.Open(ctx, o.log)
	if err != nil {
		return err
	}
	defer closing("log", log)
	eng, err := workflow.Open(ctx, workflow.Config{OpenedLog: log, Store: o.store, Logger: slog.New(slog.NewTextHandler(stderr, nil))})
	if err != nil {
		return err
	}
	defer closing("engine", eng)
	def := Pizza(&Courier{})
	if err := eng.Register(def); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	until := func(work func(context.Context) error) {
		running.Go(func() {
			if err := work(ctx); err != nil {
				cancel(err)
			}
		})
	}
	until(eng.Run)
	until((&shop{log: log, delay: o.shopDelay}).run)
	fed := feed(ctx, o, input, eng, def, t)
	if fed == nil && !o.exitWhenDone {
		<-ctx.Done()
	}
	switch cause := context.Cause(ctx); {
	case cause != nil && !errors.Is(cause, context.Canceled):
		return cause
	case cause != nil && fed != nil:
		return errInterrupted
	}
	return fed
}

// starters is how many orders are handed in at once: the log commits together what arrives
// together.
const starters = 32

// feed starts an instance for each order and waits until all have ended, or ctx ends.
func feed(ctx context.Context, o options, input io.Reader, eng *workflow.Engine, def *workflow.Definition[Order], t *tally) error {
	orders := make(chan Order)
	var readErr error
	// Nobody can end a read of standard input, so this goroutine is not waited for when ctx
	// ends first.
	go func() {
		defer close(orders)
		readErr = readOrders(input, func(order Order) bool {
			t.accepted()
			select {
			case orders <- order:
				return true
			case <-ctx.Done():
				return false
			}
		}, func(line int, err error) { t.complain("orders: line %d: %v", line, err) })
	}()
	var pace <-chan time.Time
	if o.rate > 0 {
		tick := time.NewTicker(time.Duration(float64(time.Second) / o.rate))
		defer tick.Stop()
		pace = tick.C
	}
	slots := make(chan struct{}, starters)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case order, more := <-orders:
			if !more {
				return readErr
			}
			if pace != nil {
				select {
				case <-pace:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			slots <- struct{}{}
			waiting.Go(func() {
				h, err := start(ctx, eng, def, order)
				<-slots
				if err == nil {
					_, err = h.Wait(ctx)
				}
				if ctx.Err() == nil {
					t.ended(order, err)
				}
			})
		}
	}
}

// start hands an order in; where too much is queued it comes back a little later.
func start(ctx context.Context, eng *workflow.Engine, def *workflow.Definition[Order], order Order) (*workflow.Handle[Order], error) {
	for {
		h, err := def.Start(ctx, eng, instanceID(order.OrderID), order)
		if !errors.Is(err, workflow.ErrBusy) {
			return h, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
