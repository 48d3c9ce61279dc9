// Package scheduler decides when the entries of a due index are due: retries, time-outs,
// deadlines, the times of At, Every and monitors, and what else must happen at a time.
//
// The whole index is in the store. A Scheduler keeps the near future of one partition in
// memory, each entry once, in order of time, so that its owner can sleep until the next one
// and fire it within milliseconds. It also says when the index must be read again: what
// memory forgot is found then, and is reported, for there should be nothing. An entry that is
// no longer wanted proves itself false when it fires; nothing is taken out before.
//
// A Scheduler has no clock and no goroutine: the owner tells it the time, which may be set
// back or forward. Times are milliseconds since 1970 UTC.
package scheduler
