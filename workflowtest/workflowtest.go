// Package workflowtest runs workflows in tests: the real engine on a log and a store in
// memory, in virtual time, where an hour of waiting takes no time at all.
//
// A test calls everything inside a bubble of testing/synctest:
//
//	func TestPizza(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			kit := workflowtest.New(t, pizza)
//			h := workflowtest.Start(kit, pizza, "order-1", Order{ID: "1"})
//			kit.Deliver("order_status_topic", Ready{ID: "1"})
//			kit.Advance(time.Minute)
//			order := workflowtest.RequireCompleted(kit, h)
//			...
//		})
//	}
//
// Handlers must not use the network or other things outside the bubble: give the definition
// fakes. Methods that find something wrong end the test.
package workflowtest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog" // mem:
	_ "github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/workflow"
)

// Kit is a running engine in a test. One goroutine uses it. Its methods end the test when something
// is wrong.
type Kit struct {
	// Engine is the engine, for what the kit has no method for.
	Engine *workflow.Engine

	t testing.TB
}

// pause is the virtual time that the engine gets after everything that a test does. It is
// longer than what the engine's parts wait for each other, and shorter than delays and
// time-outs that tests are about.
const pause = 50 * time.Millisecond

// New runs an engine with the definitions until the test ends. It must be called in a bubble
// of testing/synctest.
func New(t testing.TB, definitions ...workflow.AnyDefinition) *Kit {
	t.Helper()
	requireBubble(t)
	return open(t, workflow.Config{Log: "mem:?partitions=4", Store: "mem:", Logger: slog.New(slog.DiscardHandler)}, definitions...)
}

// open runs an engine until the test ends.
func open(t testing.TB, c workflow.Config, definitions ...workflow.AnyDefinition) *Kit {
	t.Helper()
	eng, err := workflow.Open(context.Background(), c)
	if err != nil {
		t.Fatalf("workflowtest: %v", err)
	}
	if err := eng.Register(definitions...); err != nil {
		t.Fatalf("workflowtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Errorf("workflowtest: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := eng.Close(); err != nil {
			t.Errorf("workflowtest: %v", err)
		}
	})
	k := &Kit{Engine: eng, t: t}
	k.Advance(pause)
	return k
}

func requireBubble(t testing.TB) {
	t.Helper()
	defer func() {
		if recover() != nil {
			t.Fatal("workflowtest: New was not called in a bubble: call it in the function given to synctest.Test")
		}
	}()
	synctest.Wait()
}

// Start starts an instance; "" makes up an id. When it returns, the instance has come as far as it
// can without waiting.
func Start[P any](k *Kit, d *workflow.Definition[P], id string, p P) *workflow.Handle[P] {
	k.t.Helper()
	h, err := d.Start(context.Background(), k.Engine, id, p)
	if err != nil {
		k.t.Fatalf("workflowtest: %v", err)
	}
	k.settle()
	return h
}

// Deliver publishes a message to a topic: a []byte as it is, anything else as JSON. When it returns,
// the instances that wait for it have reacted.
func (k *Kit) Deliver(topic string, message any) {
	k.t.Helper()
	value, raw := message.([]byte)
	if !raw {
		var err error
		if value, err = json.Marshal(message); err != nil {
			k.t.Fatalf("workflowtest: deliver to %s: %v", topic, err)
		}
	}
	if err := k.Engine.Log().Publish(context.Background(), eventlog.Record{Topic: topic, Partition: -1, Value: value}); err != nil {
		k.t.Fatalf("workflowtest: deliver to %s: %v", topic, err)
	}
	k.settle()
}

// Advance lets virtual time pass: whatever becomes due meanwhile has happened when it returns.
func (k *Kit) Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (k *Kit) settle() { k.Advance(pause) }

// Sent returns the messages in a topic, decoded as M: those of Command tasks and of Deliver.
func Sent[M any](k *Kit, topic string) []M {
	k.t.Helper()
	var messages []M
	for _, r := range k.records(topic) {
		var m M
		if err := json.Unmarshal(r.Value, &m); err != nil {
			k.t.Fatalf("workflowtest: message of %s: %v", topic, err)
		}
		messages = append(messages, m)
	}
	return messages
}

func (k *Kit) records(topic string) []eventlog.Record {
	k.t.Helper()
	ctx := context.Background()
	log := k.Engine.Log()
	t, err := log.Topic(ctx, topic)
	if err != nil {
		k.t.Fatalf("workflowtest: %v", err)
	}
	var all []eventlog.Record
	for p, part := range t.Partitions {
		r, err := log.Read(ctx, topic, int32(p), part.Start, t.ID, eventlog.ReadCommitted)
		if err != nil {
			k.t.Fatalf("workflowtest: %v", err)
		}
		for next := part.Start; next < part.End; {
			var records []eventlog.Record
			if records, next, err = r.Next(ctx); err != nil {
				k.t.Fatalf("workflowtest: %v", err)
			}
			all = append(all, records...)
		}
		if err := r.Close(); err != nil {
			k.t.Fatalf("workflowtest: %v", err)
		}
	}
	return all
}

// RequireStatus requires a status of an instance, and returns what else is known of it.
func (k *Kit) RequireStatus(id string, want workflow.Status) workflow.Instance {
	k.t.Helper()
	i := k.instance(id)
	if i.Status != want {
		k.t.Fatalf("%s is %s, want %s\n%s", id, i.Status, want, describe(i))
	}
	return i
}

// RequireTask requires a status of one task of an instance.
func (k *Kit) RequireTask(id, path string, want workflow.Status) workflow.TaskStatus {
	k.t.Helper()
	i := k.instance(id)
	for _, t := range i.Tasks {
		if t.Path == path {
			if t.Status != want {
				k.t.Fatalf("%s of %s is %s, want %s\n%s", path, id, t.Status, want, describe(i))
			}
			return t
		}
	}
	k.t.Fatalf("%s has no task %s\n%s", id, path, describe(i))
	panic("unreachable")
}

// RequireCompleted requires that an instance has completed, and returns its parameters.
func RequireCompleted[P any](k *Kit, h *workflow.Handle[P]) P {
	k.t.Helper()
	k.RequireStatus(h.ID(), workflow.Completed)
	p, err := h.Wait(context.Background())
	if err != nil {
		k.t.Fatalf("workflowtest: %v", err)
	}
	return p
}

func (k *Kit) instance(id string) workflow.Instance {
	k.t.Helper()
	i, err := k.Engine.Get(context.Background(), id)
	if err != nil {
		k.t.Fatalf("workflowtest: %v", err)
	}
	return i
}

// describe says in lines what an instance does.
func describe(i workflow.Instance) string {
	var b strings.Builder
	if i.Error != "" {
		fmt.Fprintf(&b, "\terror: %s\n", i.Error)
	}
	for _, t := range i.Tasks {
		fmt.Fprintf(&b, "\t%-30s %-12s %s\n", t.Path, t.Status, t.WaitsFor)
	}
	return b.String()
}
