package audit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
)

// The history that the tests spoil: two partitions; order lives in one, its key in the other.
// It sends a message, is given one, fails once, and completes. A second instance there is
// quarantined and released, a third stopped.
type history map[int32][]*eventlog.Event

const planData = `{"name":"Pizza","version":1,"nodes":[{"path":"O","kind":"process","nodes":[{"path":"O/place","kind":"command","topic":"orders"},{"path":"O/ready","kind":"listen","topic":"status","key":"id"}]},{"path":"O/deliver","kind":"execute","retry":{"attempts":3,"delay":100}}]}`

const planHash = "665aa174aacf6633" // of planData

// names that live in a partition of two.
func named(prefix string, partition int32) string {
	for k := 0; ; k++ {
		if id := fmt.Sprintf("%s-%d", prefix, k); eventlog.PartitionOf(id, 2) == partition {
			return id
		}
	}
}

var (
	order   = named("order", 0)
	frozen  = named("frozen", 0)
	halted  = named("halted", 0)
	value   = named("value", 1)
	waitKey = eventlog.KeyRef{Topic: "status", Key: "id", Value: value}
)

func good() history {
	h := history{}
	at := int64(1000)
	add := func(p int32, e eventlog.Event) *eventlog.Event {
		at += 10
		e.V, e.N, e.At = 1, uint64(len(h[p])+1), at
		h[p] = append(h[p], &e)
		return &e
	}
	out := func(to int32, r eventlog.Request) eventlog.Out { return eventlog.Out{To: to, Request: r} }
	ref := func(r eventlog.Request) eventlog.Request {
		r.V, r.Topic, r.Key, r.Value = 1, waitKey.Topic, waitKey.Key, waitKey.Value
		return r
	}
	forward := func(p int32, from int32, n uint64, index int, delivery bool) *eventlog.Position {
		return &eventlog.Position{TopicID: "t", Offset: int64(len(h[p])), Forwarded: 2, Sources: []eventlog.SourceMark{
			{Source: eventlog.Source{Partition: from}, Mark: eventlog.Mark{Pos: int64(n), Index: index}, Delivery: delivery}}}
	}
	message := &eventlog.Message{Topic: "status", TopicID: "s", Partition: 0, Offset: 7, Value: json.RawMessage(`{}`)}

	add(0, eventlog.Event{Type: eventlog.PartitionOwned})
	add(1, eventlog.Event{Type: eventlog.PartitionOwned})
	add(0, eventlog.Event{Type: eventlog.PlanUsed, Plan: planHash, PlanData: json.RawMessage(planData)})
	start := add(0, eventlog.Event{Type: eventlog.InstanceStarted, ID: order, Seq: 1, Run: 3, Definition: "Pizza", Plan: planHash, Params: json.RawMessage(`{}`),
		Keys: []eventlog.TaskKey{{Path: "O/ready", Value: value}}, Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}, Request: "call-1", Made: 1,
		Subs: []eventlog.KeyRef{waitKey}, Out: []eventlog.Out{out(1, ref(eventlog.Request{Type: eventlog.Subscribe, ID: order, Run: 3, Act: 1}))},
		Pos: &eventlog.Position{TopicID: "t", Offset: 1, Forwarded: 2}})
	add(1, eventlog.Event{Type: eventlog.SubscriptionAdded, Topic: "status", Key: "id", Value: value, ID: order, Run: 3, Act: 1, Pos: forward(1, 0, start.N, 0, false)})
	add(0, eventlog.Event{Type: eventlog.TaskCompleted, ID: order, Seq: 2, Run: 3, Path: "O/place", Act: 1, Attempt: 1,
		Sent: &eventlog.Sent{Topic: "orders"}, Starts: []eventlog.Start{{Path: "O/ready", Kind: eventlog.Listen}}})
	matched := add(1, eventlog.Event{Type: eventlog.MessageMatched, Topic: "status", Key: "id", Value: value, Msg: 3, Message: message, Expires: 9000, Sole: true, Chosen: 1, After: 2,
		Out: []eventlog.Out{out(0, ref(eventlog.Request{Type: eventlog.DeliverTo, ID: order, Run: 3, Act: 1, Msg: 3}))}})
	received := add(0, eventlog.Event{Type: eventlog.MessageReceived, ID: order, Seq: 3, Run: 3, Path: "O/ready", Topic: "status", Key: "id", Value: value, Msg: 3, Message: message,
		Out: []eventlog.Out{out(1, eventlog.Request{V: 1, Type: eventlog.Ack, From: 0, Upto: &eventlog.Mark{Pos: int64(matched.N)}})}, Pos: forward(0, 1, matched.N, 0, true)})
	add(1, eventlog.Event{Type: eventlog.DeliveriesAcked, From: 0, Upto: &eventlog.Mark{Pos: int64(matched.N)}, Pos: forward(1, 0, received.N, 0, false)})
	ready := add(0, eventlog.Event{Type: eventlog.TaskCompleted, ID: order, Seq: 4, Run: 3, Path: "O/ready", Act: 3, Attempt: 1, Starts: []eventlog.Start{{Path: "O/deliver", Kind: eventlog.Execute, Due: at + 1}},
		Unsubs: []eventlog.KeyRef{waitKey}, Out: []eventlog.Out{out(1, ref(eventlog.Request{Type: eventlog.Unsubscribe, ID: order, Run: 3, Act: 1}))}})
	add(1, eventlog.Event{Type: eventlog.SubscriptionRemoved, Topic: "status", Key: "id", Value: value, ID: order, Run: 3, Act: 1, Pos: forward(1, 0, ready.N, 0, false)})
	add(0, eventlog.Event{Type: eventlog.AttemptTimedOut, ID: order, Seq: 5, Run: 3, Path: "O/deliver", Act: 4, Attempt: 1, Due: at + 15})
	add(0, eventlog.Event{Type: eventlog.AttemptStarted, ID: order, Seq: 6, Run: 3, Path: "O/deliver", Act: 4, Attempt: 2}).At += 10
	at += 10
	add(0, eventlog.Event{Type: eventlog.TaskCompleted, ID: order, Seq: 7, Run: 3, Path: "O/deliver", Act: 4, Attempt: 2})
	add(0, eventlog.Event{Type: eventlog.InstanceCompleted, ID: order, Seq: 8, Run: 3})

	begin := func(id, request string) uint64 {
		n := uint64(len(h[0]) + 1)
		add(0, eventlog.Event{Type: eventlog.InstanceStarted, ID: id, Seq: 1, Run: n, Definition: "Pizza", Plan: planHash, Params: json.RawMessage(`{}`),
			Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}, Request: request, Made: 1})
		return n
	}
	run := begin(frozen, "call-2")
	add(0, eventlog.Event{Type: eventlog.InstanceQuarantined, ID: frozen, Seq: 2, Run: run, Act: 1, Reason: "r"})
	add(0, eventlog.Event{Type: eventlog.RequestHeld, ID: frozen, Held: &eventlog.Request{V: 1, Type: eventlog.Result, ID: frozen}})
	add(0, eventlog.Event{Type: eventlog.InstanceReset, ID: frozen, Seq: 3, Run: run, Request: "call-3",
		State:  json.RawMessage(`{"definition":"Pizza","plan":"` + planHash + `","status":"EXECUTING","tasks":[{"path":"O/place","kind":"command","status":"EXECUTING","phase":"running","act":1,"attempt":1,"since":1}]}`),
		Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}})
	add(0, eventlog.Event{Type: eventlog.RequestReleased, ID: frozen})
	add(0, eventlog.Event{Type: eventlog.TaskFailed, ID: frozen, Seq: 4, Run: run, Path: "O/place", Act: 3, Attempt: 1, Error: "no"})
	add(0, eventlog.Event{Type: eventlog.InstanceFailed, ID: frozen, Seq: 5, Run: run, Path: "O/place", Error: "no"})
	add(0, eventlog.Event{Type: eventlog.InstanceRetried, ID: frozen, Seq: 6, Run: run, Request: "call-4", Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}})
	run = begin(halted, "call-5")
	add(0, eventlog.Event{Type: eventlog.InstanceStopped, ID: halted, Seq: 2, Run: run, Request: "call-6",
		Pos: &eventlog.Position{TopicID: "t", Offset: 30, Forwarded: uint64(len(h[0])), Refused: []eventlog.Refusal{{ID: halted, Request: "call-7", Made: 1, Answer: "terminal"}}}})
	return h
}

