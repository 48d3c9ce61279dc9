// Package workflow runs durable workflows: trees of ordinary Go functions. Each step of a
// workflow is an event in a log before anything follows from it, so a process may die at any
// moment, and another one goes on.
//
// # Define
//
// A definition is a tree of nodes. All handlers of a definition share one struct of parameters,
// which each of them may change. Type arguments are inferred, and a handler for another struct
// does not compile.
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
// Nodes run one after the other. Execute calls a function. Command sends a message in the same
// transaction as its event. Listen waits for a message that matches the instance. At and Every
// wait for times. Parallel runs branches at once, ForEach runs a sequence for each item of a
// list, Decide runs one of several nodes, and Dynamic runs processes that are chosen at run time.
// Policies (Retry, Timeout, OnFailure, Deadline and others) are given with Node.With. A task
// that fails for good makes its instance fail, unless OnFailure says otherwise.
//
// A handler is a func(context.Context, *Order) error or similar. Each attempt gets a copy of
// the parameters. When the handler returns nil, the top-level fields that it changed are
// recorded, as a JSON merge patch; after an error or a panic nothing is. Parameters are JSON.
// Register refuses a struct in which JSON would lose something, such as unexported fields.
// Numbers keep every digit; in a field of type any they are json.Number. A string that is not
// valid UTF-8 does not survive: use []byte for bytes.
//
// # Register, run, start
//
//	eng, err := workflow.Open(ctx, workflow.Config{})    // embedded log and store in dagger-data
//	err = eng.Register(def)                              // reports all mistakes at once
//	h, err := def.Start(ctx, eng, "order-42", Order{})   // idempotent by id
//	err = eng.Run(ctx)                                   // until ctx ends, then hands over
//
// The log and the store are opened by URL. A program imports the drivers that it uses:
//
//	import (
//		_ "github.com/godagger/dagger/backends/all"      // all stores; or one package of backends/
//		_ "github.com/godagger/dagger/eventlog/embedlog" // file:, mem:
//		_ "github.com/godagger/dagger/eventlog/kafkalog" // kafka:
//	)
//
// The zero Config is file:dagger-data/log with pebble:dagger-data/store: durable, for one
// process, without any server. With kafka://host:9092/app any number of processes share the
// work; each registers the definitions and runs what the others leave. A process that only
// starts and inspects instances does not call Run.
//
// # Inspect and repair
//
// Handle.Status and Engine.Get return, for each task of an instance, what it does and in a
// sentence what it waits for. Engine.List and Engine.Count read the store, and say up to which
// events their answer goes. Handle.Events reads the instance's history from the log, and
// Engine.History explains it. Handle.Wait waits for the end. Handle.Stop ends an instance.
// Handle.Retry lets a failed one go on from the task that failed. What goes wrong with one
// instance does not stop others.
//
// # What is guaranteed
//
//   - A transition that was acknowledged is not lost, and none is applied twice, whatever
//     dies, hangs or comes back. Start, Stop, Retry and Delete are decided once.
//   - Handlers run at least once. A handler whose process died is started again, under the
//     same attempt number; a result that comes too late is dropped. Give
//     TaskFrom(ctx).IdempotencyKey to other systems.
//   - Readers that read only committed records (isolation.level=read_committed) see the
//     message of a Command once, and only if the task completed.
//   - A message that matches a listener is given to it once. It may come before the listener is
//     reached, or before its instance is started, by up to the time of Buffer. What no
//     instance takes goes to the dead-letter topic.
//   - Retries, time-outs and delays are in the log. They fire at or after their time, even if
//     no process ran at that time.
//   - Your code is never called to rebuild state, so it need not be deterministic.
//   - An instance always runs the tree with which it was started. Register old versions beside
//     new ones until their instances have ended: a task whose code no process has waits,
//     and its status says so.
//
// # Limits
//
// Tasks pass data to each other in fields of the parameters; nothing checks that a field was
// set. Parameters and messages are JSON and must fit a record of the log (one megabyte by
// Kafka's default). A name has at most 255 bytes, an id or the value of a key 512. The
// functions given to By are called for every message of the topic: keep them fast.
package workflow
