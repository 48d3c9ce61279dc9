// Package embedlog is the event log in one process, without a server: topics, partitions,
// consumer positions and atomic appends over several topics, durable with one group-committed
// fsync for everything that arrived meanwhile. It keeps its data in Pebble ("file:DIR") or
// in memory ("mem:"). One process at a time has a directory.
//
// What a transaction adds to one partition is one chunk: a value that holds many records,
// stored under the offset of its last one. Offsets have no holes.
package embedlog