// find is the k-th event of a type.
func (h history) find(p int32, typ eventlog.Type, k int) *eventlog.Event {
	for _, e := range h[p] {
		if e.Type == typ {
			if k == 0 {
				return e
			}
			k--
		}
	}
	panic("no such event " + typ)
}

// add appends an event to a partition.
func (h history) add(p int32, e eventlog.Event) {
	last := h[p][len(h[p])-1]
	e.V, e.N = 1, last.N+1
	e.At = max(e.At, last.At)
	h[p] = append(h[p], &e)
}

// buffer lets the message stand in the instance until it is stopped.
func (h history) buffer(sole bool) {
	h[0] = h[0][:5]
	e := h[0][4]
	e.Type, e.Path, e.Sole, e.Expires = eventlog.MessageBuffered, "", sole, 9000
	h.add(0, eventlog.Event{Type: eventlog.InstanceStopped, ID: order, Seq: 4, Run: 3, Unsubs: []eventlog.KeyRef{waitKey}, Back: []uint64{3}})
}

func audit(h history, settled bool) Report {
	a := New(2, Options{Settled: settled})
	for p := range int32(2) {
		for k, e := range h[p] {
			a.Event(p, int64(k), e)
		}
	}
	return a.Finish()
}

func TestClean(t *testing.T) {
	h := good()
	r := audit(h, true)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Instances != 3 || r.Events != int64(len(h[0])+len(h[1])) {
		t.Errorf("report %+v", r)
	}
}

