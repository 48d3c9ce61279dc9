package workflow

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/internal/engine"
)

type cart struct {
	ID string `json:"id"`
}

type line struct {
	Item string `json:"item"`
}

type lossy struct{ Call func() }

func noop[P any](context.Context, *P) error { return nil }

func cartLines(context.Context, *cart) ([]line, error) { return nil, nil }

func task(name string) Node[cart] { return Execute(name, noop[cart]) }

// TestRegisterTellsMistakesOfRepeatedNodes: each with its path.
func TestRegisterTellsMistakesOfRepeatedNodes(t *testing.T) {
	def := New("D",
		ForEach("empty", cartLines, nil),
		ForEach("lossy", func(context.Context, *cart) ([]lossy, error) { return nil, nil }, nil, Execute("x", noop[lossy])),
		ForEach("twice", cartLines, nil, Execute("x", noop[line]), Execute("x", noop[line])),
		ForEach[cart, line]("none", nil, nil, Execute("x", noop[line]).With(OnFailure(Goto("after")))),
		Dynamic("siblings", func(context.Context, *cart) ([]string, error) { return nil, nil },
			Process("one", task("a").With(OnFailure(Goto("two"))), task("b").With(OnFailure(Goto("one")))), Process("two", task("a"))),
		Dynamic("tasks", func(context.Context, *cart) ([]string, error) { return nil, nil }, task("x")),
		Process("goto", task("a").With(OnFailure(Goto("nowhere"))), task("b").With(OnFailure(Goto("both/l"))), task("c").With(OnFailure(Goto("after").Times(0)))),
		Parallel("both", All, Process("l", task("a")), task("r")),
		Process("late", task("a")).With(Deadline(0, SkipRest)),
		Process("unsaid", task("a")).With(Deadline(time.Second, 0)),
		Process("twofold", task("a")).With(Deadline(time.Second, FailNode)).DeadlineAt(func(*cart) time.Time { return time.Time{} }, FailNode),
		task("watched").Monitor("m", nil, noop[cart]).Monitor("m", func(*cart) Alarm { return Alarm{} }, noop[cart]).Monitor("stop", func(*cart) Alarm { return Alarm{} }, noop[cart]),
		Parallel("stopped", All, task("a")).OnStop(noop[cart]),
		task("limited").With(Concurrency(0)),
		task("wrong").With(Reprocess(), MatchOne(), SkipTo("x")),
		Listen("skips", "topic", By("id", func(c *cart) string { return c.ID }, func(l *line) string { return l.Item }),
			func(context.Context, *cart, line) (bool, error) { return true, nil }).With(SkipTo("after")),
		task("after"))
	_, err := def.compile()
	if err == nil {
		t.Fatal("no mistake was found")
	}
	for _, want := range []string{
		"D: empty: a foreach needs at least one node",
		"D: lossy: items: lossy.Call: JSON has nothing for a func",
		"D: twice[]/x: the name is used twice",
		"D: none: its function of the items is nil",
		`D: none[]/x: Goto: there is no node "after" beside it`,
		`D: siblings[]/one/a: Goto: there is no node "two"`,
		"D: tasks: x is no Process",
		`D: goto/a: Goto: there is no node "nowhere"`,
		`D: goto/b: Goto("both/l") leads into or through both, a node of kind parallel`,
		"D: goto/c: Goto is allowed 0 times",
		"D: late: Deadline is 0s; at least 1ms",
		"D: unsaid: say what happens past the deadline",
		"D: twofold: Deadline and DeadlineAt are both given",
		"D: watched@m: a function of it is nil",
		"D: watched@m: the name is used twice",
		"D: watched: a monitor can't be named stop",
		"D: stopped@stop: OnStop is not for a node of kind parallel",
		"D: limited: Concurrency is 0",
		"D: wrong: Reprocess is not for a node of kind execute",
		"D: wrong: MatchOne is not for a node of kind execute",
		"D: wrong: SkipTo is not for a node of kind execute",
		`D: skips: SkipTo("after") is neither this task nor a process around it`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Register does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

// TestGotoIsLookedUpFromInside: beside the node first, then beside what is around it.
func TestGotoIsLookedUpFromInside(t *testing.T) {
	def := New("D",
		task("end"),
		Process("p",
			task("end"),
			Process("q", task("a").With(OnFailure(Goto("end"))), task("b").With(OnFailure(Goto("q"))), task("c").With(OnFailure(Goto("p/q/a"))))))
	c, err := def.compile()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"p/q/a": "p/end", "p/q/b": "p/q", "p/q/c": "p/q/a"} {
		if got := c.code.Plan.Task(path).Goto; got != want {
			t.Errorf("the Goto of %s leads to %q, want %q", path, got, want)
		}
	}
}

// TestHeadersOfCommand: from the parameters as they are after the task, in the order of names.
func TestHeadersOfCommand(t *testing.T) {
	n := Command("send", "topic", func(_ context.Context, c *cart) (line, error) {
		c.ID = "8"
		return line{Item: "a"}, nil
	}).Headers(func(c *cart) map[string]string {
		return map[string]string{"traceparent": "00-" + c.ID, "about": "cart"}
	})
	out, err := n.handler(t.Context(), engine.Attempt{Instance: "c", Params: json.RawMessage(`{"id":"7"}`)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range out.Record.Headers {
		got = append(got, h.Key+"="+string(h.Value))
	}
	if want := []string{"about=cart", "traceparent=00-8"}; !slices.Equal(got, want) {
		t.Errorf("the headers are %v, want %v", got, want)
	}
	_, err = New("D", task("x").Headers(func(*cart) map[string]string { return nil })).compile()
	if err == nil || !strings.Contains(err.Error(), "Headers is not for a node of kind execute") {
		t.Errorf("Headers of an Execute: %v", err)
	}
}
