package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// play is one run: some orders, two simple instances that one message completes, and one that
// is stopped.
type play struct {
	options
	out    io.Writer
	log    eventlog.Log
	wanted []string // ids, in the order in which they were started

	mu    sync.Mutex
	ended map[string]string // id -> status
}

// command is what the service asks others for, and what they answer with.
type command struct {
	OrderID string `json:"order_id"`
	BoxID   string `json:"box_id"`
}

func (p *play) run(ctx context.Context) (err error) {
	if err := p.awaitService(ctx); err != nil {
		return err
	}
	if p.log, err = eventlog.Open(ctx, p.options.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.log.Close()) }()

	ctx, cancel := context.WithCancelCause(ctx)
	var services sync.WaitGroup
	defer services.Wait()
	defer cancel(nil)
	answer := func(topic string, say func(command) []eventlog.Record) error {
		from, err := p.log.Topic(ctx, topic)
		if err != nil {
			return err
		}
		for k, part := range from.Partitions {
			services.Go(func() {
				if err := p.serve(ctx, from, int32(k), part.End, say); err != nil && ctx.Err() == nil {
					cancel(err)
				}
			})
		}
		return nil
	}
	err = errors.Join(
		// Whoever is paid says so; the fulfilment is told of another box by that.
		answer("PAYMENT_COMMAND", func(c command) []eventlog.Record {
			return []eventlog.Record{record("PAYMENT_LISTENER", command{OrderID: c.OrderID, BoxID: c.OrderID}), record("NOOP_LISTENER_2", command{OrderID: c.OrderID})}
		}),
		answer("FULFILLMENT_COMMAND", func(c command) []eventlog.Record {
			return []eventlog.Record{record("FULFILLMENT_LISTENER", c)}
		}))
	if err != nil {
		return err
	}
	if err := p.place(ctx); err != nil {
		return err
	}
	return p.watch(ctx)
}

// record is a message without key and headers.
func record(topic string, v any) eventlog.Record {
	value, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings
	}
	return eventlog.Record{Topic: topic, Partition: -1, Value: value}
}

// serve answers the commands of a partition.
func (p *play) serve(ctx context.Context, topic eventlog.Topic, partition int32, from int64, say func(command) []eventlog.Record) error {
	// What a task could not commit was never sent.
	r, err := p.log.Read(ctx, topic.Name, partition, from, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		if err != nil {
			return err
		}
		var answers []eventlog.Record
		for _, rec := range records {
			var c command
			if json.Unmarshal(rec.Value, &c) != nil || c.OrderID == "" {
				continue // rubbish is not answered
			}
			answers = append(answers, say(c)...)
		}
		if err := p.log.Publish(ctx, answers...); err != nil {
			return err
		}
	}
}

// place starts everything, and stops one.
func (p *play) place(ctx context.Context) error {
	var records []eventlog.Record
	for n := range p.orders {
		number := strconv.FormatInt(p.first+int64(n), 10)
		p.wanted = append(p.wanted, "ID00"+number)
		records = append(records, eventlog.Record{Topic: "orders_topic", Partition: -1, Value: []byte(number)})
	}
	simple := []string{fmt.Sprintf("simple-%d-a", p.first), fmt.Sprintf("simple-%d-b", p.first), fmt.Sprintf("simple-%d-c", p.first)}
	p.wanted = append(p.wanted, simple...)
	for _, id := range simple {
		records = append(records, record("simple_topic", id))
	}
	if err := p.log.Publish(ctx, records...); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "placed %d orders, ID00%d to %s, and started %d simple instances\n", p.orders, p.first, p.wanted[p.orders-1], len(simple))
	// A stop that overtakes its start would be a dead letter.
	if err := p.await(ctx, simple[2]); err != nil {
		return err
	}
	return p.log.Publish(ctx, record("SIMPLE_LISTENER", map[string][]string{"simple_id": simple[:2]}), record("simple_topic_stop", simple[2]))
}

// watch shows how the instances end.
func (p *play) watch(ctx context.Context) error {
	began := time.Now()
	left := slices.Clone(p.wanted)
	for len(left) > 0 {
		var open []string
		for _, id := range left {
			status, err := p.status(ctx, id)
			switch {
			case err != nil:
				return err
			case status == "COMPLETED" || status == "FAILURE" || status == "STOPPED":
				p.mu.Lock()
				p.ended[id] = status
				p.mu.Unlock()
				fmt.Fprintf(p.out, "%-9s %s after %.1f s\n", status, id, time.Since(began).Seconds())
			default:
				open = append(open, id)
			}
		}
		if left = open; len(left) > 0 {
			if err := pause(ctx); err != nil {
				return fmt.Errorf("%w: %s waits", err, left[0])
			}
		}
	}
	return nil
}

func (p *play) count(status string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.ended {
		if s == status {
			n++
		}
	}
	return n
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(200 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitService waits until the service is ready.
func (p *play) awaitService(ctx context.Context) error {
	for told := false; ; told = true {
		var answer struct {
			IsReady bool `json:"is_ready"`
		}
		code, err := p.get(ctx, "/service/ready", &answer)
		if err == nil && code == http.StatusOK && answer.IsReady {
			return nil
		}
		if !told {
			fmt.Fprintf(p.out, "waiting for the service at %s\n", p.http)
		}
		if cause := pause(ctx); cause != nil {
			return fmt.Errorf("%w: the service at %s is not ready: start it with `go run ./examples/orders`", cause, p.http)
		}
	}
}

// await waits until an instance exists.
func (p *play) await(ctx context.Context, id string) error {
	for {
		status, err := p.status(ctx, id)
		if err != nil || status != "" {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%w: %s was not started", err, id)
		}
	}
}

// status is an instance's, "" as long as it does not exist or the service is away.
func (p *play) status(ctx context.Context, id string) (string, error) {
	var i struct {
		Status string `json:"status"`
	}
	code, err := p.get(ctx, "/api/v1/instances/"+url.PathEscape(id), &i)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil || code != http.StatusOK { // it is asked again
		return "", nil
	}
	return i.Status, nil
}

func (p *play) get(ctx context.Context, path string, v any) (code int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.http+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(v)
}
