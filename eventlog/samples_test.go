package eventlog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// The samples are one pizza order, number 42, of application pizza with 16 partitions. Each
// shows every member that events of its type usually have. Their lines are the golden ones,
// and the examples of docs/event-log.md.

const (
	sampleAt   = 1764034213000
	samplePlan = `{"name":"PizzaWorkflow","version":1,"nodes":[{"path":"Order","kind":"process","nodes":[{"path":"Order/place","kind":"command","topic":"pizza_order_topic"},{"path":"Order/ready","kind":"listen","topic":"order_status_topic","key":"order_id","ttl":86400000}]},{"path":"Delivery","kind":"process","nodes":[{"path":"Delivery/deliver","kind":"execute","retry":{"attempts":5,"delay":1000}}]}]}`
	requestsID = "5kX0Zb1QTfqQ9GmJ3i1u3A"
	statusID   = "Qm7wYd2sR0a8t5bVnE4pXw"
)

var sampleHash = func() string { // as plans are named
	sum := sha256.Sum256([]byte(samplePlan))
	return hex.EncodeToString(sum[:8])
}()

var orderKey = KeyRef{Topic: "order_status_topic", Key: "order_id", Value: "42"}

func sampleMessage() *Message {
	return &Message{Topic: "order_status_topic", TopicID: statusID, Partition: 3, Offset: 1207, Time: sampleAt + 55_000,
		Key: []byte("42"), Value: json.RawMessage(`{"order_id":"42","status":"READY"}`),
		Headers: []Header{{Key: "traceparent", Value: []byte("00-4bf9-01")}}}
}

// home is the partition of order-42, keyHome that of its correlation value.
var home, keyHome = PartitionOf("order-42", 16), PartitionOf("42", 16)

func toKey(r Request) Out {
	r.V, r.ID, r.Run, r.Topic, r.Key, r.Value = 1, "order-42", 90211, orderKey.Topic, orderKey.Key, orderKey.Value
	return Out{To: keyHome, Request: r}
}

func ofInstance(n, seq uint64, t Type) Event {
	return Event{V: 1, N: n, Type: t, At: sampleAt, ID: "order-42", Seq: seq, Run: 90211}
}

func ofTask(n, seq uint64, t Type, path string, act uint64, attempt int) Event {
	e := ofInstance(n, seq, t)
	e.Path, e.Act, e.Attempt = path, act, attempt
	return e
}

func ofKey(n uint64, t Type) Event {
	return Event{V: 1, N: n, Type: t, At: sampleAt, Topic: orderKey.Topic, Key: orderKey.Key, Value: orderKey.Value}
}

func with(e Event, change func(*Event)) Event {
	change(&e)
	return e
}

