package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/godagger/dagger/workflow"
)

// Topics of the service. Messages have no key and no headers: it is their content that says
// which order they are about.
const (
	ordersTopic        = "orders_topic"
	paymentCommand     = "PAYMENT_COMMAND"
	paymentListener    = "PAYMENT_LISTENER"
	fulfillmentCommand = "FULFILLMENT_COMMAND"
	fulfillment        = "FULFILLMENT_LISTENER"
	noop1              = "NOOP_LISTENER_1"
	noop2              = "NOOP_LISTENER_2"
)

// Order is what an instance of OrderWorkflow knows. Times are in unix seconds.
type Order struct {
	OrderID        string  `json:"order_id"`
	BoxID          string  `json:"box_id"`
	Count          int     `json:"count"`
	Interval       float64 `json:"interval"` // seconds
	Deadline       float64 `json:"DEADLINE"`
	CompleteByTime int64   `json:"complete_by_time"`
	Type           string  `json:"type,omitempty"` // how it is prepared
	Alarm          string  `json:"alarm,omitempty"`
	Shipped        int     `json:"shipped,omitempty"`
}

// Asked goes to the payment and the fulfilment service, Answer comes from them and others.
type Asked struct {
	OrderID string `json:"order_id"`
	BoxID   string `json:"box_id"`
}

type Answer struct {
	OrderID string `json:"order_id"`
	BoxID   string `json:"box_id"`
}

// newOrder is the order that number n of orders_topic starts.
func newOrder(n string, interval time.Duration, now time.Time) Order {
	return Order{
		OrderID: "ID00" + n, BoxID: "box_ID00" + n, Interval: interval.Seconds(),
		Deadline: float64(now.Add(2*time.Second).UnixMilli()) / 1000,
		// Long past, so that the monitor fires at once.
		CompleteByTime: now.Add(-24 * time.Hour).Unix(),
	}
}

// number is a JSON number or string.
type number string

// UnmarshalJSON takes both, as they are written.
func (n *number) UnmarshalJSON(data []byte) error {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return fmt.Errorf("number of an order: %w", err)
	}
	switch v := v.(type) {
	case json.Number:
		*n = number(v)
	case string:
		*n = number(v)
	}
	if *n == "" {
		return errors.New("number of an order: it must be a number or a string with something in it")
	}
	return nil
}

func unix(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1000)) }

func (o *Order) asked() Asked { return Asked{o.OrderID, o.BoxID} }

func byOrder(topicAttribute string) workflow.Match[Order, Answer] {
	return workflow.By(topicAttribute, func(o *Order) string { return o.OrderID }, func(m *Answer) string { return m.OrderID })
}

func byBox() workflow.Match[Order, Answer] {
	return workflow.By("box_id", func(o *Order) string { return o.BoxID }, func(m *Answer) string { return m.BoxID })
}

func taken(context.Context, *Order, Answer) (bool, error) { return true, nil }

func step(name string) workflow.Node[Order] {
	return workflow.Execute(name, func(context.Context, *Order) error { return nil })
}

// orderWorkflow is started by the records of orders_topic.
func orderWorkflow(interval time.Duration, logger *slog.Logger) *workflow.Definition[Order] {
	def := workflow.New("OrderWorkflow",
		workflow.Process("PAYMENT",
			workflow.Command("request", paymentCommand, func(_ context.Context, o *Order) (Asked, error) { return o.asked(), nil }),
			workflow.Decide("kind", func(_ context.Context, o *Order) (string, error) {
				if len(o.OrderID)%2 == 0 {
					return "prepaid", nil
				}
				return "", nil
			}, step("prepaid")),
			workflow.Listen("paid", paymentListener, byOrder("order_id"), func(_ context.Context, o *Order, m Answer) (bool, error) {
				o.BoxID = m.BoxID // the key of the later listener moves with it
				return true, nil
			})),

		workflow.Dynamic("ORDER_PREPROCESSING", func(_ context.Context, o *Order) ([]string, error) {
			if o.OrderID[len(o.OrderID)-1]%2 == 0 {
				return []string{"check", "wrap"}, nil
			}
			return []string{"wrap", "check"}, nil
		},
			workflow.Process("check", step("look")),
			workflow.Process("wrap", workflow.Execute("fold", func(_ context.Context, o *Order) error { o.Type = "gift"; return nil }))),

		workflow.Process("FULFILLMENT",
			workflow.Command("request", fulfillmentCommand, func(_ context.Context, o *Order) (Asked, error) { return o.asked(), nil }),
			workflow.Every("count", func(o *Order) workflow.Interval {
				return workflow.Interval{Period: time.Duration(o.Interval * float64(time.Second)), Until: unix(o.Deadline).Add(time.Hour)}
			}, func(_ context.Context, o *Order) (done bool, err error) {
				o.Count++
				return o.Count >= 2, nil
			}),
			workflow.Listen("packed", fulfillment, byBox(), taken),
			workflow.At("deadline", func(o *Order) time.Time { return unix(o.Deadline) }, func(context.Context, *Order) error { return nil }),
		).Monitor("late", func(o *Order) workflow.Alarm { return workflow.Alarm{At: time.Unix(o.CompleteByTime, 0)} },
			func(ctx context.Context, o *Order) error {
				o.Alarm = "it should be completed by now"
				logger.Warn("ALARM: an order is late", "order", o.OrderID, "task", workflow.TaskFrom(ctx).Path)
				return nil
			}),

		workflow.Parallel("parallelProcess", workflow.All,
			workflow.Process("wait", workflow.Listen("noop", noop2, byOrder("order_id"), taken)),
			workflow.Process("work", step("do"))),

		workflow.Parallel("ShippingCompositeProcess", workflow.All, ship("first"), ship("second"), ship("third"), ship("fourth")),

		workflow.Parallel("parallelTasks", workflow.Any, step("a"), step("b"), step("c"),
			workflow.Listen("never", noop1, byOrder("order_id"), taken)))

	return workflow.StartOn(def, ordersTopic, func(ctx context.Context, n *number) (string, Order, error) {
		// The record's time, so that reading it again gives the same order.
		o := newOrder(string(*n), interval, time.UnixMilli(workflow.MessageFrom(ctx).Time))
		return o.OrderID, o, nil
	}, workflow.From(workflow.Earliest))
}

func ship(name string) workflow.Node[Order] {
	return workflow.Process(name, step("label"), step("hand over"))
}
