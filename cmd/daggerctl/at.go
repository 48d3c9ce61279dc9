package main

import (
	"fmt"

	"github.com/godagger/dagger/internal/engine"
)

// atHelp explains what --at, --from and --to take.
const atHelp = "A moment is one of:\n\n" +
	"  2026-11-24T10:00:00Z   a time; without a zone it is UTC, and the time of day may be left out\n" +
	"  90m, 36h               so long ago\n" +
	"  117                    an event number of the instance's partition, as show --events and history print it\n" +
	"  offset:4711            an offset of the events topic, in the instance's partition\n" +
	"  0:117,1:98             event numbers for partitions; the others are as they are now\n" +
	"  offset:0:4711,1:98     offsets for partitions, likewise\n" +
	"  now"

// point reads what --at, --from and --to take.
func (e *env) point(flag, value string) (engine.Point, error) {
	p, err := engine.ParsePoint(value, e.now())
	if err != nil {
		return p, failure(statusUsage, "--%s: %w. %s", flag, err, atHelp)
	}
	return p, nil
}

// asOf names event numbers by partition as --at takes them.
func asOf(ns map[int32]uint64) string {
	s := ""
	for p := range int32(len(ns)) {
		if p > 0 {
			s += ","
		}
		s += fmt.Sprintf("%d:%d", p, ns[p])
	}
	return s
}
