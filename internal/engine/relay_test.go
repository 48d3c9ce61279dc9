package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// fieldKeys gives the words of a message's field, or the error that stands in it.
func fieldKeys(m *eventlog.Message) ([]string, error) {
	var v struct {
		Keys  []string
		Error string
		Panic bool
		Exit  bool
	}
	if err := json.Unmarshal(m.Value, &v); err != nil {
		return nil, err
	}
	if v.Panic {
		panic("bad function")
	}
	if v.Exit {
		runtime.Goexit()
	}
	if v.Error != "" {
		return nil, errors.New(v.Error)
	}
	return v.Keys, nil
}

func testRelay() *relay {
	return &relay{app: "test", tk: TopicKey{"orders", "order"}, partition: 3, partitions: 4, maxRequest: 4096, maxDead: 4096, ttl: time.Hour, keys: fieldKeys}
}

// script drives a relay: reads come from the records; each publish and commit is answered by
// fail. It returns what was published and committed in words, until there is nothing to read.
func script(t *testing.T, r *relay, records []eventlog.Record, fail func(op relayOp) error) (trace []string, published []eventlog.Record) {
	t.Helper()
	var op relayOp
	var res relayResult
	committed := 0
	at := 0
	for range 1000 {
		op = r.step(op, res)
		res = relayResult{}
		switch x := op.(type) {
		case relayOpen:
			trace = append(trace, "open")
			res.topicID, at = "T", committed
		case relayRead:
			if at == len(records) {
				return trace, published
			}
			res.records, at = records[at:], len(records)
			res.next = int64(at)
		case relayPublish:
			if res.err = fail(op); res.err == nil {
				published = append(published, x.records...)
			}
			trace = append(trace, fmt.Sprintf("publish %d %v", len(x.records), res.err))
		case relayCommit:
			if res.err = fail(op); res.err == nil {
				committed = int(x.offset)
			}
			trace = append(trace, fmt.Sprintf("commit %d %v", x.offset, res.err))
		case relayFail:
			trace = append(trace, "fail "+x.err.Error())
		}
	}
	t.Fatal("the relay does not come to rest")
	return nil, nil
}

func never(relayOp) error { return nil }

func record(offset int64, value string) eventlog.Record {
	return eventlog.Record{Topic: "orders", Partition: 3, Offset: offset, Time: time.UnixMilli(77), Key: []byte("k"), Value: []byte(value)}
}

