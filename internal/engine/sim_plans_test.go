package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Definitions of a simulated world, and what their handlers choose.

type simPlan struct {
	plan   *machine.Plan
	code   *Code
	values map[string]simValue // of the nodes that compute one, by path
	wide   bool                // with nodes that repeat, watch, jump and stop
	next   simOutcome          // of the handler that ends now
}

type simOutcome struct {
	out   Outcome
	err   error
	panic bool
}

// simValue computes a node's value from the parameters.
type simValue func(v map[string]string) string

// of is a parameter as it is: a correlation key, or a time.
func of(name string) simValue { return func(v map[string]string) string { return v[name] } }

func simPlans() []*simPlan {
	type nodes = []machine.Node
	retry := func(n int, delay int64) *machine.Retry { return &machine.Retry{Attempts: n, Delay: delay} }
	listen := func(path, topic, key string, timeout int64) machine.Node {
		return machine.Node{Path: path, Kind: eventlog.Listen, Topic: topic, Key: key, TTL: 60_000, Timeout: timeout, Retry: retry(2, 100)}
	}
	execute := func(path string) machine.Node {
		return machine.Node{Path: path, Kind: eventlog.Execute, Retry: retry(3, 100), Timeout: 3000}
	}
	process := func(path string, l ...machine.Node) machine.Node {
		return machine.Node{Path: path, Kind: eventlog.Process, Nodes: l}
	}
	with := func(n machine.Node, change func(*machine.Node)) machine.Node {
		change(&n)
		return n
	}
	specs := []struct {
		name   string
		wide   bool
		retain int64
		nodes  nodes
		values map[string]simValue
	}{
		{"order", false, 0, nodes{
			{Path: "O/send", Kind: eventlog.Command, Topic: "out", Retry: retry(3, 200), Timeout: 3000},
			listen("O/ready", "t0", "a", 0),
			{Path: "O/done", Kind: eventlog.Execute, Retry: retry(2, 100)},
		}, map[string]simValue{"O/ready": of("x")}},
		{"multi", false, 0, nodes{
			listen("M/one", "t0", "a", 0),
			{Path: "M/work", Kind: eventlog.Execute, Retry: retry(4, 100), Timeout: 2500},
			listen("M/two", "t0", "a", 30_000),
			listen("M/three", "t1", "a", 20_000),
		}, map[string]simValue{"M/one": of("x"), "M/two": of("x"), "M/three": of("y")}},
		{"tasks", false, 0, nodes{
			{Path: "T/a", Kind: eventlog.Execute, Retry: retry(3, 500), Timeout: 2000},
			{Path: "T/b", Kind: eventlog.Command, Topic: simRefusing, Retry: retry(2, 100)},
			{Path: "T/c", Kind: eventlog.Command, Topic: "out", Retry: retry(3, 100), Timeout: 5000},
		}, nil},
		{"late", false, 0, nodes{
			{Path: "L/first", Kind: eventlog.Execute, Retry: retry(3, 100), Timeout: 4000},
			listen("L/wait", "t0", "b", 0),
		}, map[string]simValue{"L/wait": of("y")}},
		{"short", false, 0, nodes{
			{Path: "S/only", Kind: eventlog.Execute, Timeout: 2000},
		}, nil},

		// Each item sends a message and waits for one with its own key; two at once.
		{"ship", true, 0, nodes{
			with(process("W",
				machine.Node{Path: "W/F", Kind: eventlog.ForEach, Concurrency: 2, Collect: true, WaitAll: true, Retry: retry(2, 100), Nodes: nodes{process("W/F[]",
					machine.Node{Path: "W/F[]/send", Kind: eventlog.Command, Topic: "out", Retry: retry(3, 100)},
					with(listen("W/F[]/ack", "t0", "a", 12_000), func(n *machine.Node) { n.Continue = true }),
					machine.Node{Path: "W/F[]/D", Kind: eventlog.Decide, Retry: retry(2, 100), Nodes: nodes{execute("W/F[]/D/yes"), execute("W/F[]/D/no")}},
				)}}),
				func(n *machine.Node) {
					n.Attached = nodes{{Path: "W@stop", Kind: eventlog.OnStop, Retry: retry(2, 100), Timeout: 3000}}
				}),
			execute("bill"),
		}, map[string]simValue{"W/F[]/ack": of("x")}},
		// Chosen processes, then one with a deadline and a monitor that comes again and again.
		{"pick", true, 0, nodes{
			{Path: "D", Kind: eventlog.Dynamic, Retry: retry(3, 100), Nodes: nodes{process("D[]",
				process("D[]/A", execute("D[]/A/e"), listen("D[]/A/l", "t1", "a", 10_000)),
				process("D[]/B", machine.Node{Path: "D[]/B/p", Kind: eventlog.Parallel, Any: true, Nodes: nodes{
					listen("D[]/B/p/l", "t0", "b", 0), {Path: "D[]/B/p/at", Kind: eventlog.At, Retry: retry(3, 100)}}}),
			)}},
			with(process("P", machine.Node{Path: "P/tick", Kind: eventlog.Every, Retry: retry(2, 100)}, listen("P/wait", "t0", "a", 0)), func(n *machine.Node) {
				n.Deadline, n.Attached = 4000, nodes{{Path: "P@watch", Kind: eventlog.Monitor, Retry: retry(2, 100)}}
			}),
			execute("last"),
		}, map[string]simValue{"D[]/A/l": of("y"), "D[]/B/p/l": of("x"), "D[]/B/p/at": of("due"), "P/wait": of("y"),
			"P/tick": func(v map[string]string) string { return "700/" + v["due"] },
			"P@watch": func(v map[string]string) string {
				if v["due"] == "" {
					return ""
				}
				return v["due"] + "/900"
			}}},
		// A listener that works again, a process that fails and is done again, a message that
		// skips what lies before.
		{"again", true, 0, nodes{
			with(listen("first", "t1", "a", 8000), func(n *machine.Node) { n.Reprocess, n.Continue = true, true }),
			with(process("R", execute("R/try"), with(execute("R/check"), func(n *machine.Node) { n.Retry, n.Goto, n.Gotos = nil, "R/try", 2 })), func(n *machine.Node) {
				n.DeadlineAt, n.DeadlineFails, n.Goto, n.Gotos = true, true, "S", 1
				n.Attached = nodes{{Path: "R@stop", Kind: eventlog.OnStop}}
			}),
			process("S", execute("S/slow"), with(listen("S/skip", "t0", "b", 20_000), func(n *machine.Node) { n.SkipTo = "S/skip" })),
		}, map[string]simValue{"first": of("x"), "R": of("due"), "S/skip": of("y")}},
		// Waiters that take messages alone; ended instances are deleted soon.
		{"solo", true, 5000, nodes{
			with(listen("one", "t1", "b", 0), func(n *machine.Node) { n.One = true }),
			execute("rest"),
			with(listen("two", "t1", "b", 20_000), func(n *machine.Node) { n.One = true }),
		}, map[string]simValue{"one": of("x"), "two": of("y")}},
	}
	var l []*simPlan
	for _, s := range specs {
		plan, err := machine.Build(machine.Plan{Name: s.name, Version: 1, Root: s.nodes, Retain: s.retain})
		if err != nil {
			panic(err)
		}
		x := &simPlan{plan: plan, values: s.values, wide: s.wide}
		x.code = &Code{Plan: plan, Handlers: map[string]Handler{}}
		for _, n := range plan.Tasks() {
			x.code.Handlers[n.Path] = func(context.Context, Attempt) (Outcome, error) {
				if x.next.panic {
					panic("the handler panics")
				}
				return x.next.out, x.next.err
			}
		}
		if plan.Computes() {
			x.code.Keys = x.keys
		}
		l = append(l, x)
	}
	return l
}

