// Package projection has the interface to a store, and what is built on it.
//
// A store is a cache. The events of a log are the truth; the state that they lead to (what an
// instance does, what it waits for, the lists of instances) is computed from them, which we call
// folding, and kept in a store so that it need not be computed again. A store can be thrown away
// and made anew from the log at any time.
//
// A store keeps rows and a watermark for each partition of the log. A row has a kind, a key and a
// value. Keys are byte strings, ordered by their bytes; values may be empty. The watermark is the
// number N of the last event that is folded into the rows. This is the contract:
//
//  1. The rows of a partition are a function of its events 1 to N. Apply changes rows, counters
//     and watermark together, or nothing.
//  2. Apply compares N and the epoch of the caller with those of the store. It returns nil when
//     the batch was applied, now or before (the same batch comes again when a reply was lost). It
//     returns ErrWatermark when the store is at another event, and ErrFenced when a later epoch
//     has acquired the partition; in both cases nothing was written.
//  3. Get and Scan return, with the rows, the N at which they read them in the same atomic step.
//  4. A store that finds rows missing or damaged returns ErrStateLost and does not guess. The
//     engine then rebuilds that partition, while the others work on.
//  5. The watermark has the id of the log and a checksum of its last event, so that the store of
//     another log, or of another history, is noticed.
//  6. A store need not sync to disk. After a crash it may be at any earlier watermark that it had
//     acknowledged, with exactly the rows of that watermark.
//  7. A store must not keep slices that were given to Apply. Slices that Get and Scan return
//     belong to the caller.
//
// The suite storetest.Run checks all of it for a backend; docs/backends.md says how to write one.
//
// Follow folds the events of a log into a store with a function of yours: a projection.
package projection
