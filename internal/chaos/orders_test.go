package chaos

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// loadVar chooses what the workers run: pizza (the default), or orders: a definition with every
// kind of node, as in examples/orders.
const loadVar = "DAGGER_CHAOS_LOAD"

func ofOrders() bool { return os.Getenv(loadVar) == "orders" }

// load is the definition that the workers run. Each instance sends one message to the shop.
func load(log eventlog.Log, p *points) *workflow.Definition[order] {
	if ofOrders() {
		return orders(log, p)
	}
	return pizza(log, p)
}

// boxed is an item of an order.
type boxed struct {
	ID     string `json:"id"`
	Weight int    `json:"weight,omitempty"`
}

// orders is an order that is paid, prepared, fulfilled and shipped. Its handlers have the points
// of the pizza's.
func orders(log eventlog.Log, p *points) *workflow.Definition[order] {
	at := func(f func(context.Context, *order) error) func(context.Context, *order) error {
		return func(ctx context.Context, o *order) error {
			p.at("handler.before")
			defer p.at("handler.after")
			return f(ctx, o)
		}
	}
	step := func(name string) workflow.Node[order] {
		return workflow.Execute(name, at(func(context.Context, *order) error { return nil }))
	}
	status := func(s string) func(context.Context, *order, done) (bool, error) {
		return func(_ context.Context, o *order, m done) (bool, error) {
			p.at("handler.before")
			defer p.at("handler.after")
			o.Status, o.BoxID = s, "box-"+o.OrderID
			return true, nil
		}
	}
	return workflow.New("OrderWorkflow",
		workflow.Process("PAYMENT",
			workflow.Command("pay", orderTopic(log), func(_ context.Context, o *order) (placed, error) {
				p.at("handler.before")
				defer p.at("handler.after")
				o.Status, o.Promised = "PLACED", time.Now().Add(300*time.Millisecond)
				return placed{o.OrderID}, nil
			}),
			workflow.Decide("how", func(_ context.Context, o *order) (string, error) {
				if chance("card "+o.OrderID, 2) {
					return "card", nil
				}
				return "", nil
			}, step("card"), step("cash")),
			workflow.Listen("paid", statusTopic(log), workflow.By("order_id", func(o *order) string { return o.OrderID }, func(m *done) string { return m.OrderID }), status("PAID"))),
		workflow.Dynamic("ORDER_PREPROCESSING", func(_ context.Context, o *order) ([]string, error) {
			if chance("gift "+o.OrderID, 3) {
				return []string{"check", "wrap", "check"}, nil
			}
			return []string{"check"}, nil
		}, workflow.Process("check", step("check")), workflow.Process("wrap", step("wrap"))),
		workflow.Process("FULFILLMENT",
			workflow.Every("count", func(*order) workflow.Interval { return workflow.Interval{Period: 50 * time.Millisecond} },
				func(_ context.Context, o *order) (bool, error) {
					p.at("handler.before")
					defer p.at("handler.after")
					o.Count++
					return o.Count >= 2, nil
				}),
			workflow.Listen("packed", statusTopic(log), workflow.By("box_id", func(o *order) string { return o.BoxID }, func(m *done) string { return m.BoxID }), status("PACKED")),
			workflow.At("promised", func(o *order) time.Time { return o.Promised }, at(func(context.Context, *order) error { return nil })),
		).With(workflow.Deadline(time.Hour, workflow.FailNode)).
			Monitor("alarm", func(*order) workflow.Alarm { return workflow.Alarm{At: time.UnixMilli(1)} }, at(func(_ context.Context, o *order) error { o.Alarm = true; return nil })).
			OnStop(func(context.Context, *order) error { return nil }),
		workflow.Parallel("both", workflow.All,
			workflow.Process("noop", workflow.Listen("wait", statusTopic(log), workflow.By("noop_id", func(o *order) string { return o.OrderID }, func(m *done) string { return m.NoopID }),
				func(context.Context, *order, done) (bool, error) { return true, nil })),
			workflow.Process("work", step("work"))),
		workflow.ForEach("ship", func(_ context.Context, o *order) ([]boxed, error) {
			return []boxed{{ID: o.OrderID + "-1"}, {ID: o.OrderID + "-2"}, {ID: o.OrderID + "-3"}}, nil
		}, func(_ context.Context, o *order, l []boxed) error {
			for _, x := range l {
				o.Weight += x.Weight
			}
			return nil
		}, workflow.Execute("weigh", func(_ context.Context, x *boxed) error {
			p.at("handler.before")
			defer p.at("handler.after")
			x.Weight = len(x.ID)
			return nil
		})).With(workflow.Concurrency(2)),
		workflow.Parallel("race", workflow.Any, step("a"), step("b"),
			workflow.Listen("never", statusTopic(log), workflow.By("never_id", func(o *order) string { return o.OrderID }, func(*done) string { return "" }), status("NEVER"))),
		workflow.Execute("deliver", at(func(ctx context.Context, o *order) error {
			if o.Tries++; o.Tries == 1 && chance("delivery "+o.OrderID, 10) {
				return workflow.Terminal(errors.New("nobody opens the door"))
			}
			o.Status = "DELIVERED"
			return nil
		})).With(workflow.OnFailure(workflow.Goto("again"))),
		workflow.Decide("end", func(_ context.Context, o *order) (string, error) { return "", nil }, step("never")),
		workflow.Process("again", workflow.Execute("deliver", at(func(_ context.Context, o *order) error { o.Status = "DELIVERED"; return nil }))))
}

// answers are what the shop says to an order.
func answers(id string) []done {
	if !ofOrders() {
		return []done{{OrderID: id, Status: "READY"}}
	}
	return []done{{OrderID: id, Status: "PAID"}, {BoxID: "box-" + id, Status: "PACKED"}, {NoopID: id}}
}
