package eventlog

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEventDecoder: what a decoder gives is what DecodeEvent gives, and stays that while it
// decodes what comes after.
func TestEventDecoder(t *testing.T) {
	var d EventDecoder
	var want, got []Event
	for range 300 { // more than it makes room for at once
		for _, e := range sampleEvents() {
			data := AppendEvent(nil, &e)
			want, got = append(want, Event{}), append(got, Event{})
			one, other := DecodeEvent(data, &want[len(want)-1]), d.Decode(data, &got[len(got)-1])
			if (one == nil) != (other == nil) {
				t.Fatalf("%s: %v, alone %v", data, other, one)
			}
		}
	}
	for k := range want {
		if diff := cmp.Diff(want[k], got[k]); diff != "" {
			t.Fatalf("event %d (-alone +shared):\n%s", k, diff)
		}
	}
}

func BenchmarkEventDecoder(b *testing.B) {
	data := AppendEvent(nil, typical())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var d EventDecoder
	var e Event
	for b.Loop() {
		if err := d.Decode(data, &e); err != nil {
			b.Fatal(err)
		}
	}
}
