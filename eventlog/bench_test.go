package eventlog

import (
	"encoding/json"
	"testing"
)

// typical is the event that a running application writes most.
func typical() *Event {
	return &Event{
		V: 1, N: 90317, Type: TaskCompleted, At: 1764034213123,
		ID: "order-4711", Seq: 17, Run: 90211, Path: "Order/place", Act: 15, Attempt: 1,
		Params: json.RawMessage(`{"status":"PLACED","eta":1764034800}`),
		Starts: []Start{{Path: "Order/ready", Kind: Listen, Due: 1764120613123}},
		Pos:    &Position{TopicID: "5kX0Zb1QTfqQ9GmJ3i1u3A", Offset: 48112},
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	e := typical()
	dst := AppendEvent(nil, e)
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendEvent(dst[:0], e)
	}
}

func BenchmarkDecodeEvent(b *testing.B) {
	data := AppendEvent(nil, typical())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var e Event
	for b.Loop() {
		if err := DecodeEvent(data, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	data, err := AppendRequest(nil, &Request{V: 1, Type: StartInstance, Request: "01J9ZK7Q4W8Y", Made: 1764034213000,
		ID: "order-4711", Definition: "PizzaWorkflow", Params: json.RawMessage(`{"order_id":"4711","pizza_type":"margherita"}`)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var r Request
	for b.Loop() {
		if err := DecodeRequest(data, &r); err != nil {
			b.Fatal(err)
		}
	}
}