func sampleEvents() []Event {
	return []Event{
		{V: 1, N: 90209, Type: PartitionOwned, At: sampleAt, Worker: "host-1/4711", Address: "http://10.0.0.5:8080"},
		{V: 1, N: 90210, Type: PlanUsed, At: sampleAt, Plan: sampleHash, PlanData: json.RawMessage(samplePlan)},
		{V: 1, N: 90240, Type: Checkpoint, At: sampleAt, Pos: &Position{TopicID: requestsID, Offset: 48112, Term: 4, Forwarded: 90233,
			Sources: []SourceMark{
				{Source: Source{TopicID: statusID, Partition: 3, Key: "order_id"}, Mark: Mark{Pos: 1207}},
				{Source: Source{Partition: 5}, Mark: Mark{Pos: 7731, Index: 2}, Delivery: true},
			},
			Refused: []Refusal{{ID: "order-41", Request: "01JD8X9G5T", Made: sampleAt - 20, Answer: "exists"}},
		}},

		with(ofInstance(90211, 1, InstanceStarted), func(e *Event) {
			e.Definition, e.Plan, e.Params = "PizzaWorkflow", sampleHash, json.RawMessage(`{"order_id":"42","customer_id":"7","pizza_type":"margherita"}`)
			e.Keys = []TaskKey{{Path: "Order/ready", Value: "42"}}
			e.Starts = []Start{{Path: "Order/place", Kind: Command, Due: sampleAt + 30_000}}
			e.Request, e.Made = "01JD8X9G4M", sampleAt-12
			e.Trace = &Trace{Parent: parent, State: "rojo=00f067aa0ba902b7"}
			e.Subs = []KeyRef{orderKey}
			e.Out = []Out{toKey(Request{Type: Subscribe, Act: 1})}
			e.Pos = &Position{TopicID: requestsID, Offset: 48101, Forwarded: 90205}
		}),
		with(ofInstance(90212, 2, KeysEvaluated), func(e *Event) {
			e.Act, e.Keys = 1, []TaskKey{{Path: "Order/ready", Value: "42"}}
		}),
		with(ofTask(90236, 11, AttemptStarted, "Delivery/deliver", 8, 2), func(e *Event) { e.Due = sampleAt + 10_000 }),
		ofTask(90237, 12, AttemptRunning, "Delivery/deliver", 8, 2),
		with(ofTask(90238, 13, AttemptInterrupted, "Delivery/deliver", 8, 2), func(e *Event) { e.Due = sampleAt + 10_000 }),
		with(ofTask(90231, 9, AttemptFailed, "Delivery/deliver", 8, 1), func(e *Event) {
			e.Due, e.Error, e.Stack = sampleAt+1060, "courier: no driver", "panic: no driver\nmain.deliver(...)"
		}),
		with(ofTask(90232, 9, AttemptTimedOut, "Delivery/deliver", 8, 1), func(e *Event) {
			e.Due, e.Error = sampleAt+1060, "timed out"
		}),
		with(ofTask(90214, 3, TaskCompleted, "Order/place", 1, 1), func(e *Event) {
			e.Params = json.RawMessage(`{"placed_at":1764034213}`)
			e.Starts = []Start{{Path: "Order/ready", Kind: Listen}}
			e.Sent = &Sent{Topic: "pizza_order_topic", Key: "42", Size: 61}
			e.Pos = &Position{TopicID: requestsID, Offset: 48102}
		}),
		with(ofTask(90241, 14, TaskFailed, "Delivery/deliver", 8, 5), func(e *Event) { e.Error = "courier: no driver" }),
		with(ofInstance(90219, 4, MessageReceived), func(e *Event) {
			e.Path, e.Topic, e.Key, e.Value, e.Msg, e.Message = "Order/ready", orderKey.Topic, orderKey.Key, orderKey.Value, 7731, sampleMessage()
		}),
		with(ofTask(90220, 5, ListenContinued, "Order/ready", 4, 1), func(e *Event) {
			e.Params, e.Due = json.RawMessage(`{"status":"BAKING"}`), sampleAt+3_600_000
		}),
		with(ofTask(90222, 6, EveryContinued, "Watch/poll", 4, 1), func(e *Event) {
			e.Params, e.Due = json.RawMessage(`{"count":1}`), sampleAt+10_000
		}),
		with(ofTask(90223, 7, DeadlinePassed, "Order", 1, 0), func(e *Event) {
			e.Ends = []End{{Path: "Order/ready", Kind: Listen, Status: "SKIPPED"}}
			e.Starts = []Start{{Path: "Delivery/deliver", Kind: Execute, Due: sampleAt + 10_000}}
		}),
		with(ofInstance(90224, 7, SkippedTo), func(e *Event) {
			e.Path = "Order/ready"
			e.Ends = []End{{Path: "Order/place", Kind: Command, Status: "SKIPPED"}}
			e.Starts = []Start{{Path: "Order/ready", Kind: Listen}}
		}),
		ofInstance(90225, 12, FlowEnded),
		with(ofInstance(90213, 3, MessageBuffered), func(e *Event) {
			e.Topic, e.Key, e.Value, e.Msg, e.Message = orderKey.Topic, orderKey.Key, orderKey.Value, 7731, sampleMessage()
			e.Expires, e.Sole = sampleAt+86_400_000, true
		}),
		with(ofInstance(90298, 7, BufferExpired), func(e *Event) {
			e.Topic, e.Key, e.Value, e.Msg = orderKey.Topic, orderKey.Key, orderKey.Value, 7731
		}),
		with(ofInstance(90299, 8, ListenerFull), func(e *Event) {
			e.Topic, e.Key, e.Value, e.Msg, e.Unsubs = orderKey.Topic, orderKey.Key, orderKey.Value, 7832, []KeyRef{orderKey}
			e.Out = []Out{toKey(Request{Type: Returned, Act: 1, Msg: 7832})}
		}),
		ofInstance(90243, 16, InstanceCompleted),
		with(ofInstance(90242, 15, InstanceFailed), func(e *Event) { e.Path, e.Error = "Delivery/deliver", "courier: no driver" }),
		with(ofInstance(90220, 5, InstanceStopping), func(e *Event) {
			e.Reason, e.Request, e.Made = "cancelled by the customer", "01JD8XA0B2", sampleAt-9
			e.Ends = []End{{Path: "Order/ready", Kind: Listen, Status: "STOPPED"}}
			e.Starts = []Start{{Path: "Order@stop", Kind: OnStop, Due: sampleAt + 60_000}}
		}),
		with(ofInstance(90221, 6, InstanceStopped), func(e *Event) {
			e.Reason, e.Request, e.Made = "cancelled by the customer", "01JD8XA0B2", sampleAt-9
			e.Unsubs, e.Back = []KeyRef{orderKey}, []uint64{4}
			e.Out = []Out{toKey(Request{Type: Unsubscribe, Act: 1}),
				toKey(Request{Type: Returned, Msg: 7731, Message: sampleMessage(), Expires: sampleAt + 86_400_000, Sole: true})}
		}),
		with(ofInstance(90250, 16, InstanceRetried), func(e *Event) {
			e.Evaluate, e.Starts = true, []Start{{Path: "Delivery/deliver", Kind: Execute, Due: sampleAt + 10_000}}
			e.Reason, e.Request, e.Made = "drivers are back", "01JD8XB7Q9", sampleAt-9
		}),
		with(ofInstance(90251, 17, InstanceQuarantined), func(e *Event) {
			e.Act, e.Reason = 16, "fold TaskCompleted: index out of range [3] with length 3"
		}),
		with(ofInstance(90260, 18, InstanceReset), func(e *Event) {
			e.Starts = []Start{{Path: "Delivery/deliver", Kind: Execute}}
			e.Reason, e.Request, e.Made = "mended", "01JD8XC3F1", sampleAt-9
			e.State = json.RawMessage(`{"definition":"PizzaWorkflow","plan":"` + sampleHash + `","status":"EXECUTING","params":{"order_id":"42"},"tasks":[{"path":"Delivery/deliver","kind":"execute","status":"EXECUTING","phase":"running","act":16,"attempt":1,"since":1764034213000}]}`)
		}),
		with(ofInstance(90270, 17, InstanceDeleted), func(e *Event) { e.Reason, e.Request, e.Made = "asked for by the customer", "01JD8XD5K4", sampleAt-9 }),

		{V: 1, N: 90252, Type: RequestHeld, At: sampleAt, ID: "order-42", Msg: 7731, Held: &Request{V: 1, Type: DeliverTo,
			ID: "order-42", Run: 90211, Act: 1, At: sampleAt - 8, Topic: orderKey.Topic, Key: orderKey.Key, Value: orderKey.Value,
			Msg: 7731, Message: sampleMessage(), Expires: sampleAt + 86_400_000, Sole: true, Oldest: true}},
		{V: 1, N: 90261, Type: RequestReleased, At: sampleAt, ID: "order-42"},
		{V: 1, N: 90207, Type: StopKept, At: sampleAt, ID: "order-42", Definition: "PizzaWorkflow", Reason: "record cancel_topic/0@17",
			Request: "stop/cancel_topic/0/17/" + statusID, Expires: sampleAt + 86_400_000,
			Message: &Message{Topic: "cancel_topic", TopicID: statusID, Offset: 17, Time: sampleAt - 40, Value: json.RawMessage(`"order-42"`)}},
		{V: 1, N: 91406, Type: StopExpired, At: sampleAt + 86_400_000, ID: "order-42", Reason: "not found in 24 hours", Msg: 90207},
		{V: 1, N: 91407, Type: AnswersForgotten, At: sampleAt + 90_000_000, ID: "order-42"},
		with(ofKey(90244, DeliveryRefused), func(e *Event) {
			e.ID, e.Msg = "order-42", 7731
			e.Out = []Out{toKey(Request{Type: Returned, Act: 1, Msg: 7731})}
		}),
		with(ofKey(90245, MessageDropped), func(e *Event) { e.ID, e.Msg = "order-42", 7731 }),

		with(ofKey(7702, SubscriptionAdded), func(e *Event) { e.ID, e.Run, e.Act = "order-42", 90211, 1 }),
		with(ofKey(7733, SubscriptionRemoved), func(e *Event) { e.ID, e.Run, e.Act = "order-42", 90211, 1 }),
		with(ofKey(7731, MessageKept), func(e *Event) {
			e.Msg, e.Message, e.Expires = 7731, sampleMessage(), sampleAt+86_400_000
		}),
		with(ofKey(7731, MessageMatched), func(e *Event) {
			e.Msg, e.Message, e.Expires, e.Sole, e.Chosen, e.After = 7731, sampleMessage(), sampleAt+86_400_000, true, 1, 7702
			deliver := toKey(Request{Type: DeliverTo, Act: 1, Msg: 7731, Expires: sampleAt + 86_400_000, Sole: true})
			deliver.To = home
			e.Out = []Out{deliver}
		}),
		{V: 1, N: 7741, Type: FanOutPage, At: sampleAt, Msg: 7740, Message: sampleMessage(), Chosen: 1, Kept: 1, After: 7739, Until: 7900},
		with(ofKey(7732, MessageReturned), func(e *Event) { e.ID, e.Run, e.Act, e.Msg = "order-42", 90211, 1, 7731 }),
		with(ofKey(7799, MessageExpired), func(e *Event) { e.Msg, e.Reason = 7731, "nobody waited for it in time" }),
		{V: 1, N: 7734, Type: DeliveriesAcked, At: sampleAt, From: 5, Upto: &Mark{Pos: 7731}},
	}
}

