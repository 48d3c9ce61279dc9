package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/workflow"
)

// Party is what the examples of lists know, Guest one run of the list.
type Party struct {
	Names  []string       `json:"names,omitempty"`
	Course []string       `json:"course,omitempty"`
	Served []string       `json:"served,omitempty"`
	Seats  map[string]int `json:"seats,omitempty"`
	Tries  int            `json:"tries,omitempty"`
	Alarm  bool           `json:"alarm,omitempty"`
}

type Guest struct {
	Name string `json:"name"`
	Seat int    `json:"seat,omitempty"`
}

func celebrate(def *workflow.Definition[Party], p Party) (got Party, err error) {
	err = run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := def.Start(ctx, eng, "party-1", p)
		if err != nil {
			return err
		}
		got, err = h.Wait(ctx)
		return err
	}, def)
	return got, err
}

func serve(what string) func(context.Context, *Party) error {
	return func(_ context.Context, p *Party) error { p.Served = append(p.Served, what); return nil }
}

// One run for each guest, two at once; their seats come back in the order of the list.
func ExampleForEach() {
	def := workflow.New("Party", workflow.ForEach("seat",
		func(_ context.Context, p *Party) (guests []Guest, err error) {
			for _, name := range p.Names {
				guests = append(guests, Guest{Name: name})
			}
			return guests, nil
		},
		func(_ context.Context, p *Party, guests []Guest) error {
			p.Seats = map[string]int{}
			for _, g := range guests {
				p.Seats[g.Name] = g.Seat
			}
			return nil
		},
		workflow.Execute("welcome", func(context.Context, *Guest) error { return nil }),
		workflow.Execute("seat", func(ctx context.Context, g *Guest) error {
			g.Seat = 10 + workflow.TaskFrom(ctx).Item
			return nil
		})).With(workflow.Concurrency(2)))
	p, err := celebrate(def, Party{Names: []string{"Ann", "Bob", "Cem"}})
	fmt.Println(p.Seats, err)
	// Output: map[Ann:10 Bob:11 Cem:12] <nil>
}

// The function chooses which processes run, in which order, and how often.
func ExampleDynamic() {
	def := workflow.New("Dinner", workflow.Dynamic("courses",
		func(_ context.Context, p *Party) ([]string, error) { return p.Course, nil },
		workflow.Process("soup", workflow.Execute("serve", serve("soup"))),
		workflow.Process("cake", workflow.Execute("serve", serve("cake")))))
	p, err := celebrate(def, Party{Course: []string{"cake", "soup", "cake"}})
	fmt.Println(p.Served, err)
	_, err = celebrate(def, Party{Course: []string{"fish"}})
	fmt.Println(err)
	// Output:
	// [cake soup cake] <nil>
	// Dinner party-1: courses failed at attempt 1: there is no process "fish"; there are soup, cake
}

// Where a node failed for good the flow goes on elsewhere: here back, twice at most.
func ExampleGoto() {
	def := workflow.New("Cook",
		workflow.Execute("cook", func(_ context.Context, p *Party) error { p.Tries++; return nil }),
		workflow.Execute("taste", func(_ context.Context, p *Party) error {
			if p.Tries < 3 {
				return errors.New("too salty")
			}
			return nil
		}).With(workflow.OnFailure(workflow.Goto("cook").Times(2))))
	p, err := celebrate(def, Party{})
	fmt.Println(p.Tries, err)
	// Output: 3 <nil>
}

// A process that must end in time: what is open in it then is skipped.
func ExampleDeadline() {
	def := workflow.New("Evening",
		workflow.Process("dance", workflow.Execute("all night", func(ctx context.Context, _ *Party) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})).With(workflow.Deadline(20*time.Millisecond, workflow.SkipRest)),
		workflow.Execute("home", serve("taxi")))
	p, err := celebrate(def, Party{})
	fmt.Println(p.Served, err)
	// Output: [taxi] <nil>
}

// A monitor runs at its time while the node is unfinished.
func ExampleNode_Monitor() {
	def := workflow.New("Watch", workflow.Every("eat",
		func(*Party) workflow.Interval { return workflow.Interval{Period: time.Millisecond} },
		func(_ context.Context, p *Party) (done bool, err error) { return p.Alarm, nil },
	).Monitor("smoke", func(*Party) workflow.Alarm { return workflow.Alarm{At: time.Now().Add(-time.Hour)} },
		func(_ context.Context, p *Party) error { p.Alarm = true; return nil }))
	p, err := celebrate(def, Party{})
	fmt.Println(p.Alarm, err)
	// Output: true <nil>
}

// A handler stops its instance; what the process has for that runs before it has ended.
func ExampleNode_OnStop() {
	def := workflow.New("Rain", workflow.Process("garden",
		workflow.Execute("look", func(context.Context, *Party) error { return workflow.Stop("it rains") }),
	).OnStop(serve("umbrellas")))
	p, err := celebrate(def, Party{})
	fmt.Println(p.Served, err)
	// Output: [umbrellas] workflow: instance was stopped: party-1: it rains
}