// keys are the computed values of a scope.
func (x *simPlan) keys(scope string, params json.RawMessage) ([]eventlog.TaskKey, error) {
	var v map[string]string
	if err := json.Unmarshal(params, &v); err != nil {
		return nil, err
	}
	var l []eventlog.TaskKey
	for _, path := range slices.Sorted(maps.Keys(x.values)) {
		if x.scope(path) == scope {
			l = append(l, eventlog.TaskKey{Path: path, Value: x.values[path](v)})
		}
	}
	return l, nil
}

// scope is the run of a ForEach that a path of the plan lies in.
func (x *simPlan) scope(path string) string {
	for end := strings.LastIndex(path, "[]"); end >= 0; end = strings.LastIndex(path[:end], "[]") {
		if x.plan.Node(path[:end]).Kind == eventlog.ForEach {
			return path[:end+2]
		}
	}
	return ""
}

// due is a time that the parameters have.
func (w *world) due(wk *simWorker) string { return fmt.Sprint(wk.clock() + w.between(-500, 6000)) }

// choose draws what a handler chooses.
func (w *world) choose(n *machine.Node, j job, out *Outcome) {
	switch n.Kind {
	case eventlog.Listen:
		out.More = w.chance(250)
	case eventlog.Command:
		out.Record = &eventlog.Record{Topic: n.Topic, Partition: -1, Key: []byte(j.key.instance), Value: []byte(`{}`)}
	case eventlog.Every:
		out.More = !w.calm && w.chance(600)
	case eventlog.Decide:
		out.Choice = []string{"yes", "no", ""}[w.rng.IntN(3)]
	case eventlog.Dynamic:
		for range w.rng.IntN(4) {
			out.Choices = append(out.Choices, []string{"A", "B"}[w.rng.IntN(2)])
		}
		if w.chance(30) {
			out.Choices = append(out.Choices, "C")
		}
	case eventlog.ForEach:
		if j.collect {
			return
		}
		for range w.rng.IntN(5) {
			item, _ := json.Marshal(map[string]string{"x": w.key()})
			out.Items = append(out.Items, item)
		}
	}
}

