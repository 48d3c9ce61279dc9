package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// orderTopic and statusTopic are the topics between the workers and the shop. Tests that
// share a broker have their own.
func orderTopic(log eventlog.Log) string  { return "pizza_order_topic" + suffix(log) }
func statusTopic(log eventlog.Log) string { return "order_status_topic" + suffix(log) }

func suffix(log eventlog.Log) string {
	if strings.HasPrefix(log.URL(), "kafka:") {
		return "-" + log.App()
	}
	return ""
}

// order is what an instance knows.
type order struct {
	OrderID string `json:"order_id"`
	Status  string `json:"status,omitempty"`

	// Of the load orders.
	BoxID    string    `json:"box_id,omitempty"`
	Promised time.Time `json:"promised,omitzero"`
	Count    int       `json:"count,omitempty"`
	Weight   int       `json:"weight,omitempty"`
	Tries    int       `json:"tries,omitempty"`
	Alarm    bool      `json:"alarm,omitempty"`
}

// placed is the message to the shop, done its answer.
type (
	placed struct {
		OrderID string `json:"order_id"`
	}
	done struct {
		OrderID string `json:"order_id,omitempty"`
		BoxID   string `json:"box_id,omitempty"`
		NoopID  string `json:"noop_id,omitempty"`
		Status  string `json:"status"`
	}
)

func orderID(n int) string        { return strconv.Itoa(n) }
func instanceID(id string) string { return "order-" + id }

// pizza places an order, waits until it is ready and delivers it; p fails at the handlers'
// points. One delivery in ten finds nobody at home at the first attempt.
func pizza(log eventlog.Log, p *points) *workflow.Definition[order] {
	return workflow.New("PizzaWorkflow",
		workflow.Process("Order",
			workflow.Command("place", orderTopic(log), func(_ context.Context, o *order) (placed, error) {
				p.at("handler.before")
				defer p.at("handler.after")
				o.Status = "PLACED"
				return placed{o.OrderID}, nil
			}),
			workflow.Listen("ready", statusTopic(log), workflow.By("order_id",
				func(o *order) string { return o.OrderID },
				func(m *done) string { return m.OrderID }),
				func(_ context.Context, o *order, m done) (bool, error) {
					p.at("handler.before")
					defer p.at("handler.after")
					o.Status = m.Status
					return m.Status == "READY", nil
				})),
		workflow.Process("Delivery",
			workflow.Execute("deliver", func(ctx context.Context, o *order) error {
				p.at("handler.before")
				defer p.at("handler.after")
				if workflow.TaskFrom(ctx).Attempt == 1 && chance("delivery "+o.OrderID, 10) {
					return errors.New("nobody opens the door")
				}
				o.Status = "DELIVERED"
				return nil
			}).With(workflow.Retry(5, 200*time.Millisecond))))
}

// chance is true for one name in n, and always for the same ones.
func chance(name string, n uint32) bool {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()%n == 0
}

// shop reads the orders and answers them; some twice, some about an order that nobody made.
// How far it has come in each partition stands in a file, written after the answers: killed,
// it answers some orders a second time.
type shop struct {
	log eventlog.Log
	dir string
}

// run works until ctx ends.
func (s *shop) run(ctx context.Context) error {
	topic, err := s.log.Topic(ctx, orderTopic(s.log))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for p := range topic.Partitions {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := s.serve(ctx, int32(p), topic.ID); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, "shop:", err)
					pause(ctx, 200*time.Millisecond) // the broker is away
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func (s *shop) serve(ctx context.Context, partition int32, topicID string) error {
	file := filepath.Join(s.dir, fmt.Sprintf("shop-%d", partition))
	var from int64
	if text, err := os.ReadFile(file); err == nil {
		from, _ = strconv.ParseInt(string(text), 10, 64) // torn: it begins again
	}
	r, err := s.log.Read(ctx, orderTopic(s.log), partition, from, topicID, eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		orders, next, err := r.Next(ctx)
		if err != nil {
			return err
		}
		var said []eventlog.Record
		for _, rec := range orders {
			var o placed
			if err := json.Unmarshal(rec.Value, &o); err != nil {
				return fmt.Errorf("order at offset %d: %w", rec.Offset, err)
			}
			said = append(said, s.answer(o.OrderID)...)
			if chance("twice "+o.OrderID, 6) {
				said = append(said, s.answer(o.OrderID)...)
			}
			if chance("unknown "+o.OrderID, 8) {
				said = append(said, s.answer("unknown-"+o.OrderID)...)
			}
		}
		if err := s.log.Publish(ctx, said...); err != nil {
			return err
		}
		if err := os.WriteFile(file, strconv.AppendInt(nil, next, 10), 0o600); err != nil {
			return err
		}
	}
}

func (s *shop) answer(id string) (l []eventlog.Record) {
	for _, m := range answers(id) {
		value, _ := json.Marshal(m) // never fails
		l = append(l, eventlog.Record{Topic: statusTopic(s.log), Partition: -1, Key: []byte(id), Value: value})
	}
	return l
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
