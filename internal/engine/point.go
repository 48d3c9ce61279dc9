package engine

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// layouts of times; those without a zone are UTC.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"}

// ParsePoint reads a point as people write it: a time, how long ago (90m), an event number,
// offset:N, PARTITION:N pairs with commas between them, offset: and such pairs, or now.
func ParsePoint(text string, now time.Time) (Point, error) {
	text = strings.TrimSpace(text)
	if text == "now" {
		return Point{}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return AtEvent(n), nil
	}
	if rest, ok := strings.CutPrefix(text, "offset:"); ok {
		if n, err := strconv.ParseInt(rest, 10, 64); err == nil && n >= 0 {
			return AtOffset(n), nil
		}
		if ns, ok := numbers(rest); ok {
			return AtOffsets(ns), nil
		}
		return Point{}, fmt.Errorf("%q is no offset", rest)
	}
	if d, err := time.ParseDuration(text); err == nil {
		return AtTime(now.Add(-d.Abs())), nil
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return AtTime(t), nil
		}
	}
	if _, err := time.Parse("15:04", text); err == nil && len(text) == len("15:04") {
		return Point{}, fmt.Errorf("%q is no moment: a time of day needs its date, and a number of a partition a zero before it (%s:0%s)", text, text[:2], text[3:])
	}
	if ns, ok := numbers(text); ok {
		return AtEvents(ns), nil
	}
	return Point{}, fmt.Errorf("%q is no moment", text)
}

// numbers reads PARTITION:N pairs.
func numbers(text string) (map[int32]uint64, bool) {
	ns := map[int32]uint64{}
	for pair := range strings.SplitSeq(text, ",") {
		left, right, ok := strings.Cut(pair, ":")
		p, err := strconv.ParseInt(strings.TrimSpace(left), 10, 32)
		n, err2 := strconv.ParseUint(strings.TrimSpace(right), 10, 63)
		if _, twice := ns[int32(p)]; !ok || err != nil || err2 != nil || p < 0 || twice {
			return nil, false
		}
		ns[int32(p)] = n
	}
	return ns, true
}
