package workflow

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

type order struct {
	ID     string `json:"id"`
	Status string `json:"status,omitempty"`
}

type ready struct {
	ID string `json:"id"`
}

func nothing(context.Context, *order) error           { return nil }
func send(_ context.Context, o *order) (ready, error) { return ready{o.ID}, nil }
func take(context.Context, *order, ready) (bool, error) {
	return true, nil
}

func byID() Match[order, ready] {
	return By("id", func(o *order) string { return o.ID }, func(m *ready) string { return m.ID })
}

// TestMistakes: Register tells every mistake at once, each with its path.
func TestMistakes(t *testing.T) {
	type hidden struct {
		ID     string
		secret string
	}
	other := By("id", func(o *order) string { return o.ID }, func(m *order) string { return m.ID })
	for _, c := range []struct {
		name string
		def  AnyDefinition
		want []string
	}{
		{"names", New("",
			Execute("a/b", nothing), Execute("", nothing), Execute("x", nothing), Execute("x", nothing), Execute("tab\t", nothing), Execute(" y", nothing),
			Execute("a[1]", nothing), Execute("b@2", nothing)),
			[]string{
				`register "": the definition's name is empty`,
				`register "": a/b: its name "a/b" contains a slash, which separates the names of a path`,
				`register "": (execute number 2): its name is empty`,
				`register "": x: the name is used twice; siblings need different names`,
				`register "": tab	: its name "tab\t" contains a control character`,
				`register "":  y: its name " y" begins or ends with a space`,
				`register "": a[1]: its name "a[1]" contains [, ] or @, which paths use for something else`,
				`register "": b@2: its name "b@2" contains [, ] or @, which paths use for something else`,
			}},
		{"what counts for nothing", New("W", Execute("a", nothing).With(OnFailure(Continue.Times(3)))).Retain(0),
			[]string{
				`register W: Retain is 0s; at least 1ms`,
				`register W: a: Times is of Goto alone`,
			}},
		{"processes", New("W", Process[order]("Empty"), Process("P", Process("Q", Execute("a", nothing)).With(Retry(3, time.Second), Timeout(time.Second)))).Version(0),
			[]string{
				`register W: version 0 is less than 1`,
				`register W: Empty: a process needs at least one node`,
				`register W: P/Q: Retry is not for a node of kind process`,
				`register W: P/Q: Timeout is not for a node of kind process`,
			}},
		{"functions and topics", New("W",
			Execute[order]("a", nil), Command[order, ready]("b", "", nil),
			Listen("c", "t t", By[order, ready]("", nil, nil), nil), Listen("d", "t", Match[order, ready]{}, take), Node[order]{}),
			[]string{
				`register W: a: its function is nil`,
				`register W: b: its function is nil`,
				`register W: b: its topic is empty`,
				`register W: c: By has no function of the parameters`,
				`register W: c: By has no function of the message`,
				`register W: c: its function is nil`,
				`register W: c: its topic "t t" has ' '; letters, digits, dot, underscore and hyphen are allowed`,
				`register W: c: the attribute of its key is empty`,
				`register W: d: it has no Match: use By`,
				`register W: ( number 5): an empty Node: use Process, Execute and the like`,
			}},
		{"options", New("W",
			Execute("a", nothing).With(Retry(0, 0), Buffer(time.Hour), Option{}), Execute("b", nothing).With(Timeout(0), Retry(-1, time.Second)).Key(func(*order) string { return "" }),
			Listen("c", "t", byID(), take).With(Buffer(time.Second)), Command("d", "t", send).Key(nil).With(Timeout(200*365*24*time.Hour))),
			[]string{
				`register W: a: Buffer is not for a node of kind execute`,
				`register W: a: With was given an empty Option`,
				`register W: a: Retry with 0 attempts; at least 1`,
				`register W: a: the delay of Retry is 0s; at least 1ms`,
				`register W: b: Key is not for a node of kind execute`,
				`register W: b: Timeout is 0s; at least 1ms`,
				`register W: b: Retry with -1 attempts; at least 1`,
				`register W: c: Buffer is 1s; at least 1m0s`,
				`register W: d: Key has no function`,
				`register W: d: Timeout is 1752000h0m0s; at most a hundred years`,
			}},
		{"one key of two messages", New("W", Listen("a", "t", byID(), take), Listen("b", "t", other, func(context.Context, *order, order) (bool, error) { return true, nil })),
			[]string{`register W: b: id of topic t is computed from workflow.order here and from workflow.ready at a: give one of them another attribute`}},
		{"parameters", New("W", Execute("a", func(_ context.Context, h *hidden) error { h.secret = h.ID; return nil })),
			[]string{`register W: parameters: hidden.secret: the field is not exported, so JSON would lose it: export it, or tag it json:"-" if that is wanted`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.def.definition().compile()
			if err == nil {
				t.Fatal("no mistake was found")
			}
			if diff := cmp.Diff(strings.Join(c.want, "\n"), err.Error()); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlan is the data that a definition becomes.
func TestPlan(t *testing.T) {
	def := New("Pizza",
		Process("Order",
			Command("place", "orders", send),
			Listen("ready", "status", byID(), take).With(Buffer(time.Minute), Timeout(time.Hour))),
		Process("Delivery", Execute("deliver", nothing).With(Retry(5, time.Second), Timeout(time.Minute))),
		Listen("paid", "status", byID(), take).With(Buffer(2*time.Minute))).Version(3)
	c, err := def.definition().compile()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"Pizza","version":3,"nodes":[` +
		`{"path":"Order","kind":"process","nodes":[` +
		`{"path":"Order/place","kind":"command","topic":"orders"},` +
		`{"path":"Order/ready","kind":"listen","topic":"status","key":"id","ttl":120000,"timeout":3600000}]},` +
		`{"path":"Delivery","kind":"process","nodes":[{"path":"Delivery/deliver","kind":"execute","retry":{"attempts":5,"delay":1000},"timeout":60000}]},` +
		`{"path":"paid","kind":"listen","topic":"status","key":"id","ttl":120000}]}`
	if diff := cmp.Diff(want, string(c.code.Plan.Recorded())); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"orders", "status"}, c.code.Topics); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
	keys, err := c.code.Keys("", json.RawMessage(`{"id":"7"}`))
	if diff := cmp.Diff([]eventlog.TaskKey{{Path: "Order/ready", Value: "7"}, {Path: "paid", Value: "7"}}, keys); diff != "" || err != nil {
		t.Errorf("keys (-want +got):\n%s%v", diff, err)
	}
	from := c.code.Messages[engine.TopicKey{Topic: "status", Key: "id"}]
	for value, want := range map[string][]string{`{"id":"7"}`: {"7"}, `{}`: nil} {
		got, err := from(&eventlog.Message{Value: json.RawMessage(value)})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("keys of message %s (-want +got):\n%s%v", value, diff, err)
		}
	}
	for _, bad := range []string{`{"id":7}`, `nonsense`, `{"id":"a\nb"}`} {
		if got, err := from(&eventlog.Message{Value: json.RawMessage(bad)}); err == nil {
			t.Errorf("message %s gives %q and no error", bad, got)
		}
	}
}

// TestMessage: what a Command sends, and by which key.
func TestMessage(t *testing.T) {
	changed := func(_ context.Context, o *order) (ready, error) { o.Status = "placed"; return ready{o.ID}, nil }
	for _, c := range []struct {
		name string
		node Node[order]
		key  string
	}{
		{"by instance", Command("place", "orders", changed), "7"},
		{"by key", Command("place", "orders", changed).Key(func(o *order) string { return o.Status }), "placed"},
		{"without key", Command("place", "orders", changed).Key(func(*order) string { return "" }), ""},
	} {
		out, err := c.node.handler(t.Context(), engine.Attempt{Instance: "{7}/a", Params: json.RawMessage(`{"id":"1"}`)})
		if err != nil {
			t.Fatal(err)
		}
		r := out.Record
		if r.Topic != "orders" || r.Partition != -1 || string(r.Key) != c.key || string(r.Value) != `{"id":"1"}` || string(out.Patch) != `{"status":"placed"}` {
			t.Errorf("%s: record %q of key %q to %s/%d, patch %s", c.name, r.Value, r.Key, r.Topic, r.Partition, out.Patch)
		}
		if c.key == "" && r.Key != nil {
			t.Errorf("%s: the key is empty, not missing", c.name)
		}
	}
}

// TestErrorsOfHandlers: what the engine asks of an error survives wrapping.
func TestErrorsOfHandlers(t *testing.T) {
	if Terminal(nil) != nil || RetryAfter(time.Second, nil) != nil {
		t.Error("nil became an error")
	}
	var e error = RetryAfter(1500*time.Microsecond, Terminal(context.Canceled))
	if a, ok := e.(engine.RetryAfterError); !ok || a.RetryAfter() != 1 {
		t.Error("RetryAfter is not seen")
	}
}
