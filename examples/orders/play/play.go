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
	"strings"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// result is how the instances of a run ended.
type result struct{ orders, completed, stopped, failed int }

// String is the last line of a run.
func (r result) String() string {
	return fmt.Sprintf("orders=%d completed=%d stopped=%d", r.orders, r.completed, r.stopped)
}

// expected says that all orders and all simple instances but the one that was stopped completed.
func (r result) expected() bool {
	return r == result{orders: r.orders, completed: r.orders + simpleInstances - 1, stopped: 1}
}

// simpleInstances are started beside the orders: one message completes two, one is stopped.
const simpleInstances = 3

// playOn waits for the service, plays the others until everything that it started has ended or
// ctx ends, and says how.
func playOn(ctx context.Context, log eventlog.Log, o options, out io.Writer) (result, error) {
	if !strings.Contains(o.http, "://") {
		o.http = "http://" + o.http
	}
	p := &play{options: o, out: out, log: log, began: time.Now(), ended: map[string]string{}}
	for n := range p.orders {
		p.placed = append(p.placed, "ID00"+strconv.FormatInt(p.first+int64(n), 10))
	}
	for k := range simpleInstances {
		p.simple = append(p.simple, fmt.Sprintf("simple-%d-%c", p.first, 'a'+k))
	}
	err := p.run(ctx)
	r := result{orders: p.orders}
	for _, status := range p.ended {
		switch status {
		case "COMPLETED":
			r.completed++
		case "STOPPED":
			r.stopped++
		default:
			r.failed++
		}
	}
	return r, err
}

type play struct {
	options
	log            eventlog.Log
	began          time.Time
	placed, simple []string          // ids
	ended          map[string]string // id -> status

	mu  sync.Mutex
	out io.Writer
}

// command is what the service asks others for, and what they answer with.
type command struct {
	OrderID string `json:"order_id"`
	BoxID   string `json:"box_id,omitempty"`
}

func (p *play) run(ctx context.Context) error {
	if err := p.awaitService(ctx); err != nil {
		return err
	}
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
				if err := p.serve(ctx, from, int32(k), part, say); err != nil && ctx.Err() == nil {
					cancel(err)
				}
			})
		}
		return nil
	}
	err := errors.Join(
		// Whoever was paid says which box it is: the listener for the packed box waits for that.
		answer("PAYMENT_COMMAND", func(c command) []eventlog.Record {
			return []eventlog.Record{record("PAYMENT_LISTENER", command{c.OrderID, c.OrderID}), record("NOOP_LISTENER_2", command{OrderID: c.OrderID})}
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

// say shows a line.
func (p *play) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%6.1f s  %s\n", time.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

// record is a message without key and headers.
func record(topic string, v any) eventlog.Record {
	value, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings
	}
	return eventlog.Record{Topic: topic, Partition: -1, Value: value}
}

// serve answers the commands of a partition: new ones, and old ones for orders of this run,
// which an earlier run with the same numbers may have left open.
func (p *play) serve(ctx context.Context, topic eventlog.Topic, partition int32, part eventlog.Partition, answers func(command) []eventlog.Record) error {
	// What a task could not commit was never sent.
	r, err := p.log.Read(ctx, topic.Name, partition, part.Start, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		if err != nil {
			return err
		}
		var publish []eventlog.Record
		for _, rec := range records {
			var c command
			if json.Unmarshal(rec.Value, &c) != nil || c.OrderID == "" {
				continue // rubbish is not answered
			}
			if rec.Offset < part.End && !p.mine(c.OrderID) {
				continue
			}
			for _, answer := range answers(c) {
				publish = append(publish, answer)
				p.say("%-19s %s  -> %s %s", topic.Name, c.OrderID, answer.Topic, answer.Value)
			}
		}
		if err := p.log.Publish(ctx, publish...); err != nil {
			return err
		}
	}
}

// mine says that an order is one of this run.
func (p *play) mine(id string) bool {
	number, isOrder := strings.CutPrefix(id, "ID00")
	n, err := strconv.ParseInt(number, 10, 64)
	return isOrder && err == nil && n >= p.first && n < p.first+int64(p.orders)
}

// place starts everything, and stops one.
func (p *play) place(ctx context.Context) error {
	var records []eventlog.Record
	for _, id := range p.placed {
		records = append(records, eventlog.Record{Topic: "orders_topic", Partition: -1, Value: []byte(strings.TrimPrefix(id, "ID00"))})
	}
	for _, id := range p.simple {
		records = append(records, record("simple_topic", id))
	}
	if err := p.log.Publish(ctx, records...); err != nil {
		return err
	}
	p.say("%-19s %s to %s", "orders_topic", p.placed[0], p.placed[p.orders-1])
	p.say("%-19s %s", "simple_topic", strings.Join(p.simple, ", "))
	stop := p.simple[simpleInstances-1]
	if err := p.await(ctx, stop); err != nil { // a stop that overtakes its start is a dead letter
		return err
	}
	message := record("SIMPLE_LISTENER", map[string][]string{"simple_id": p.simple[:simpleInstances-1]})
	p.say("%-19s %s", message.Topic, message.Value)
	p.say("%-19s %s", "simple_topic_stop", stop)
	return p.log.Publish(ctx, message, record("simple_topic_stop", stop))
}

// watch shows how the instances end.
func (p *play) watch(ctx context.Context) error {
	left := slices.Concat(p.placed, p.simple)
	for {
		var open []string
		for _, id := range left {
			status, err := p.status(ctx, id)
			switch {
			case err != nil:
				return err
			case status == "COMPLETED" || status == "FAILURE" || status == "STOPPED":
				p.ended[id] = status
				p.say("%-19s %s", status, id)
			default:
				open = append(open, id)
			}
		}
		if left = open; len(left) == 0 {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%w: %d have not ended, the first of them is %s", err, len(left), left[0])
		}
	}
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
			p.say("waiting for the service at %s", p.http)
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
