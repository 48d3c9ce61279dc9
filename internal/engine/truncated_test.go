package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// truncatedLog has lost what stood in the requests topic from an offset on, and got other requests
// in its place, up to where it was and further.
type truncatedLog struct {
	eventlog.Log
	from  atomic.Int64 // 0 = nothing was lost
	other func(offset int64) []byte
}

func (l *truncatedLog) Kept(_ context.Context, _ string, _ int32, offset int64, term int32) (int64, error) {
	if from := l.from.Load(); from > 0 && term == 1 {
		return min(from, offset), nil
	}
	return offset, nil
}

func (l *truncatedLog) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	r, err := l.Log.Read(ctx, topic, partition, from, topicID, isolation)
	if err != nil || topic != eventlog.RequestsTopic(l.App()) {
		return r, err
	}
	return truncatedReader{r, l}, nil
}

type truncatedReader struct {
	eventlog.Reader
	l *truncatedLog
}

func (r truncatedReader) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	records, next, err := r.Reader.Next(ctx)
	for k := range records {
		records[k].Term = 1
		if from := r.l.from.Load(); from > 0 && records[k].Offset >= from {
			records[k].Term, records[k].Value = 2, r.l.other(records[k].Offset)
		}
	}
	return records, next, err
}

// TestRequestsWereTruncated: an unclean leader election takes requests away that were consumed, and
// others get their offsets. They are read, each counts once, and the log says what happened.
func TestRequestsWereTruncated(t *testing.T) {
	start := func(id string) []byte {
		data, err := eventlog.AppendRequest(nil, &eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Definition: "Order",
			Request: "start " + id, Made: time.Now().UnixMilli(), Params: json.RawMessage(fmt.Sprintf(`{"order":%q}`, id))})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	log := &truncatedLog{Log: memLog(t)}
	// Of five, the last three were lost; the fourth was sent again.
	log.other = func(offset int64) []byte {
		if offset == 3 {
			return start("{1}3")
		}
		return start(fmt.Sprintf("{1}other-%d", offset))
	}
	store := memStore(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := eventlog.PartitionOf("{1}", 4)
	publish := func(id string) {
		t.Helper()
		if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic("test"), Partition: p, Key: []byte("1"), Value: start(id)}); err != nil {
			t.Fatal(err)
		}
	}
	var out lockedBuffer
	run := func(ids ...string) {
		t.Helper()
		e, err := New(ctx, Config{Log: log, Store: store, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Register(ctx, runOrders(t)); err != nil {
			t.Fatal(err)
		}
		life, end := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- e.Run(life) }()
		for _, id := range ids {
			until(t, ctx, id+" runs", func() bool {
				i, err := e.Get(ctx, id)
				return err == nil && i.Run > 0
			})
		}
		end()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for k := range 5 {
		publish(fmt.Sprintf("{1}%d", k))
	}
	run("{1}0", "{1}1", "{1}2", "{1}3", "{1}4")
	if strings.Contains(out.String(), "has lost records") {
		t.Errorf("lost already:\n%s", out.String())
	}
	log.from.Store(2)
	publish("the sixth")
	run("{1}other-2", "{1}other-4", "{1}other-5")
	if n := strings.Count(out.String(), "has lost records"); n != 1 || !strings.Contains(out.String(), "from=2 consumed=5 end=6") {
		t.Errorf("said %d times:\n%s", n, out.String())
	}
	run("{1}other-5", "{1}4")
	if n := strings.Count(out.String(), "has lost records"); n != 1 {
		t.Errorf("said %d times:\n%s", n, out.String())
	}
	// {1}3 was started once, though its request was read twice.
	e := newEngine(t, log)
	events := 0
	topic, err := log.Topic(ctx, eventlog.EventsTopic("test"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.log.Read(ctx, topic.Name, p, 0, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for next := int64(0); next < topic.Partitions[p].End; {
		var records []eventlog.Record
		if records, next, err = r.Next(ctx); err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			var x eventlog.Event
			if !eventlog.IsBarrier(rec.Value) && eventlog.DecodeEvent(rec.Value, &x) == nil && x.Type == eventlog.InstanceStarted && x.ID == "{1}3" {
				events++
			}
		}
	}
	if events != 1 {
		t.Errorf("started %d times", events)
	}
}
