package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// callOfWord makes a call of a message that is a JSON string: "start x", "stop x" and others
// that go wrong.
func callOfWord(m *eventlog.Message) (*eventlog.Request, error) {
	var word string
	if err := json.Unmarshal(m.Value, &word); err != nil {
		return nil, err
	}
	verb, id, _ := strings.Cut(word, " ")
	switch verb {
	case "start":
		return &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "Order", Params: json.RawMessage(`{"a":1}`), HasKeys: true}, nil
	case "stop":
		return &eventlog.Request{Type: eventlog.StopInstance, ID: id, Definition: "Order"}, nil
	case "large":
		return &eventlog.Request{Type: eventlog.StartInstance, ID: id, Params: json.RawMessage(`"` + strings.Repeat("x", 5000) + `"`)}, nil
	case "panic":
		panic("bad function")
	case "error":
		return nil, errors.New("bad order")
	}
	return nil, nil
}

func testTrigger() *relay {
	r := testRelay()
	r.tk, r.keys, r.call = TopicKey{"orders", "start/Order"}, nil, callOfWord
	return r
}

// TestTriggerMakesCalls: one record makes one call, with its position as source and id, or a
// dead letter, or nothing. Protocol rules 16 and 19.
func TestTriggerMakesCalls(t *testing.T) {
	words := []string{`"start a"`, `"nothing"`, `"stop b"`, `"error"`, `"panic"`, `7`, `"large c"`, `"start "`, `"start {d}/1"`}
	var records []eventlog.Record
	for k, w := range words {
		records = append(records, record(int64(k), w))
	}
	trace, published := script(t, testTrigger(), records, never)
	if diff := cmp.Diff([]string{"open", "publish 8 <nil>", "commit 9 <nil>"}, trace); diff != "" {
		t.Fatal(diff)
	}
	var got []string
	for _, rec := range published {
		if rec.Topic == "test.deadletter" {
			reason, _, _ := strings.Cut(string(rec.Headers[0].Value), "\n")
			got = append(got, fmt.Sprintf("dead %s: %s", rec.Value, reason))
			continue
		}
		var q eventlog.Request
		if err := eventlog.DecodeRequest(rec.Value, &q); err != nil {
			t.Fatal(err)
		}
		if want := eventlog.PartitionOf(q.ID, 4); rec.Partition != want || string(rec.Key) != eventlog.PartitionKey(q.ID) {
			t.Errorf("%s went to partition %d under key %s, want partition %d", q.ID, rec.Partition, rec.Key, want)
		}
		if *q.Source != (eventlog.Source{TopicID: "T", Partition: 3, Key: "start/Order"}) || q.Mark.Index != 0 || q.Made != 0 {
			t.Errorf("%s: source %+v, mark %+v, made %d", q.ID, *q.Source, *q.Mark, q.Made)
		}
		got = append(got, fmt.Sprintf("%s %s at %d as %s, message %v", q.Type, q.ID, q.Mark.Pos, q.Request, q.Message != nil))
	}
	want := []string{
		"Start a at 0 as start/orders/3/0/T, message false",
		"Stop b at 2 as start/orders/3/2/T, message true",
		`dead "error": bad order`,
		`dead "panic": panic: bad function`,
		"dead 7: json: cannot unmarshal number into Go value of type string",
		`dead "large c": it asks for more than fits the log: it needs 5168 bytes of a request, 4096 fit`,
		`dead "start ": its call can't be recorded: field id: the id is empty`,
		"Start {d}/1 at 8 as start/orders/3/8/T, message false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// TestTriggerToldToEnd: what the function says of a record while the relay is told to end counts
// for nothing, nor does what came before it in the same read; another one looks at all again.
func TestTriggerToldToEnd(t *testing.T) {
	records := []eventlog.Record{record(0, `"start a"`), record(1, `"start b"`), record(2, `"start c"`)}
	r, ends := testTrigger(), 1
	r.call = func(m *eventlog.Message) (*eventlog.Request, error) {
		if m.Offset == 1 && ends > 0 {
			ends--
			return nil, errRelayEnded
		}
		return callOfWord(m)
	}
	trace, published := script(t, r, records, never)
	if diff := cmp.Diff([]string{"open", "fail " + errRelayEnded.Error(), "open", "publish 3 <nil>", "commit 3 <nil>"}, trace); diff != "" {
		t.Error(diff)
	}
	// After an error of the log, the same records are sent again as they were.
	fails := 1
	trace, again := script(t, testTrigger(), records, func(op relayOp) error {
		if _, commit := op.(relayCommit); commit && fails > 0 {
			fails--
			return errors.New("broker gone")
		}
		return nil
	})
	if diff := cmp.Diff([]string{"open", "publish 3 <nil>", "commit 3 broker gone", "fail broker gone", "open", "publish 3 <nil>", "commit 3 <nil>"}, trace); diff != "" {
		t.Error(diff)
	}
	for k := range again {
		if string(again[k].Value) != string(published[k%3].Value) || again[k].Partition != published[k%3].Partition {
			t.Errorf("record %d was sent as %s, then as %s", k, published[k%3].Value, again[k].Value)
		}
	}
}

// startCode is executeCode with a trigger.
func startCode(t *testing.T, version int, begin Begin, kinds ...string) *Code {
	t.Helper()
	plan, err := machine.NewPlan("Order", version, []machine.Node{{Path: "a", Kind: eventlog.Execute}})
	if err != nil {
		t.Fatal(err)
	}
	c := &Code{Plan: plan, Handlers: map[string]Handler{"a": func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil }}}
	for _, kind := range kinds {
		c.Triggers = append(c.Triggers, Trigger{Topic: "orders", Kind: kind, Begin: begin,
			Call: func(_ context.Context, m *eventlog.Message) (*eventlog.Request, error) { return callOfWord(m) }})
	}
	return c
}

// TestTriggersAreRegistered: where they begin is recorded once for each version; a definition
// that is registered with and without them has them; other workers read the records.
func TestTriggersAreRegistered(t *testing.T) {
	log := memLog(t)
	e := newEngine(t, log)
	if err := log.EnsureTopic(t.Context(), "orders", 1); err != nil {
		t.Fatal(err)
	}
	say := func() {
		t.Helper()
		if err := log.Publish(t.Context(), eventlog.Record{Topic: "orders", Value: []byte(`"start a"`)}); err != nil {
			t.Fatal(err)
		}
	}
	register := func(e *Engine, c *Code) {
		t.Helper()
		if err := e.Register(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	say()
	register(e, startCode(t, 1, BeginLatest, "start"))
	register(e, startCode(t, 1, BeginYoung, "stop"))
	register(e, startCode(t, 1, BeginYoung))
	say()
	register(e, startCode(t, 1, BeginLatest, "start"))
	if c := e.registry.code(startCode(t, 1, 0).Plan.Hash()); len(c.Triggers) != 2 || len(e.registry.relays()) != 2 {
		t.Errorf("triggers %+v, relays %+v", c.Triggers, e.registry.relays())
	}
	other := newEngine(t, log)
	register(other, executeCode(t, "Other", 1, nil))
	topic, err := log.Topic(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	begins := func(key string, want int64) {
		t.Helper()
		for _, x := range []*Engine{e, other} {
			if at, known := x.registry.startOf(TopicKey{"orders", key}, topic.ID, 0); at != want || !known {
				t.Errorf("%s begins at %d (%v), want %d", key, at, known, want)
			}
		}
	}
	begins("start/Order", 1)
	begins("stop/Order", 0)
	if _, known := other.registry.startOf(TopicKey{"orders", "start/Other"}, topic.ID, 0); known || len(other.registry.relays()) != 0 {
		t.Error("a relay of another worker")
	}
	// The next version is read from where the first is; without a committed offset that counts.
	register(e, startCode(t, 2, BeginEarliest, "start"))
	register(other, startCode(t, 2, BeginEarliest, "start"))
	begins("start/Order", 0)
}

// TestTwoTreesAsOneVersion: of workers that register different trees as one version at the
// same time, one is refused.
func TestTwoTreesAsOneVersion(t *testing.T) {
	log := memLog(t)
	errs := make(chan error, 2)
	for _, ttl := range []time.Duration{time.Hour, 2 * time.Hour} {
		e := newEngine(t, log)
		go func() { errs <- e.Register(t.Context(), orderCode(t, 1, ttl)) }()
	}
	one, two := <-errs, <-errs
	if one == nil {
		one, two = two, one
	}
	changed, ok := errors.AsType[*ChangedError](one)
	if !ok || two != nil || changed.Next != 2 || len(changed.Diff) != 1 || !strings.HasPrefix(changed.Diff[0], "P/ready: ttl was ") {
		t.Errorf("%v, %v", one, two)
	}
}

// TestSameTreeInOtherBytes: a plan that another version of this package encoded otherwise is no
// change.
func TestSameTreeInOtherBytes(t *testing.T) {
	log := memLog(t)
	c := startCode(t, 1, 0)
	plan := json.RawMessage(`{"name":"Order","version":1,"nodes":[{"path":"a","kind":"execute","timeout":0,"news":"of a later version"}]}`)
	value, err := json.Marshal(definition{V: 1, Name: "Order", Hash: machine.HashPlan(plan), Plan: plan})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Publish(t.Context(), eventlog.Record{Topic: eventlog.DefinitionsTopic("test"), Key: []byte("Order@" + machine.HashPlan(plan)), Value: value}); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, log)
	if err := e.Register(t.Context(), c); err != nil {
		t.Error(err)
	}
	if p := e.Plan(machine.HashPlan(plan)); p == nil || p.Hash() == c.Plan.Hash() {
		t.Error("the other one is not known")
	}
}
