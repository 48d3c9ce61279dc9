package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/godagger/dagger/internal/engine"
)

// atHelp explains what --at, --from and --to take.
const atHelp = "A moment is one of:\n\n" +
	"  2026-11-24T10:00:00Z   a time; without a zone it is UTC, and the time of day may be left out\n" +
	"  90m, 36h               so long ago\n" +
	"  117                    an event number of the instance's partition, as show --events and history print it\n" +
	"  offset:4711            an offset of the events topic, in the instance's partition\n" +
	"  0:117,1:98             event numbers for partitions; the others are as they are now\n" +
	"  now"

// layouts of times; those without a zone are UTC.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"}

// point reads what --at, --from and --to take.
func (e *env) point(flag, value string) (engine.Point, error) {
	value = strings.TrimSpace(value)
	if value == "now" {
		return engine.Point{}, nil
	}
	if n, err := strconv.ParseUint(value, 10, 64); err == nil {
		return engine.AtEvent(n), nil
	}
	if rest, ok := strings.CutPrefix(value, "offset:"); ok {
		if n, err := strconv.ParseInt(rest, 10, 64); err == nil && n >= 0 {
			return engine.AtOffset(n), nil
		}
		return engine.Point{}, failure(statusUsage, "--%s: %q is no offset", flag, rest)
	}
	if d, err := time.ParseDuration(value); err == nil {
		return engine.AtTime(e.now().Add(-d.Abs())), nil
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, value, time.UTC); err == nil {
			return engine.AtTime(t), nil
		}
	}
	if ns, ok := numbers(value); ok {
		return engine.AtEvents(ns), nil
	}
	return engine.Point{}, failure(statusUsage, "--%s: %q is no moment. %s", flag, value, atHelp)
}

// numbers reads PARTITION:N pairs.
func numbers(value string) (map[int32]uint64, bool) {
	ns := map[int32]uint64{}
	for pair := range strings.SplitSeq(value, ",") {
		left, right, ok := strings.Cut(pair, ":")
		p, err := strconv.ParseInt(strings.TrimSpace(left), 10, 32)
		n, err2 := strconv.ParseUint(strings.TrimSpace(right), 10, 64)
		if !ok || err != nil || err2 != nil || p < 0 {
			return nil, false
		}
		ns[int32(p)] = n
	}
	return ns, true
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
