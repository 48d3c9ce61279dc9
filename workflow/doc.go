// Package workflow runs durable workflows: trees of ordinary Go functions whose every
// transition is an event in a log before anything follows from it. A process may die at any
// moment, and another one goes on.
//
// # Define
//
// A definition is a tree of nodes over one struct of parameters, which any handler may
// change. No type argument is written anywhere, and a handler of another struct does not
// compile.
//
//	type Order struct {
//		ID     string `json:"id"`
//		Status string `json:"status,omitempty"`
//	}
//
//	def := workflow.New("PizzaWorkflow",
//		workflow.Process("Order",
//			workflow.Command("place", "pizza_order_topic", place),
//			workflow.Listen("ready", "order_status_topic", workflow.By("order_id",
//				func(o *Order) string { return o.ID },
//				func(m *Ready) string { return m.OrderID }), ready)),
//		workflow.Process("Delivery",
//			workflow.Execute("deliver", courier.Deliver).With(workflow.Retry(5, time.Second))))
//
// Nodes run one after the other. Execute calls a function, Command sends a message in the
// very transaction of its event, Listen waits for a message that matches the instance; At and
// Every wait for times. Parallel runs branches at once, ForEach a sequence for each item of a
// list, Decide one of several nodes, Dynamic processes that are chosen at run time. Policies
// (Retry, Timeout, OnFailure, Deadline, …) are given with Node.With. A task that fails for
// good makes its instance fail, unless OnFailure says otherwise.
//
// A handler is func(context.Context, *Order) error or close to it. It gets parameters of its
// own for each attempt. When it returns nil the top-level fields that it changed are
// recorded, as a JSON merge patch; after an error or a panic nothing is. Parameters are
// JSON: what JSON would lose (unexported fields, for example) is a mistake that Register
// tells. Numbers keep every digit; in a field of type any they are json.Number. A string that is
// not valid UTF-8 is changed: bytes belong into []byte.
//
// # Register, run, start
//
//	eng, err := workflow.Open(ctx, workflow.Config{})    // embedded log and store in dagger-data
//	err = eng.Register(def)                              // tells every mistake at once
//	h, err := def.Start(ctx, eng, "order-42", Order{})   // idempotent by id
//	err = eng.Run(ctx)                                   // until ctx ends, then hands over
//
// The log and the store are opened by URL; a program links the drivers that it uses:
//
//	import (
//		_ "github.com/godagger/dagger/backends/all"      // pebble:, mem:
//		_ "github.com/godagger/dagger/eventlog/embedlog" // file:, mem:
//		_ "github.com/godagger/dagger/eventlog/kafkalog" // kafka:
//	)
//
// A zero Config is file:dagger-data/log with pebble:dagger-data/store: durable, one process,
// no server. With kafka://host:9092/app any number of processes share the work; each has the
// definitions registered and runs what the others leave. A process that only starts and
// inspects does not call Run.
//
// # Inspect and repair
//
// Handle.Status and Engine.Get say for each task of an instance what it does and in a
// sentence what it waits for. Engine.List and Engine.Count answer from the store and say as
// of which events. Handle.Events reads the instance's history from the log. Handle.Wait
// waits for the end. Handle.Stop ends an instance, Handle.Retry lets a failed one go on from
// the task that failed. What goes wrong with one instance stops no other.
//
// # What is guaranteed
//
//   - A transition that was acknowledged is not lost, and none is applied twice, whatever
//     dies, hangs or comes back. Start, Stop, Retry and Delete are
//     decided once.
//   - Handlers run at least once. A handler whose process died is started again, under the
//     same attempt number; a result that comes too late is dropped. Use
//     TaskFrom(ctx).IdempotencyKey towards the outside.
//   - The message of a Command goes out once for readers that read committed records only
//     (isolation.level=read_committed), and not at all unless the task completed.
//   - A message that matches a listener is given to it once: also one that came before the
//     listener was reached, or before its instance was started, within the time of Buffer.
//     What nobody took goes to the dead-letter topic.
//   - A retry, a time-out and a delay are in the log. They fire at or after their time, also
//     if nothing ran at that time.
//   - User code is never called to rebuild state. There are no rules of determinism.
//   - An instance goes on with the exact tree with which it was started. Register old
//     versions beside new ones until their instances have ended: a task without its code
//     waits, and says so.
//
// # Limits
//
// What passes between tasks are fields of the parameters, which nothing proves to be set.
// Parameters and messages are JSON and must fit a record of the log (one megabyte as Kafka
// comes); a name has at most 255 bytes, an id or a key's value 512. Functions given to By are called for every message of the topic: keep them cheap.
package workflow