// simMust is what must happen in some world, so that the worlds prove something about it.
var simMust = []string{"DeadlinePassed", "DeadlinePassed fails", "SkippedTo", "FlowEnded", "InstanceStopping", "InstanceDeleted", "EveryContinued",
	"start of foreach", "start of dynamic", "start of monitor", "start of onstop", "start of parallel", "start of decide", "start of at", "start of every",
	"items", "collect", "choices", "back", "stop by a handler", "matched alone", "message to an item", "message to a chosen process", "works again", "started again",
	"StopKept", "StopExpired", "stop before its start"}

// happened counts what the world's log has of these.
func (w *world) happened(seen map[string]int) {
	ran, kept := map[string]bool{}, map[simAsked]bool{}
	w.eachEvent(func(_ int32, _ int64, e *eventlog.Event) {
		seen[string(e.Type)]++
		for _, s := range e.Starts {
			seen["start of "+string(s.Kind)]++
			if s.Collect {
				seen["collect"]++
			}
		}
		for what, is := range map[string]bool{
			"DeadlinePassed fails":        e.Type == eventlog.DeadlinePassed && e.Error != "",
			"items":                       len(e.Items) > 0,
			"choices":                     len(e.Choices) > 0,
			"back":                        e.Choice != "" && e.Reason != "" && slices.ContainsFunc(e.Ends, func(x eventlog.End) bool { return x.Status == "NOT_STARTED" }),
			"stop by a handler":           (e.Type == eventlog.InstanceStopped || e.Type == eventlog.InstanceStopping) && e.Reason == simStop{}.StopReason(),
			"matched alone":               e.Type == eventlog.SubscriptionAdded && e.Sole,
			"message to an item":          e.Type == eventlog.MessageReceived && strings.HasPrefix(e.Path, "W/F["),
			"message to a chosen process": e.Type == eventlog.MessageReceived && strings.HasPrefix(e.Path, "D["),
			"works again":                 e.Type == eventlog.MessageReceived && e.Path == "first",
			"stop before its start":       e.Seq > 0 && kept[simAsked{e.Request, e.ID}],
			"started again":               e.Type == eventlog.InstanceStarted && ran[e.ID],
		} {
			if is {
				seen[what]++
			}
		}
		ran[e.ID] = true
		kept[simAsked{e.Request, e.ID}] = e.Type == eventlog.StopKept
	})
}
