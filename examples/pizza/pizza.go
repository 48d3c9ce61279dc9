package main

import (
	"context"
	"errors"
	"hash/fnv"
	"time"

	"github.com/godagger/dagger/workflow"
)

const (
	orderTopic  = "pizza_order_topic"
	statusTopic = "order_status_topic"
)

// Order is what an instance knows: its parameters.
type Order struct {
	OrderID     string    `json:"order_id"`
	CustomerID  string    `json:"customer_id,omitempty"`
	PizzaType   string    `json:"pizza_type,omitempty"`
	Status      string    `json:"status,omitempty"`
	DeliveredAt time.Time `json:"delivered_at,omitzero"`
}

// Placed is the message to the shop.
type Placed struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	PizzaType  string `json:"pizza_type"`
}

// Ready is the shop's answer.
type Ready struct {
	OrderID string `json:"order_id"`
	Status  string `json:"status"`
}

// Pizza is the workflow: place the order at the shop, wait until it is ready, deliver it.
func Pizza(c *Courier) *workflow.Definition[Order] {
	return workflow.New("PizzaWorkflow",
		workflow.Process("Order",
			workflow.Command("place", orderTopic, place),
			workflow.Listen("ready", statusTopic, workflow.By("order_id",
				func(o *Order) string { return o.OrderID },
				func(m *Ready) string { return m.OrderID }), ready)),
		workflow.Process("Delivery",
			workflow.Execute("deliver", c.deliver).With(workflow.Retry(5, time.Second))))
}

func place(_ context.Context, o *Order) (Placed, error) {
	o.Status = "PLACED"
	return Placed{o.OrderID, o.CustomerID, o.PizzaType}, nil
}

func ready(_ context.Context, o *Order, m Ready) (done bool, err error) {
	o.Status = m.Status
	return m.Status == "READY", nil
}

// Courier delivers. One delivery in ten finds nobody at home at the first attempt.
type Courier struct{}

func (c *Courier) deliver(ctx context.Context, o *Order) error {
	if workflow.TaskFrom(ctx).Attempt == 1 && chance("delivery "+o.OrderID, 10) {
		return errors.New("nobody opens the door")
	}
	o.Status, o.DeliveredAt = "DELIVERED", time.Now().UTC()
	return nil
}

// chance is true for one name in n, and always for the same ones: what happens to an order
// does not change when the program is started again.
func chance(name string, n uint32) bool {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()%n == 0
}
