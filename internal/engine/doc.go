// Package engine runs instances: it drives the pure state machine (internal/machine) with a log,
// a store and user code.
//
// # How it works
//
// Each partition has one owner: a step function, without goroutines, channels or a clock, that
// alone changes the partition's state. The phases of an owner, in this order:
//
//  0. Proof: commit an offset to the consumer group, which only a current member can.
//  1. Fence: take over the partition's producer. From here on the appends and commits of an
//     earlier owner fail.
//  2. Barrier: commit a marker. What stands before it is final. The number of the PartitionOwned
//     event that follows is this owner's epoch.
//  3. Recover: load the store's rows and fold the events after the store's watermark.
//  4. Consume requests, from the position that the events name.
//  5. Loop: decide requests on the state in memory, commit the resulting events and messages as
//     one transaction, fold them, and only then start handlers, arm timers and answer callers.
//  6. Forward: send what the committed events tell other partitions to their requests topic.
//  7. Project: write the changed rows and the watermark to the store as one atomic unit. This
//     happens behind the loop, which does not wait for it.
//
// A runner drives an owner with a goroutine and does its I/O. A relay reads one topic that
// listeners wait for and brings its messages to the partitions that own their correlation keys.
// The pool runs user code. Tests drive all of them with one goroutine and a seed (sim_*_test.go).
// Comments that say "protocol rule N" refer to docs/protocol.md.
//
// # Where to find what
//
// The files fall into the groups below. A group uses what stands above it, except that
// [Engine], which wires everything, knows of all that runs in the background.
//
// Vocabulary and user code:
//
//	errors.go, ops.go      sentinels; what an owner asks its runner to do, and the answers
//	code.go, computed.go   a plan with the Go functions behind it
//	handler.go             one call of a user's function, and its result as a request
//	pool.go, pool_limit.go the bounded set of goroutines that run those calls
//	compose.go             code of a definition that is composed of others
//	registry.go, plandiff.go, definition.go
//	                       the definitions known here and in the log
//	rows.go                a partition's state as rows of the store
//
// One partition:
//
//	owner.go               the step function: its fields, and phases 0 to 2
//	owner_recover.go       phases 3 and 4
//	owner_turn.go          phase 5: what goes into a transaction
//	owner_follow.go        phase 5: what follows when it has committed
//	project.go, cache.go   phase 7, and which instances stay in memory
//	timers.go, met.go, updates.go, block.go
//	                       parts of an owner: timers, what a fold has seen, the updates topic,
//	                       the index of which events name which instance
//	runner.go, runner_io.go
//	                       the goroutine and the I/O of an owner
//	await.go               how it waits for quick handlers before the next turn
//	forward.go             phase 6
//	fenced.go, steady.go   why a store refused an owner; how long a failing store is asked again
//
// The whole process:
//
//	engine.go, run.go      Config; Engine and its Run: membership, runners, relays, shutdown
//	relay.go, relay_spec.go, trigger.go, relay_run.go
//	                       messages for listeners, and messages that start or stop instances
//	assigned.go            a goroutine for each partition that a consumer group assigns
//	observer.go, problems.go, absence.go, letters.go
//	                       metrics; what keeps the process from being ready; a log or store that
//	                       does not answer; a line in the engine's log about dead letters
//
// Calls and questions:
//
//	client.go, follow.go   a call, and how its caller waits for the outcome
//	list.go, list_lane.go, list_read.go, count.go
//	                       pages and numbers of instances, from the store
//	elsewhere.go, peer.go, peer_ask.go
//	                       what stands in the stores of other processes, asked over HTTP
//
// Reading the log:
//
//	fold.go, instance.go   the state of one instance
//	asof.go, asof_all.go, point.go
//	                       one instance, or all of them, as of an earlier moment
//	named.go, search.go, walk.go
//	                       the events of one instance, without reading those of all others
//	history.go, history_diff.go
//	                       what happened to an instance; what differs between two states
//	folder.go              a whole partition, folded by the owner's own steps; the next group
//	                       is built on it
//
// The store compared with the log, and made anew:
//
//	rebuild.go             fold a partition again
//	verify.go, verifier.go compare once; compare all the time in the background
//	copystate.go, storesum.go
//	                       make another store, and compare the two
//	snapshot.go, restore.go, checkpoint.go
//	                       copies of a store's partitions, and starting from them
//
// The log moved:
//
//	copylog.go, copylog_*.go
//	                       into a log with as many partitions
//	export.go, import.go, import_write.go
//	                       to JSON lines, and from them into a log with any number of partitions
//	filling.go, resume.go  marks a log that is not yet complete, and goes on after a cut
package engine