// Each rule is broken once.
func TestViolations(t *testing.T) {
	for _, c := range []struct {
		want  string
		spoil func(h history)
	}{
		{"follows event", func(h history) { h[0] = append(h[0][:5], h[0][6:]...) }},
		{"follows event", func(h history) { h[0] = append(h[0], h[0][len(h[0])-1]) }},
		{"is before", func(h history) { h[1][2].At = 1 }},
		{"does not have this hash", func(h history) { h[0][1].PlanData = json.RawMessage(planData + " ") }},
		{"a second time", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.PlanUsed, Plan: planHash, PlanData: json.RawMessage(planData)})
		}},
		{"consumed position went back", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.Checkpoint, Pos: &eventlog.Position{TopicID: "t", Offset: 3, Forwarded: 99}})
		}},
		{"forward cursor went back", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.Checkpoint, Pos: &eventlog.Position{TopicID: "t", Offset: 99, Forwarded: 1}})
		}},
		{"did not rise", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.Checkpoint, Pos: &eventlog.Position{TopicID: "t", Offset: 99, Forwarded: 24, Sources: []eventlog.SourceMark{{Source: eventlog.Source{Partition: 1}, Mark: eventlog.Mark{Pos: 3}}}}})
		}},
		{"never told", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.Checkpoint, Pos: &eventlog.Position{TopicID: "t", Offset: 99, Forwarded: 24, Sources: []eventlog.SourceMark{{Source: eventlog.Source{Partition: 1}, Mark: eventlog.Mark{Pos: 4}}}}})
		}},
		{"never counted", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.Checkpoint, Out: []eventlog.Out{{To: 0, Request: eventlog.Request{Type: eventlog.StopInstance, ID: order}}}})
		}},
		{"belongs to partition", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.Checkpoint, Out: []eventlog.Out{{To: 0, Request: eventlog.Request{Type: eventlog.StopInstance, ID: value}}}})
		}},
		{"belongs to partition", func(h history) {
			id := named("foreign", 1)
			h.add(0, eventlog.Event{Type: eventlog.InstanceQuarantined, ID: id, Seq: 1})
		}},
		{"was applied and then refused", func(h history) {
			h.find(0, eventlog.InstanceStopped, 0).Pos.Refused[0].Request = "call-6"
			h.add(0, eventlog.Event{Type: eventlog.Checkpoint, Pos: &eventlog.Position{TopicID: "t", Offset: 99, Forwarded: 24, Refused: []eventlog.Refusal{{ID: halted, Request: "call-5", Made: 1}}}})
		}},
		{"applied a second time", func(h history) { h.find(0, eventlog.InstanceRetried, 0).Request = "call-2" }},
		{"had been refused", func(h history) {
			h[0][1].Pos = &eventlog.Position{TopicID: "t", Refused: []eventlog.Refusal{{ID: halted, Request: "call-6", Made: 1}}}
		}},
		{"follows seq", func(h history) { h.find(0, eventlog.TaskCompleted, 1).Seq = 3 }},
		{"was started before", func(h history) {
			n := uint64(len(h[0]) + 1)
			h.add(0, eventlog.Event{Type: eventlog.InstanceStarted, ID: order, Seq: 9, Run: n, Definition: "Pizza", Plan: planHash, Starts: []eventlog.Start{{Path: "O/place", Kind: eventlog.Command}}})
		}},
		{"the instance is in run", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Run = 99 }},
		{"not recorded before", func(h history) { h.find(0, eventlog.InstanceStarted, 1).Plan = "ff" }},
		{"does not start O/place", func(h history) {
			h.find(0, eventlog.InstanceStarted, 1).Starts[0] = eventlog.Start{Path: "O/deliver", Kind: eventlog.Execute}
		}},
		{"has ended", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.InstanceCompleted, ID: order, Seq: 9, Run: 3})
		}},
		{"has ended", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.InstanceStopped, ID: halted, Seq: 3, Run: h.find(0, eventlog.InstanceStopped, 0).Run})
		}},
		{"has not failed", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.InstanceRetried, ID: order, Seq: 9, Run: 3})
		}},
		{"never started", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.InstanceStopped, ID: named("unknown", 0), Seq: 1})
		}},
		{"in quarantine", func(h history) { h.find(0, eventlog.InstanceReset, 0).Type = eventlog.InstanceStopped }},
		{"not in quarantine", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.InstanceReset, ID: order, Seq: 9, Run: 3, State: json.RawMessage(`{}`)})
		}},
		{"not in quarantine", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.RequestHeld, ID: order, Held: &eventlog.Request{Type: eventlog.Result}})
		}},
		{"nothing is held", func(h history) { h.add(0, eventlog.Event{Type: eventlog.RequestReleased, ID: frozen}) }},
		{"state can't be read", func(h history) { h.find(0, eventlog.InstanceReset, 0).State = json.RawMessage(`[]`) }},
		{"must come first", func(h history) { h.find(0, eventlog.InstanceCompleted, 0).Type = eventlog.InstanceStopped }},
		{"must come first", func(h history) { h.find(0, eventlog.InstanceFailed, 0).Path = "O/ready" }},
		{"the live one is", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Act = 2 }},
		{"attempt 1 of task O/deliver", func(h history) { h.find(0, eventlog.TaskCompleted, 2).Attempt = 1 }},
		{"was never started", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Path = "O/deliver" }},
		{"the handler of task O/deliver does not run", func(h history) {
			e := h.find(0, eventlog.AttemptStarted, 0)
			e.Type, e.Attempt = eventlog.TaskCompleted, 1
		}},
		{"its time is", func(h history) { h.find(0, eventlog.AttemptTimedOut, 0).Due += 50 }},
		{"timed out at", func(h history) { h.find(0, eventlog.TaskCompleted, 1).Starts[0].Due += 50 }},
		{"before the event", func(h history) { h.find(0, eventlog.AttemptTimedOut, 0).Due = 1 }},
		{"the next task", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Starts = nil }},
		{"not in the plan", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Starts[0].Kind = eventlog.Execute }},
		{"is no Command", func(h history) { h.find(0, eventlog.TaskCompleted, 2).Sent = &eventlog.Sent{} }},
		{"does not run", func(h history) { h.find(0, eventlog.MessageReceived, 0).Path = "O/place" }},
		{"its key is", func(h history) {
			h.find(0, eventlog.MessageReceived, 0).Value = "other"
		}},
		{"has no seq", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Seq = 0 }},
		{"ends a subscription", func(h history) {
			h.find(0, eventlog.InstanceStarted, 0).Subs = nil
			h[0] = h[0][:3]
			h.add(0, eventlog.Event{Type: eventlog.InstanceStopped, ID: order, Seq: 2, Run: 3, Unsubs: []eventlog.KeyRef{waitKey}})
		}},
		{"is not subscribed", func(h history) { h.find(0, eventlog.InstanceStarted, 0).Subs = nil }},
		{"is subscribed to 1", func(h history) { h.find(0, eventlog.TaskCompleted, 1).Unsubs = nil }},
		{"subscribes to", func(h history) { h.find(0, eventlog.TaskCompleted, 0).Subs = []eventlog.KeyRef{waitKey} }},
		{"is not here", func(h history) { h.find(0, eventlog.MessageReceived, 0).Message = nil }},
		{"but it was not buffered", func(h history) { h.find(0, eventlog.TaskCompleted, 2).Back = []uint64{3} }},
		{"that is not subscribed", func(h history) { h.find(1, eventlog.MessageMatched, 0).Out[0].Request.Act = 9 }},
		{"taken 2 times and told 1", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.DeliveryRefused, ID: order, Topic: "status", Key: "id", Value: value, Msg: 3})
		}},
		{"taken 1 times and given to 0", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.DeliveryRefused, ID: order, Topic: "status", Key: "id", Value: order, Msg: 3})
		}},
		{"was given to an instance 2 times and decided there 1", func(h history) {
			m := h.find(1, eventlog.MessageMatched, 0)
			m.Out = append(m.Out, m.Out[0])
			m.Chosen = 2
			h.find(0, eventlog.MessageReceived, 0).Pos.Sources[0].Index = 1
		}},
		{"but 1 told", func(h history) { h.find(1, eventlog.MessageMatched, 0).Chosen = 2 }},
		{"a second time", func(h history) {
			e := *h.find(1, eventlog.SubscriptionAdded, 0)
			e.Pos = nil
			h.add(1, e)
		}},
		{"a second time", func(h history) {
			e := *h.find(1, eventlog.SubscriptionRemoved, 0)
			e.Pos = nil
			h.add(1, e)
		}},
		{"there was no subscription", func(h history) { h.find(1, eventlog.SubscriptionRemoved, 0).Act = 2 }},
		{"no instance asked for", func(h history) { h.find(1, eventlog.SubscriptionAdded, 0).Act = 2 }},
		{"never reached its key", func(h history) { h.find(1, eventlog.SubscriptionAdded, 0).Act = 2 }},
		{"still stands at its key", func(h history) { h.find(1, eventlog.SubscriptionRemoved, 0).Type = eventlog.Checkpoint }},
		{"arrived a second time", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.MessageKept, Topic: "status", Key: "id", Value: value, Msg: h[1][len(h[1])-1].N + 1, Message: h.find(1, eventlog.MessageMatched, 0).Message, Expires: 9000})
		}},
		{"never arrived here", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.MessageKept, Topic: "status", Key: "id", Value: value, Msg: 2, Message: &eventlog.Message{}})
		}},
		{"its time is 9000", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.MessageExpired, Topic: "status", Key: "id", Value: value, Msg: 3})
		}},
		{"was returned 2 times", func(h history) {
			for range 2 {
				h.add(1, eventlog.Event{Type: eventlog.MessageReturned, Topic: "status", Key: "id", Value: value, Msg: 3, ID: order, Run: 3, Act: 1})
			}
		}},
		{"is nowhere now", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.MessageReturned, Topic: "status", Key: "id", Value: value, Msg: 3, ID: order, Run: 3, Act: 1})
		}},
		{"came back 1 times and was handed back 0", func(h history) {
			h.add(1, eventlog.Event{Type: eventlog.MessageKept, Topic: "status", Key: "id", Value: value, Msg: 3, Expires: 9000})
		}},
		{"was handed back 1 times and came 0", func(h history) { h.buffer(true) }},
		{"was neither handed back nor dropped", func(h history) { h.buffer(false) }},
		{"did not leave the instance", func(h history) {
			h.add(0, eventlog.Event{Type: eventlog.MessageDropped, ID: order, Topic: "status", Key: "id", Value: value, Msg: 3})
		}},
		{"no unfinished fan-out", func(h history) { h.add(1, eventlog.Event{Type: eventlog.FanOutPage, Msg: 3}) }},
		{"which it was never told", func(h history) { h.find(1, eventlog.DeliveriesAcked, 0).Upto.Index = 4 }},
		{"are not acknowledged", func(h history) { h.find(1, eventlog.DeliveriesAcked, 0).Type = eventlog.Checkpoint }},
		{"belongs to partition", func(h history) { h.find(1, eventlog.SubscriptionAdded, 0).Value = named("x", 0) }},
	} {
		h := good()
		c.spoil(h)
		r := audit(h, true)
		found := false
		for _, v := range r.First {
			found = found || strings.Contains(v.Text, c.want)
		}
		if !found {
			t.Errorf("want a violation with %q, have %v", c.want, r.First)
		}
	}
}

