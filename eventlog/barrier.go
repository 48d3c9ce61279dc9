package eventlog

import "bytes"

// BarrierType is the type header of a barrier: a record that an owner commits to its
// partition right after it fenced it. A barrier is no event and has no number (n is 0);
// what stands before it in the partition can't grow any more. Readers skip it.
const BarrierType Type = "Barrier"

// Barrier is the value of a barrier record.
var Barrier = []byte(`{"v":1,"n":0,"type":"Barrier"}`)

// IsBarrier says whether a record's value is a barrier.
func IsBarrier(value []byte) bool { return bytes.Equal(value, Barrier) }