func TestRelayNumbersByTarget(t *testing.T) {
	// Keys are counted once, sorted, and numbered for each target partition.
	trace, published := script(t, testRelay(), []eventlog.Record{record(0, `{"keys":["d","a","b","c","a","","e","f"]}`), record(1, `{"keys":["a"]}`)}, never)
	if diff := cmp.Diff([]string{"open", "publish 7 <nil>", "commit 2 <nil>"}, trace); diff != "" {
		t.Fatal(diff)
	}
	index := map[string]int{}
	var order []string
	for _, rec := range published {
		var q eventlog.Request
		if err := eventlog.DecodeRequest(rec.Value, &q); err != nil {
			t.Fatal(err)
		}
		order = append(order, q.Value)
		if want := eventlog.PartitionOf(q.Value, 4); rec.Partition != want || rec.Topic != "test.requests" || string(rec.Key) != q.Value {
			t.Errorf("key %s went to partition %d of %s under key %s, want partition %d", q.Value, rec.Partition, rec.Topic, rec.Key, want)
		}
		source := fmt.Sprintf("%d/%d", q.Mark.Pos, rec.Partition)
		if q.Mark.Index != index[source] {
			t.Errorf("key %s at %d has index %d, want %d", q.Value, q.Mark.Pos, q.Mark.Index, index[source])
		}
		index[source]++
		if *q.Source != (eventlog.Source{TopicID: "T", Partition: 3, Key: "order"}) {
			t.Errorf("source %+v", *q.Source)
		}
		if q.TTL != time.Hour.Milliseconds() || q.Message.Offset != q.Mark.Pos || q.Message.Time != 77 || q.Message.Partition != 3 || len(q.Message.Value) == 0 {
			t.Errorf("request %+v, message %+v", q, q.Message)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e", "f", "a"}, order); diff != "" {
		t.Error(diff)
	}
}

func TestRelaySendsNothingAfterAnError(t *testing.T) {
	// Protocol rule 17: everything from the committed offset on is sent again with a new
	// publisher; the same record makes the same requests.
	lost := errors.New("connection lost")
	for _, when := range []string{"publish", "commit"} {
		failures := 1
		trace, published := script(t, testRelay(), []eventlog.Record{record(0, `{"keys":["a","b"]}`), record(1, `{"keys":["c"]}`)}, func(op relayOp) error {
			_, publish := op.(relayPublish)
			if publish == (when == "publish") && failures > 0 {
				failures--
				return lost
			}
			return nil
		})
		want := []string{"open", "publish 3 connection lost", "fail connection lost", "open", "publish 3 <nil>", "commit 2 <nil>"}
		if when == "commit" {
			want = []string{"open", "publish 3 <nil>", "commit 2 connection lost", "fail connection lost", "open", "publish 3 <nil>", "commit 2 <nil>"}
			if diff := cmp.Diff(published[:3], published[3:]); diff != "" {
				t.Errorf("sent again, not alike: %s", diff)
			}
		}
		if diff := cmp.Diff(want, trace); diff != "" {
			t.Error(diff)
		}
	}
	// The switch of the rule.
	failures := 1
	r := testRelay()
	r.goOn = true
	trace, _ := script(t, r, []eventlog.Record{record(0, `{"keys":["a"]}`)}, func(relayOp) error {
		failures--
		if failures == 0 {
			return lost
		}
		return nil
	})
	if diff := cmp.Diff([]string{"open", "publish 1 connection lost", "commit 1 <nil>"}, trace); diff != "" {
		t.Error(diff)
	}
}

func TestRelayPublishesInBatches(t *testing.T) {
	var records []eventlog.Record
	for k := range 2*relayBatch + 1 {
		records = append(records, record(int64(k), fmt.Sprintf(`{"keys":["k%d"]}`, k)))
	}
	failures := 1
	trace, _ := script(t, testRelay(), records, func(op relayOp) error {
		if p, is := op.(relayPublish); is && len(p.records) == 1 && failures > 0 {
			failures--
			return errors.New("lost")
		}
		return nil
	})
	want := []string{"open", "publish 500 <nil>", "publish 500 <nil>", "publish 1 lost", "fail lost", "open",
		"publish 500 <nil>", "publish 500 <nil>", "publish 1 <nil>", "commit 1001 <nil>"}
	if diff := cmp.Diff(want, trace); diff != "" {
		t.Error(diff)
	}
}

func TestRelayDeadLetters(t *testing.T) {
	big := strings.Repeat("x", 3500)
	huge := strings.Repeat("x", 5000)
	_, published := script(t, testRelay(), []eventlog.Record{
		record(0, `{"keys":["a"]}`),
		record(1, `{"error":"no order id"}`),
		record(2, `no JSON`),
		record(3, `{"panic":true}`),
		record(4, `{"keys":["a"],"big":"`+big+`"}`),
		record(5, `{"keys":["a"],"big":"`+huge+`"}`),
		record(6, `{"keys":["`+strings.Repeat("y", 3000)+`"],"big":"`+strings.Repeat("x", 600)+`"}`),
		record(7, `{"keys":[]}`),
		record(8, `{"exit":true}`),
		record(9, `{"keys":["b"]}`),
	}, never)
	type letter struct {
		Topic, Offset, Reason string
		Value, Reference      bool
	}
	var got []letter
	for _, rec := range published {
		l := letter{Topic: rec.Topic, Value: len(rec.Value) > 0}
		for _, h := range rec.Headers {
			switch h.Key {
			case "dagger-reason":
				l.Reason, _, _ = strings.Cut(string(h.Value), "\n")
				l.Reason = l.Reason[:min(len(l.Reason), 42)]
			case "dagger-offset":
				l.Offset = string(h.Value)
			case "dagger-by-reference":
				l.Reference = true
			}
		}
		got = append(got, l)
	}
	want := []letter{
		{Topic: "test.requests", Value: true},
		{"test.deadletter", "1", "its key can't be computed: no order id", true, false},
		{"test.deadletter", "2", "its key can't be computed: unexpected end ", true, false},
		{"test.deadletter", "3", "its key can't be computed: panic: bad func", true, false},
		{Topic: "test.requests", Value: true},
		{"test.deadletter", "5", "it is too large to be delivered: it needs ", false, true},
		{"test.deadletter", "6", "it is too large to be delivered: it needs ", true, false},
		{"test.deadletter", "8", "its key can't be computed: the function en", true, false},
		{Topic: "test.requests", Value: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMessageOf(t *testing.T) {
	rec := record(9, "\x00no json")
	if m := messageOf(&rec, "T"); m.Value != nil || string(m.Bytes) != "\x00no json" {
		t.Errorf("%+v", m)
	}
	rec.Value = nil // a tombstone
	if m := messageOf(&rec, "T"); m.Value != nil || m.Bytes != nil {
		t.Errorf("%+v", m)
	}
}