// The messages of Command tasks: one missing, one twice, one that no event sent.
func TestMessages(t *testing.T) {
	key := fmt.Sprintf("%s/3/O/place/1", order)
	for _, c := range []struct {
		name string
		keys []string
		want string
	}{
		{"clean", []string{key}, ""},
		{"missing", nil, "is not in topic"},
		{"twice", []string{key, key}, "a second time"},
		{"foreign", []string{key, "other/1/x/1"}, "no event sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := write(t, good())
			for _, k := range c.keys {
				if err := log.Publish(t.Context(), eventlog.Record{Topic: "orders", Partition: 0, Value: []byte(`{}`),
					Headers: []eventlog.Header{{Key: "dagger-idempotency-key", Value: []byte(k)}}}); err != nil {
					t.Fatal(err)
				}
			}
			// Of another application that shares the topic, with a key that could be ours.
			if err := log.Publish(t.Context(), eventlog.Record{Topic: "orders", Partition: 0, Value: []byte(`{}`), Headers: []eventlog.Header{
				{Key: "dagger-app", Value: []byte("another")}, {Key: "dagger-idempotency-key", Value: []byte(key)}}}); err != nil {
				t.Fatal(err)
			}
			if err := log.Publish(t.Context(), eventlog.Record{Topic: "orders", Partition: 0, Value: []byte(`by others`)}); err != nil {
				t.Fatal(err)
			}
			calls := int64(0)
			r, err := Log(t.Context(), log, Options{Topics: []string{"orders"}, Settled: true, Progress: func(done, total int64) { calls = total }})
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				if err := r.Err(); err != nil {
					t.Error(err)
				}
				if r.Moved || calls == 0 || r.Messages != 1 {
					t.Errorf("report %+v, progress %d", r, calls)
				}
				return
			}
			if r.Violations != 1 || !strings.Contains(r.First[0].String(), c.want) {
				t.Errorf("want one violation with %q, have %v", c.want, r.First)
			}
		})
	}
}

