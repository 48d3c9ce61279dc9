package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/workflow"
)

// Order is what an instance knows.
type Order struct {
	OrderID string `json:"order_id"`
	Status  string `json:"status,omitempty"`
	Receipt string `json:"receipt,omitempty"`
}

// Placed goes to the shop, Ready comes from it.
type Placed struct {
	OrderID string `json:"order_id"`
}

type Ready struct {
	OrderID string `json:"order_id"`
	Status  string `json:"status"`
}

// run runs an engine in memory while f works.
func run(f func(context.Context, *workflow.Engine) error, definitions ...workflow.AnyDefinition) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	eng, err := workflow.Open(ctx, workflow.Config{Log: "mem:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := eng.Register(definitions...); err != nil {
		return errors.Join(err, eng.Close())
	}
	var running sync.WaitGroup
	var runErr error
	running.Go(func() { runErr = eng.Run(ctx) })
	err = f(ctx, eng)
	stop()
	running.Wait()
	return errors.Join(err, runErr, eng.Close())
}

// An order is placed at the shop by a message, the shop's answer is awaited, the pizza is
// delivered.
func Example() {
	place := func(_ context.Context, o *Order) (Placed, error) { return Placed{o.OrderID}, nil }
	ready := func(_ context.Context, o *Order, m Ready) (done bool, err error) {
		o.Status = m.Status
		return m.Status == "READY", nil
	}
	deliver := func(_ context.Context, o *Order) error {
		o.Status = "DELIVERED"
		return nil
	}
	pizza := workflow.New("PizzaWorkflow",
		workflow.Process("Order",
			workflow.Command("place", "pizza_order_topic", place),
			workflow.Listen("ready", "order_status_topic", workflow.By("order_id",
				func(o *Order) string { return o.OrderID },
				func(m *Ready) string { return m.OrderID }), ready)),
		workflow.Process("Delivery",
			workflow.Execute("deliver", deliver).With(workflow.Retry(5, time.Second))))

	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := pizza.Start(ctx, eng, "order-42", Order{OrderID: "42"})
		if err != nil {
			return err
		}
		// The shop, which may as well be another program in another language.
		answer := eventlog.Record{Topic: "order_status_topic", Partition: -1, Value: []byte(`{"order_id":"42","status":"READY"}`)}
		if err := eng.Log().Publish(ctx, answer); err != nil {
			return err
		}
		order, err := h.Wait(ctx)
		fmt.Println(h.ID(), order.Status)
		return err
	}, pizza)
	if err != nil {
		fmt.Println(err)
	}
	// Output: order-42 DELIVERED
}

// bank is a system outside that must not be paid twice: it knows again what it has seen.
type bank struct {
	receipts map[string]string // by idempotency key
	charged  int
}

func (b *bank) charge(key string) (receipt string) {
	if b.receipts[key] == "" {
		b.charged++
		b.receipts[key] = fmt.Sprintf("receipt %d", b.charged)
	}
	return b.receipts[key]
}

// Handlers run at least once: here the first attempt pays and then loses the answer. The
// idempotency key is the same for every attempt, so the bank charges once.
func ExampleTaskFrom() {
	b := &bank{receipts: map[string]string{}}
	pay := func(ctx context.Context, o *Order) error {
		task := workflow.TaskFrom(ctx)
		receipt := b.charge(task.IdempotencyKey)
		fmt.Printf("%s of %s, attempt %d: %s\n", task.Path, task.Instance, task.Attempt, receipt)
		if task.Attempt == 1 {
			return errors.New("the connection broke before the answer came")
		}
		o.Receipt = receipt
		return nil
	}
	def := workflow.New("Payment", workflow.Process("Money",
		workflow.Execute("pay", pay).With(workflow.Retry(3, time.Millisecond))))

	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := def.Start(ctx, eng, "order-42", Order{OrderID: "42"})
		if err != nil {
			return err
		}
		order, err := h.Wait(ctx)
		fmt.Printf("charged %d time: %s\n", b.charged, order.Receipt)
		return err
	}, def)
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// Money/pay of order-42, attempt 1: receipt 1
	// Money/pay of order-42, attempt 2: receipt 1
	// charged 1 time: receipt 1
}

// An instance whose task failed for good goes on from that task when what was wrong has been
// mended.
func ExampleHandle_Retry() {
	open := false
	def := workflow.New("Fetch", workflow.Execute("fetch", func(_ context.Context, o *Order) error {
		if !open {
			return workflow.Terminal(errors.New("the shop is closed")) // no use in trying again now
		}
		o.Status = "FETCHED"
		return nil
	}).With(workflow.Retry(10, time.Minute)))

	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := def.Start(ctx, eng, "order-42", Order{OrderID: "42"})
		if err != nil {
			return err
		}
		_, err = h.Wait(ctx)
		if failed, ok := errors.AsType[*workflow.TaskError](err); ok {
			fmt.Printf("%s failed: %v\n", failed.Path, failed.Err)
		}
		open = true
		if err := h.Retry(ctx, "the shop has opened"); err != nil {
			return err
		}
		order, err := h.Wait(ctx)
		fmt.Println(order.Status)
		return err
	}, def)
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// fetch failed: the shop is closed
	// FETCHED
}

// Register tells every mistake of a definition at once, each with its path.
func ExampleEngine_Register() {
	def := workflow.New("Sloppy",
		workflow.Process("Order",
			workflow.Execute("pay/bill", func(context.Context, *Order) error { return nil }),
			workflow.Execute("pack", func(context.Context, *Order) error { return nil }).With(workflow.Retry(0, time.Second)),
			workflow.Command("send", "", func(context.Context, *Order) (Placed, error) { return Placed{}, nil })))
	fmt.Println(run(func(context.Context, *workflow.Engine) error { return nil }, def))
	// Output:
	// register Sloppy: Order/pay/bill: its name "pay/bill" contains a slash, which separates the names of a path
	// register Sloppy: Order/pack: Retry with 0 attempts; at least 1
	// register Sloppy: Order/send: its topic is empty
}
