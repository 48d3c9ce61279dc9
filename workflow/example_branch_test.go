package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/workflow"
)

// Trip is what the examples of branches know.
type Trip struct {
	Hotel  string    `json:"hotel,omitempty"`
	Flight string    `json:"flight,omitempty"`
	Driver string    `json:"driver,omitempty"`
	Budget int       `json:"budget,omitempty"`
	Asked  int       `json:"asked,omitempty"`
	Start  time.Time `json:"start,omitzero"`
}

// finish starts an instance and waits for its end.
func finish(def *workflow.Definition[Trip], trip Trip) (got Trip, err error) {
	err = run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := def.Start(ctx, eng, "trip-1", trip)
		if err != nil {
			return err
		}
		got, err = h.Wait(ctx)
		return err
	}, def)
	return got, err
}

// Both branches change the parameters, each a field of its own; the third may fail.
func ExampleParallel() {
	def := workflow.New("Book", workflow.Parallel("book", workflow.All,
		workflow.Execute("hotel", func(_ context.Context, t *Trip) error { t.Hotel = "Ritz"; return nil }),
		workflow.Process("air",
			workflow.Execute("flight", func(_ context.Context, t *Trip) error { t.Flight = "LH 1"; return nil })),
		workflow.Execute("insurance", func(context.Context, *Trip) error {
			return errors.New("no offer")
		}).With(workflow.OnFailure(workflow.Continue))))
	trip, err := finish(def, Trip{})
	fmt.Println(trip.Hotel, trip.Flight, err)
	// Output: Ritz LH 1 <nil>
}

// The first branch that completes ends the Parallel; the others are skipped, and the context
// of their handlers ends.
func ExampleParallel_any() {
	def := workflow.New("Ride", workflow.Parallel("drivers", workflow.Any,
		workflow.Execute("ann", func(context.Context, *Trip) error { return errors.New("is busy") }),
		workflow.Execute("bob", func(_ context.Context, t *Trip) error { t.Driver = "Bob"; return nil }),
		workflow.Execute("cem", func(ctx context.Context, t *Trip) error {
			<-ctx.Done() // thinks about it
			return context.Cause(ctx)
		})))
	trip, err := finish(def, Trip{})
	fmt.Println(trip.Driver, err)
	// Output: Bob <nil>
}

// The function names the branch that runs; "" is none of them.
func ExampleDecide() {
	def := workflow.New("Travel", workflow.Decide("how",
		func(_ context.Context, t *Trip) (string, error) {
			if t.Budget > 100 {
				return "fly", nil
			}
			return "", nil
		},
		workflow.Execute("fly", func(_ context.Context, t *Trip) error { t.Flight = "LH 1"; return nil })))
	for _, budget := range []int{50, 500} {
		trip, err := finish(def, Trip{Budget: budget})
		fmt.Printf("%d: %q %v\n", budget, trip.Flight, err)
	}
	// Output:
	// 50: "" <nil>
	// 500: "LH 1" <nil>
}

// The task waits until the time that the parameters say; when they change, it moves.
func ExampleAt() {
	def := workflow.New("Leave", workflow.Parallel("wait", workflow.All,
		workflow.At("leave", func(t *Trip) time.Time { return t.Start }, func(_ context.Context, t *Trip) error {
			fmt.Println("too early:", time.Now().Before(t.Start))
			return nil
		}),
		workflow.Execute("hurry", func(_ context.Context, t *Trip) error {
			t.Start = time.Now().Add(20 * time.Millisecond)
			return nil
		})))
	_, err := finish(def, Trip{Start: time.Now().Add(24 * time.Hour)})
	fmt.Println(err)
	// Output:
	// too early: false
	// <nil>
}

// The task runs each period until it says done.
func ExampleEvery() {
	def := workflow.New("Ask", workflow.Every("hotel",
		func(*Trip) workflow.Interval { return workflow.Interval{Period: 5 * time.Millisecond} },
		func(_ context.Context, t *Trip) (done bool, err error) {
			t.Asked++
			return t.Asked == 3, nil
		}))
	trip, err := finish(def, Trip{})
	fmt.Println(trip.Asked, err)
	// Output: 3 <nil>
}