// A dead letter that is missing, and one that no event speaks of.
func TestDeadLetters(t *testing.T) {
	h := good()
	h.buffer(false)
	h.add(0, eventlog.Event{Type: eventlog.MessageDropped, ID: order, Topic: "status", Key: "id", Value: value, Msg: 3})
	for n, want := range []string{"are not in the dead-letter topic", "", "no event speaks of this"} {
		log := write(t, h)
		for range n {
			if err := log.Publish(t.Context(), eventlog.Record{Topic: eventlog.DeadLetterTopic(log.App()), Partition: 0, Headers: []eventlog.Header{
				{Key: "dagger-topic", Value: []byte("status")}, {Key: "dagger-topic-id", Value: []byte("s")}, {Key: "dagger-partition", Value: []byte("0")},
				{Key: "dagger-offset", Value: []byte("7")}, {Key: "dagger-key", Value: []byte("id")}, {Key: "dagger-value", Value: []byte(value)}}}); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Log(t.Context(), log, Options{})
		if err != nil {
			t.Fatal(err)
		}
		found := ""
		for _, v := range r.First {
			if strings.Contains(v.Text, "dead") {
				found += v.Text
			}
		}
		if want == "" && found != "" || !strings.Contains(found, want) {
			t.Errorf("%d dead letters: want %q, have %v", n, want, r.First)
		}
	}
}

func write(t *testing.T, h history) *embedlog.Log {
	t.Helper()
	log, err := embedlog.OpenMemory(embedlog.Options{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	if err := log.EnsureTopic(t.Context(), "orders", 1); err != nil {
		t.Fatal(err)
	}
	for p := range int32(2) {
		owner, err := log.Own(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		events, types := [][]byte{eventlog.Barrier}, []eventlog.Type{eventlog.BarrierType}
		for _, e := range h[p] {
			events, types = append(events, eventlog.AppendEvent(nil, e)), append(types, e.Type)
		}
		if _, err := owner.Append(t.Context(), events, types, nil); err != nil {
			t.Fatal(err)
		}
		if err := owner.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := owner.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return log
}

func TestNoEvent(t *testing.T) {
	a := New(1, Options{})
	a.Record(0, 0, eventlog.Barrier)
	a.Record(0, 1, []byte(`{}`))
	if r := a.Finish(); r.Violations != 1 || r.First[0].Offset != 1 {
		t.Errorf("report %+v", r)
	}
}
