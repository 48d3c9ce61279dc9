package workflow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// ended waits for the end of an instance that a record starts, as soon as that was read.
func ended[P any](ctx context.Context, h *workflow.Handle[P]) (P, error) {
	for {
		p, err := h.Wait(ctx)
		if !errors.Is(err, workflow.ErrNotFound) {
			return p, err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
}

// say appends records to a topic, as any program may.
func say(ctx context.Context, eng *workflow.Engine, topic string, values ...string) error {
	for _, v := range values {
		if err := eng.Log().Publish(ctx, eventlog.Record{Topic: topic, Partition: -1, Value: []byte(v)}); err != nil {
			return err
		}
	}
	return nil
}

// Each record of orders_topic, a number, starts an order, once. What is no number goes to the
// dead letters.
func ExampleStartOn() {
	def := workflow.New("Orders", workflow.Execute("book", func(_ context.Context, t *Trip) error { t.Hotel = "Ritz"; return nil }))
	def = workflow.StartOn(def, "orders_topic", func(_ context.Context, n *json.Number) (string, Trip, error) {
		budget, err := n.Int64()
		return "ID00" + n.String(), Trip{Budget: int(budget)}, err
	})
	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		if err := say(ctx, eng, "orders_topic", "7", "rubbish", "8", "7"); err != nil {
			return err
		}
		for _, id := range []string{"ID007", "ID008"} {
			trip, err := ended(ctx, def.Handle(eng, id))
			fmt.Println(id, trip.Hotel, trip.Budget, err)
		}
		return nil
	}, def)
	fmt.Println(err)
	// Output:
	// ID007 Ritz 7 <nil>
	// ID008 Ritz 8 <nil>
	// <nil>
}

// A record of the one topic starts an instance, the same record of the other one stops it.
func ExampleStopOn() {
	def := workflow.New("Simple", workflow.At("never", func(*Trip) time.Time { return time.Time{} }, func(context.Context, *Trip) error { return nil }))
	def = workflow.StartOn(def, "simple_topic", func(_ context.Context, id *string) (string, Trip, error) { return *id, Trip{}, nil })
	def = workflow.StopOn(def, "simple_topic_stop", func(_ context.Context, id *string) (string, error) { return *id, nil })
	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		if err := say(ctx, eng, "simple_topic", `"a"`); err != nil {
			return err
		}
		if err := say(ctx, eng, "simple_topic_stop", `"a"`); err != nil { // it may be read first
			return err
		}
		_, err := ended(ctx, def.Handle(eng, "a"))
		return err
	}, def)
	fmt.Println(err)
	// Output: workflow: instance was stopped: a: record simple_topic_stop/0@0
}

// Only records that come after the definition was registered start instances.
func ExampleFrom() {
	def := workflow.New("Orders", workflow.Execute("book", func(context.Context, *Trip) error { return nil }))
	def = workflow.StartOn(def, "orders_topic", func(_ context.Context, id *string) (string, Trip, error) {
		return *id, Trip{}, nil
	}, workflow.From(workflow.Latest))
	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		if err := say(ctx, eng, "orders_topic", `"a"`); err != nil {
			return err
		}
		_, err := ended(ctx, def.Handle(eng, "a"))
		return err
	}, def)
	fmt.Println(err)
	// Output: <nil>
}

// A record without an id of its own takes one from where it stands, and the same one when it
// is looked at again.
func ExampleIDFrom() {
	def := workflow.New("Orders", workflow.Execute("book", func(context.Context, *Trip) error { return nil }))
	workflow.StartOn(def, "orders_topic", func(ctx context.Context, trip *Trip) (string, Trip, error) {
		m := workflow.MessageFrom(ctx)
		return workflow.IDFrom(fmt.Sprint(m.TopicID, m.Partition, m.Offset)), *trip, nil
	})
	fmt.Println(workflow.IDFrom("orders_topic/0/17"))
	fmt.Println(workflow.IDFrom("orders_topic/0/17"))
	// Output:
	// 2da69a5f-3125-5879-94b1-ca75e0da24cd
	// 2da69a5f-3125-5879-94b1-ca75e0da24cd
}

// A definition is composed, while the engine runs, of processes whose names somebody gives.
func ExampleDefinition_Process() {
	library := workflow.New("Library",
		workflow.Process("Hotel", workflow.Execute("book", func(_ context.Context, t *Trip) error { t.Hotel = "Ritz"; return nil })),
		workflow.Process("Flight", workflow.Execute("book", func(_ context.Context, t *Trip) error { t.Flight = "LH 1"; return nil })))
	err := run(func(ctx context.Context, eng *workflow.Engine) error {
		names := strings.Fields("Flight Hotel")
		var nodes []workflow.Node[Trip]
		for _, name := range names {
			nodes = append(nodes, library.Process(name))
		}
		def := workflow.New(strings.Join(names, "Then"), nodes...)
		if err := eng.Register(def); err != nil {
			return err
		}
		h, err := def.Start(ctx, eng, "trip-1", Trip{})
		if err != nil {
			return err
		}
		trip, err := h.Wait(ctx)
		if err != nil {
			return err
		}
		i, err := h.Status(ctx)
		paths := []string{}
		for _, t := range i.Tasks {
			paths = append(paths, t.Path)
		}
		fmt.Println(i.Definition, slices.Sorted(slices.Values(paths)), trip.Hotel, trip.Flight)
		return err
	}, library)
	fmt.Println(err)
	// Output:
	// FlightThenHotel [Flight/book Hotel/book] Ritz LH 1
	// <nil>
}

// Another tree under the same name and version is refused, with the difference.
func ExampleDefinition_Version() {
	book := func(context.Context, *Trip) error { return nil }
	v1 := workflow.New("Book", workflow.Execute("hotel", book))
	v2 := workflow.New("Book", workflow.Execute("hotel", book).With(workflow.Timeout(time.Minute)), workflow.Execute("flight", book))
	err := run(func(_ context.Context, eng *workflow.Engine) error {
		err := eng.Register(v2)
		fmt.Println(errors.Is(err, workflow.ErrChanged))
		for _, line := range strings.Split(err.Error(), "\n")[1:3] {
			fmt.Println(strings.TrimSpace(line))
		}
		return eng.Register(v2.Version(2)) // both live
	}, v1)
	fmt.Println(err)
	// Output:
	// true
	// hotel: timeout was not set, is 1m0s
	// flight: a new execute
	// <nil>
}
