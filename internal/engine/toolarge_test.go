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
