package embedlog

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

func TestChunk(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	records := []eventlog.Record{
		{Value: []byte("v"), Time: at},
		{Key: []byte{}, Value: []byte{}, Time: at.Add(-time.Hour)},
		{Time: at.Add(time.Hour)},
		{Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 300), Time: at,
			Headers: []eventlog.Header{{Key: "a", Value: []byte("b")}, {Key: ""}, {Key: "e", Value: []byte{}}}},
	}
	var b builder
	for i := range records {
		b.record(&records[i], 0)
		records[i].Topic, records[i].Partition, records[i].Offset = "t", 3, int64(10+i)
	}
	b.event([]byte(`{}`), eventlog.TaskCompleted, at.UnixMilli())
	records = append(records, eventlog.Record{Topic: "t", Partition: 3, Offset: 14, Time: at, Value: []byte(`{}`),
		Headers: []eventlog.Header{{Key: "content-type", Value: []byte("application/json")}, {Key: "type", Value: []byte("TaskCompleted")}}})
	chunk, latest := b.finish(5)
	if want := at.Add(time.Hour).UnixMilli(); latest != want {
		t.Errorf("latest time %d, want %d", latest, want)
	}
	for from := range int64(5) {
		got, err := decodeChunk(nil, bytes.Clone(chunk), "t", 3, 14, 10+from)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(records[from:], got); d != "" {
			t.Errorf("from %d (-want +got):\n%s", from, d)
		}
	}
}

// Whatever stands in a chunk whose checksum matches, decoding ends in records or an error.
func FuzzChunk(f *testing.F) {
	f.Add([]byte{hasKey | hasValue | hasHeaders, 0, 1, 'k', 1, 'v', 1, 1, 'h', 2, 'v'}, 1)
	f.Add([]byte{isEvent | hasValue, 4, 1, 'v', 1, 't', 0, 0}, 2)
	f.Add([]byte{hasHeaders, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}, 1)
	f.Fuzz(func(t *testing.T, body []byte, count int) {
		if count < 0 || count > 1000 {
			return
		}
		b := builder{buf: append([]byte{chunkVersion}, body...), count: count}
		chunk, _ := b.finish(0)
		records, err := decodeChunk(nil, chunk, "t", 0, int64(count)-1, 0)
		if err == nil && len(records) != count {
			t.Errorf("%d records of %d without an error", len(records), count)
		}
	})
}
