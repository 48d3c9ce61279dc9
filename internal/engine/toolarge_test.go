package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// limitedLog has a topic whose limit somebody changes.
type limitedLog struct {
	eventlog.Log
	topic string
	limit atomic.Int64
}

func (l *limitedLog) Topic(ctx context.Context, name string) (eventlog.Topic, error) {
	t, err := l.Log.Topic(ctx, name)
	if n := l.limit.Load(); n > 0 && name == l.topic {
		t.MaxRecord = int(n)
	}
	return t, err
}

func (l *limitedLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return limitedOwner{o, l}, err
}

type limitedOwner struct {
	eventlog.Owner
	l *limitedLog
}

func (o limitedOwner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (int64, error) {
	for _, e := range events {
		if n := o.l.limit.Load(); n > 0 && o.l.topic == eventlog.EventsTopic(o.l.App()) && len(e) > int(n) {
			return 0, fmt.Errorf("%w: %d bytes", eventlog.ErrTooLarge, len(e))
		}
	}
	return o.Owner.Append(ctx, events, types, messages)
}

// TestEventsTopicTakesLess: somebody lowers max.message.bytes of the events topic under an
// engine that works. What does not fit any more is refused; nothing is tried for ever.
func TestEventsTopicTakesLess(t *testing.T) {
	log := &limitedLog{Log: memLog(t), topic: eventlog.EventsTopic("test")}
	e, _ := runEngine(t, log, memStore(t), runOrders(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	start := func(id string, bytes int) (Answer, error) {
		return e.Call(ctx, &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "Order",
			Params: json.RawMessage(fmt.Sprintf(`{"order":"1","more":%q}`, strings.Repeat("x", bytes)))})
	}
	if a, err := start("{x}before", 50_000); err != nil || a.Answer != machine.OK {
		t.Fatalf("before: %+v, %v", a, err)
	}
	log.limit.Store(20_000)
	if a, err := start("{x}large", 50_000); err != nil || a.Answer == machine.OK {
		t.Errorf("what is too large now: %+v, %v", a, err)
	}
	if a, err := start("{x}small", 100); err != nil || a.Answer != machine.OK {
		t.Errorf("what fits: %+v, %v", a, err)
	}
}

// TestRequestsTopicTakesLess: what an event tells another partition must fit the requests topic.
func TestRequestsTopicTakesLess(t *testing.T) {
	log := &limitedLog{Log: memLog(t), topic: eventlog.RequestsTopic("test")}
	log.limit.Store(20_000)
	if e := newEngine(t, log); e.maxEvent != 20_000 {
		t.Errorf("an event may have %d bytes, a request 20000", e.maxEvent)
	}
}

// TestEventThatDoesNotFit: it is no reason to decide the same again for ever; its instance goes
// to quarantine and the partition goes on.
func TestEventThatDoesNotFit(t *testing.T) {
	o := waitingOwner()
	o.maxEvent = 10_000
	i := &machine.Instance{}
	i.ID, i.Run = "i", 1
	o.st.Instances["i"] = i
	o.turn = &machine.Turn{S: o.st, Events: []*eventlog.Event{
		{V: 1, N: 1, Type: eventlog.Checkpoint},
		{V: 1, N: 2, Seq: 1, Type: eventlog.TaskCompleted, ID: "i", Reason: strings.Repeat("x", 10_000)},
	}}
	a := opAppend{events: make([][]byte, 2), types: make([]eventlog.Type, 2)}
	if err := o.encode(&a); !errors.Is(err, errPoison) || !strings.Contains(o.poisoned["i"], "bytes") {
		t.Errorf("%v; poisoned: %q", err, o.poisoned)
	}
}

// TestReleaseThatDoesNotFit: its caller is told; the instance stays where it is.
func TestReleaseThatDoesNotFit(t *testing.T) {
	o := waitingOwner()
	o.maxEvent = 10_000
	i := &machine.Instance{}
	i.ID, i.Run = "i", 1
	o.st.Instances["i"] = i
	o.turn = &machine.Turn{S: o.st, Events: []*eventlog.Event{
		{V: 1, N: 1, Type: eventlog.Checkpoint},
		{V: 1, N: 2, Seq: 1, Type: eventlog.InstanceReset, ID: "i", Reason: strings.Repeat("x", 10_000)},
	}}
	o.done = []unit{
		{offset: 7, request: eventlog.Request{Type: eventlog.Ack}},
		{offset: -1, token: &call{}, events: 1, request: eventlog.Request{Type: eventlog.ReleaseInstance, ID: "i"}},
		{offset: 8, events: 2, request: eventlog.Request{Type: eventlog.Ack}},
	}
	a := opAppend{events: make([][]byte, 2), types: make([]eventlog.Type, 2)}
	if err := o.encode(&a); !errors.Is(err, errPoison) || len(o.poisoned)+len(o.poison) > 0 {
		t.Errorf("%v; poisoned: %q, %v", err, o.poisoned, o.poison)
	}
	if r := o.effects.replies; len(r) != 1 || !strings.Contains(r[0].err.Error(), "InstanceReset has 1") {
		t.Errorf("replies: %+v", r)
	}
}

// TestMessagesOfBeforeTheLimit: the limit of the events topic is lowered when large messages are in
// the requests topic, kept for their key, or on their way to an instance. None is tried for ever: they
// are dead letters, and the partition goes on.
func TestMessagesOfBeforeTheLimit(t *testing.T) {
	log := &limitedLog{Log: memLog(t), topic: eventlog.EventsTopic("test")}
	e, _ := runEngine(t, log, memStore(t), runOrders(t))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	p := eventlog.PartitionOf("{1}", 4)
	start := func(id, order string, bytes int) {
		t.Helper()
		a, err := e.Call(ctx, &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "Order",
			Params: json.RawMessage(fmt.Sprintf(`{"order":%q,"more":%q}`, order, strings.Repeat("x", bytes)))})
		if err != nil || a.Answer != machine.OK {
			t.Fatalf("start %s: %+v, %v", id, a, err)
		}
	}
	large := func(note string) *eventlog.Message {
		return &eventlog.Message{Topic: "status", Value: json.RawMessage(fmt.Sprintf(`{"note":%q,"more":%q}`, note, strings.Repeat("x", 50_000)))}
	}
	request := func(q eventlog.Request) {
		t.Helper()
		data, err := eventlog.AppendRequest(nil, &q)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic("test"), Partition: p, Key: []byte(q.PartitionKey()), Value: data}); err != nil {
			t.Fatal(err)
		}
	}
	deliver := func(value, note string) {
		request(eventlog.Request{V: 1, Type: eventlog.Deliver, Topic: "status", Key: "order", Value: value, Message: large(note), TTL: time.Hour.Milliseconds()})
	}
	instance := func(id string) *machine.Instance {
		i, err := e.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	letters := func() (l []string) {
		topic, err := log.Topic(ctx, eventlog.DeadLetterTopic("test"))
		if err != nil || topic.Partitions[0].End == 0 {
			return nil
		}
		r, err := log.Read(ctx, topic.Name, 0, 0, "", eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for next := int64(0); next < topic.Partitions[0].End; {
			var records []eventlog.Record
			if records, next, err = r.Next(ctx); err != nil {
				t.Fatal(err)
			}
			for _, rec := range records {
				l = append(l, string(rec.Headers[0].Value))
			}
		}
		return l
	}

	start("{1}a", "{1}", 50_000)
	until(t, ctx, "it waits", func() bool {
		x := instance("{1}a").Task("P/ready")
		return x != nil && x.Status == machine.Executing
	})
	deliver("{1}kept", "kept")
	start("{1}kept", "{1}other", 0)
	until(t, ctx, "the message is kept", func() bool {
		topic, err := log.Topic(ctx, eventlog.EventsTopic("test"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := log.Read(ctx, topic.Name, p, 0, "", eventlog.ReadCommitted)
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
				if strings.Contains(string(rec.Value), `"MessageKept"`) {
					return true
				}
			}
		}
		return false
	})

	log.limit.Store(20_000)
	deliver("{1}", "to one who waits")
	until(t, ctx, "what came is a dead letter", func() bool { return len(letters()) == 1 })
	start("{1}b", "{1}kept", 0)
	until(t, ctx, "what was kept is a dead letter", func() bool { return len(letters()) == 2 })
	for _, l := range letters() {
		if !strings.Contains(l, "larger than the events topic takes") {
			t.Errorf("reason %q", l)
		}
	}

	a := instance("{1}a")
	for range 2 {
		request(eventlog.Request{V: 1, Type: eventlog.DeliverTo, ID: a.ID, Run: a.Run, Act: a.Subs[0].Act, Topic: "status", Key: "order", Value: "{1}", Msg: 1 << 40, Message: large("")})
	}
	until(t, ctx, "what it can't take is a dead letter", func() bool { return len(letters()) == 4 })
	for _, l := range letters()[2:] {
		if !strings.HasPrefix(l, "MessageReceived has 5") {
			t.Errorf("reason %q", l)
		}
	}
	if q := instance("{1}a").Quarantined; q != "" {
		t.Errorf("quarantine: %q", q)
	}
	start("{1}c", "{1}", 100)
}
