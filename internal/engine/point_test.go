package engine

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParsePoint(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ten := AtTime(now.Add(-2 * time.Hour))
	for text, want := range map[string]Point{
		"now": {}, " 117 ": AtEvent(117), "offset:4711": AtOffset(4711), "2h": ten, "-2h": ten,
		"2026-11-24T10:00:00Z": ten, "2026-11-24T11:00:00+01:00": ten, "2026-11-24 10:00": ten,
		"2026-11-24": AtTime(now.Add(-12 * time.Hour)), "0:117,1:98": AtEvents(map[int32]uint64{0: 117, 1: 98}),
		"10:030": AtEvents(map[int32]uint64{10: 30}), "1:30": AtEvents(map[int32]uint64{1: 30}),
		"offset:0:4711,1:98": AtOffsets(map[int32]uint64{0: 4711, 1: 98}),
	} {
		if have, err := ParsePoint(text, now); err != nil || !cmp.Equal(want, have, cmp.AllowUnexported(Point{})) {
			t.Errorf("%q: %+v, %v", text, have, err)
		}
	}
	for _, text := range []string{"", "yesterday", "10:30", "offset:-1", "offset:x", "offset:0:1,2", "0:9223372036854775808", "0:117,98", "0:117,0:118", "-1:3", "2026-13-01"} {
		if have, err := ParsePoint(text, now); err == nil {
			t.Errorf("%q: %+v", text, have)
		}
	}
}
