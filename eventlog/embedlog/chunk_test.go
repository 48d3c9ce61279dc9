package embedlog

import (
	"bytes"
	"context"
	"errors"
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

// blockingKV holds every write until it is let go.
type blockingKV struct {
	kv
	arrived chan int
	release chan struct{}
}

func (b *blockingKV) apply(ops []op, sync bool) error {
	b.arrived <- len(ops)
	<-b.release
	return b.kv.apply(ops, sync)
}

// What waits while a group is written makes one group; a caller that gives up before its
// turn writes nothing, and the others are served.
func TestGroupCommit(t *testing.T) {
	l, err := OpenMemory(Options{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.EnsureTopic(t.Context(), "x", 1); err != nil {
		t.Fatal(err)
	}
	store := &blockingKV{l.store, make(chan int), make(chan struct{})}
	l.store = store
	results := make(chan error, 10)
	publish := func(ctx context.Context, value string) {
		go func() {
			results <- l.Publish(ctx, eventlog.Record{Topic: "x", Value: []byte(value)})
		}()
	}
	queued := func(n int) {
		for have := -1; have != n; {
			l.commits.mu.Lock()
			have = len(l.commits.queue)
			l.commits.mu.Unlock()
		}
	}
	publish(t.Context(), "a")
	if n := <-store.arrived; n != 1 {
		t.Fatalf("%d chunks in the first group", n)
	}
	cause := errors.New("given up")
	ctx, cancel := context.WithCancelCause(t.Context())
	publish(ctx, "b")
	queued(1)
	publish(t.Context(), "c")
	queued(2)
	publish(t.Context(), "d")
	queued(3)
	cancel(cause)
	if err := <-results; !errors.Is(err, cause) {
		t.Fatalf("cancelled: %v", err)
	}
	if p := mustTopic(t, l, "x").Partitions[0]; p.End != 0 {
		t.Fatalf("end %d before anything is durable", p.End)
	}
	store.release <- struct{}{}
	if n := <-store.arrived; n != 2 {
		t.Fatalf("%d chunks in the second group", n)
	}
	store.release <- struct{}{}
	for range 3 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range readAll(t, l, "x", 0) {
		got = append(got, string(r.Value))
	}
	if d := cmp.Diff([]string{"a", "c", "d"}, got); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}
