// Package machine is the pure core: what an instance and a correlation key do with a
// request (Turn.Decide) and what an event does to them (State.Evolve). It has no context,
// clock, randomness, I/O or goroutine, and no dependence on map order.
//
// Decide looks at a state and emits events; a state changes by Evolve alone, live and in
// replay, and Evolve needs neither plan nor user code. A Turn decides a batch of requests
// one after the other, each on what the ones before it left behind, and ends with the
// position event that makes the batch and the consumed position one fact.
//
// The rules that the code keeps are numbered as in docs/protocol.md. Rules has a switch for
// each, so that a test can show what breaks without it.
package machine