func sampleRequests() []Request {
	crossing := func(r Request, from int32, pos int64) Request {
		r.Source, r.Mark, r.At = &Source{Partition: from}, &Mark{Pos: pos}, sampleAt
		return r
	}
	return []Request{
		{V: 1, Type: StartInstance, Request: "01JD8X9G4M", Made: sampleAt - 12, ID: "order-42", Definition: "PizzaWorkflow",
			Params: json.RawMessage(`{"order_id":"42","customer_id":"7","pizza_type":"margherita"}`), Trace: &Trace{Parent: parent}},
		{V: 1, Type: StopInstance, Request: "01JD8XA0B2", Made: sampleAt - 9, Caller: "ann@example.com", ID: "order-42", Reason: "cancelled by the customer"},
		{V: 1, Type: RetryInstance, Request: "01JD8XB7Q9", Made: sampleAt - 9, ID: "order-42", Reason: "drivers are back"},
		{V: 1, Type: ReleaseInstance, Request: "01JD8XC3F1", Made: sampleAt - 9, ID: "order-42", Reason: "mended"},

		{V: 1, Type: DeleteInstance, Request: "01JD8XD5K4", Made: sampleAt - 9, ID: "order-42", Reason: "asked for by the customer"},

		{V: 1, Type: Result, ID: "order-42", Run: 90211, Path: "Order/place", Act: 1, Attempt: 1,
			Params: json.RawMessage(`{"placed_at":1764034213}`), Base: 1, Keys: []TaskKey{{Path: "Order/ready", Value: "42"}}, HasKeys: true, OK: true, Jitter: 0.25,
			Record: &Record{Topic: "pizza_order_topic", Partition: -1, Time: time.UnixMilli(sampleAt).UTC(), Key: []byte("42"), Value: []byte(`{"order_id":"42"}`),
				Headers: []Header{{Key: "dagger-instance", Value: []byte("order-42")}}}},
		{V: 1, Type: Evaluated, ID: "order-42", Run: 90211, Act: 1, Base: 1, Keys: []TaskKey{{Path: "Order/ready", Value: "42"}}},
		{V: 1, Type: Deliver, Source: &Source{TopicID: statusID, Partition: 3, Key: "order_id"}, Mark: &Mark{Pos: 1207},
			Topic: orderKey.Topic, Key: orderKey.Key, Value: orderKey.Value, Message: sampleMessage(), TTL: 86_400_000},
		crossing(toKey(Request{Type: Subscribe, Act: 1}).Request, home, 90211),
		crossing(toKey(Request{Type: Unsubscribe, Act: 1}).Request, home, 90221),
		crossing(toKey(Request{Type: DeliverTo, Act: 1, Msg: 7731, Message: sampleMessage(), Expires: sampleAt + 86_400_000, Sole: true}).Request, keyHome, 7731),
		crossing(toKey(Request{Type: Returned, Act: 1, Msg: 7731}).Request, home, 90244),
		crossing(Request{V: 1, Type: Ack, From: 5, Upto: &Mark{Pos: 7731}}, 5, 31077),
	}
}
