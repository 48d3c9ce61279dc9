// Package scheduler decides when timers fire: retries, time-outs, deadlines, the times of At,
// Every and monitors, and whatever else must happen at a time.
//
// All timers of a partition are entries of an index in its store, ordered by time. A Scheduler
// keeps those of the near future in memory, so that the partition's owner can sleep until the next
// one and fire it within milliseconds. From time to time it has the owner read the index again. If
// an entry is found then that memory should have had, it fires too, but it counts as forgotten and
// is reported: that should never happen.
//
// An entry that is no longer wanted is not removed from memory. When it fires, the owner sees
// that nothing waits for it.
//
// A Scheduler has no clock and no goroutine. The owner passes it the time, which may jump forward
// or back. Times are in milliseconds since 1970 UTC.
package scheduler
