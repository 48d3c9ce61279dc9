// Package projection holds what a store is to the engine: a cache of the fold.
//
// A store keeps, for each partition, rows and a watermark. A row is (kind, key, value);
// kinds are open bytes, keys are byte strings ordered bytewise, values may be empty. The
// watermark is the number N of the last event that was folded into the rows.
//
//  1. The rows of a partition are a function of the partition's events 1..N. Apply changes
//     rows, counters and watermark as one atomic unit.
//  2. Apply is compare-and-set on (N, epoch): it is applied; or was already (the same batch
//     again, after a lost reply: nil as well); or ErrWatermark, when the store stands
//     elsewhere; or ErrFenced, when a later epoch acquired the partition. In the last two
//     cases nothing was written.
//  3. Get and Scan return the N of the rows they read, read in the same atomic step.
//  4. A store that finds rows missing or damaged says ErrStateLost and never guesses; the
//     engine then rebuilds that partition while the others work on.
//  5. The watermark carries the log's identity and a checksum of its last event, so that a
//     store of another log, or of another history, is noticed.
//  6. No fsync is needed: after a crash a store may stand at any earlier watermark it had
//     acknowledged, with exactly the rows of that watermark.
//  7. Slices given to Apply may be kept by nobody after it returns; slices returned by Get
//     and Scan belong to the caller.
//
// The suite storetest.Run is the contract of a backend.
package projection
