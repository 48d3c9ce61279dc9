package seedview

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files")

const begin = 1_764_000_000_000

// at is begin and so many seconds.
func at(seconds int64) int64 { return begin + 1000*seconds }

func task(path string, kind eventlog.Kind, s machine.Status, since int64) machine.Task {
	return machine.Task{Path: path, Kind: kind, Status: s, Act: 1, Since: at(since)}
}

// inside is a node of its own whose nodes run.
func inside(path string, kind eventlog.Kind, since int64) machine.Task {
	t := task(path, kind, machine.Executing, since)
	t.Phase = machine.Inside
	return t
}

func plan(t *testing.T, nodes ...machine.Node) *machine.Plan {
	t.Helper()
	p, err := machine.NewPlan("Demo", 1, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func node(kind eventlog.Kind, path string, nodes ...machine.Node) machine.Node {
	return machine.Node{Path: path, Kind: kind, Nodes: nodes}
}

func instance(s machine.Status, updated int64, tasks ...machine.Task) *machine.Instance {
	i := &machine.Instance{ID: "order-7", Seq: 5, Body: machine.Body{
		Definition: "Demo", Status: s, Params: json.RawMessage(`{"a":1,"big":12345678901234567890}`), Created: begin, Updated: at(updated), Tasks: tasks}}
	if i.Terminal() {
		i.Ended = at(updated)
	}
	return i
}

func pizza(t *testing.T) *machine.Plan {
	listen := node(eventlog.Listen, "Order/ready")
	listen.Topic, listen.Key = "order_status_topic", "order_id"
	return plan(t,
		node(eventlog.Process, "Order", node(eventlog.Command, "Order/place"), listen),
		node(eventlog.Process, "Delivery", node(eventlog.Execute, "Delivery/deliver")))
}

func pizzaWaits() *machine.Instance {
	listens := task("Order/ready", eventlog.Listen, machine.Executing, 3)
	listens.Phase = machine.Waiting
	i := instance(machine.Executing, 3, task("Order/place", eventlog.Command, machine.Completed, 3), listens)
	i.Keys = []eventlog.TaskKey{{Path: "Order/ready", Value: "7"}}
	return i
}

// deep has every kind of node that surrounds others, two of them expanded.
func deep(t *testing.T) *machine.Plan {
	ship := node(eventlog.ForEach, "Ship", node(eventlog.Process, "Ship[]", node(eventlog.Execute, "Ship[]/pack"), node(eventlog.Execute, "Ship[]/send")))
	ship.Attached = []machine.Node{node(eventlog.Monitor, "Ship@alarm"), node(eventlog.OnStop, "Ship@stop")}
	return plan(t,
		node(eventlog.Process, "Start", node(eventlog.Execute, "Start/a"), node(eventlog.Decide, "Start/which", node(eventlog.Execute, "Start/which/yes"), node(eventlog.Execute, "Start/which/no"))),
		node(eventlog.Dynamic, "Pre", node(eventlog.Process, "Pre[]", node(eventlog.Process, "Pre[]/A", node(eventlog.Execute, "Pre[]/A/task")), node(eventlog.Process, "Pre[]/B", node(eventlog.Execute, "Pre[]/B/task")))),
		ship,
		node(eventlog.Process, "End", node(eventlog.Execute, "End/last")))
}

func deepRuns() *machine.Instance {
	alarm := task("Ship@alarm", eventlog.Monitor, machine.Completed, 9)
	fails := task("Ship[2]/pack", eventlog.Execute, machine.Executing, 8)
	fails.Phase, fails.Error, fails.Attempt, fails.Due = machine.Retrying, "no tape", 1, at(20)
	packs := task("Ship[3]/pack", eventlog.Execute, machine.Executing, 5)
	packs.Phase, packs.Attempt = machine.Running, 1
	which := task("Start/which", eventlog.Decide, machine.Completed, 3)
	which.Choice = "yes"
	pre := task("Pre", eventlog.Dynamic, machine.Completed, 5)
	pre.Choices = []string{"B", "A"}
	i := instance(machine.Executing, 9,
		task("Start/a", eventlog.Execute, machine.Completed, 1), which, task("Start/which/yes", eventlog.Execute, machine.Completed, 3), machine.Task{Path: "Start/which/no", Kind: eventlog.Execute, Status: machine.Skipped, Since: at(2)},
		pre, task("Pre[0]/B/task", eventlog.Execute, machine.Completed, 4), task("Pre[1]/A/task", eventlog.Execute, machine.Completed, 5),
		inside("Ship", eventlog.ForEach, 5), packs, fails, alarm)
	i.Items = []machine.Items{{Path: "Ship", Values: make([]json.RawMessage, 5), Seqs: make([]uint64, 5), States: "CSEE."}}
	return i
}

// TestShapes compares whole trees with golden files.
func TestShapes(t *testing.T) {
	failed := task("Order/place", eventlog.Command, machine.Failure, 4)
	failed.Error = "no such topic"
	fails := instance(machine.Failure, 4, failed)
	fails.Error, fails.FailedPath = failed.Error, failed.Path
	stopped := instance(machine.Stopped, 6, task("Order/place", eventlog.Command, machine.Completed, 3), task("Order/ready", eventlog.Listen, machine.Stopped, 6))
	stopped.Reason = "the customer called"
	frozen := pizzaWaits()
	frozen.Quarantined, frozen.Params = "fold TaskCompleted: it broke", nil
	for name, c := range map[string]struct {
		i    *machine.Instance
		plan *machine.Plan
	}{
		"waits":       {pizzaWaits(), pizza(t)},
		"failed":      {fails, pizza(t)},
		"stopped":     {stopped, pizza(t)},
		"quarantined": {frozen, pizza(t)},
		"no plan":     {pizzaWaits(), nil},
		"deep":        {deepRuns(), deep(t)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(Tree(c.i, c.plan), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "_")+".json")
			if *rewrite {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Errorf("-want +got; -rewrite writes it:\n%s", diff)
			}
		})
	}
}

// TestRoot: the instance alone is the tree without what is inside.
func TestRoot(t *testing.T) {
	want := Tree(deepRuns(), deep(t))
	want.Children = nil
	if diff := cmp.Diff(want, Root(deepRuns(), deep(t))); diff != "" {
		t.Errorf("-tree +root:\n%s", diff)
	}
}

// TestDerived: the status of a process that has none of its own.
func TestDerived(t *testing.T) {
	short := map[byte]machine.Status{'n': machine.NotStarted, 'x': machine.Executing, 'c': machine.Completed, 'f': machine.Failure, 's': machine.Skipped, 't': machine.Stopped, 'u': machine.Submitted, 'F': machine.Failure}
	for _, c := range []struct {
		inside   string
		instance machine.Status
		want     machine.Status
	}{
		{"nn", machine.Executing, machine.NotStarted},
		{"nn", machine.Stopped, machine.NotStarted},
		{"xn", machine.Executing, machine.Executing},
		{"cu", machine.Executing, machine.Executing},
		{"cn", machine.Executing, machine.Executing},
		{"cc", machine.Executing, machine.Completed},
		{"cs", machine.Executing, machine.Completed},
		{"ss", machine.Executing, machine.Skipped},
		{"sc", machine.Executing, machine.Completed},
		{"fn", machine.Failure, machine.Failure},
		{"cf", machine.Failure, machine.Failure},
		{"Fc", machine.Executing, machine.Completed}, // it may fail
		{"cF", machine.Executing, machine.Completed},
		{"ct", machine.Stopped, machine.Stopped},
		{"ctn", machine.Stopped, machine.Stopped},
		{"tn", machine.Failure, machine.Stopped}, // beside what failed
		{"cn", machine.Stopped, machine.Stopped},
		{"", machine.Executing, machine.NotStarted},
	} {
		var inside []span
		for k := range len(c.inside) {
			inside = append(inside, span{status: short[c.inside[k]], goesOn: c.inside[k] == 'F'})
		}
		if got := derived(inside, c.instance); got != c.want {
			t.Errorf("%q in an instance that is %s: %s, want %s", c.inside, c.instance, got, c.want)
		}
	}
}

// TestUpdate: what does not fit is left out, and said so.
func TestUpdate(t *testing.T) {
	i, p := deepRuns(), deep(t)
	whole := Update(i, p, 1<<20)
	i.Params = json.RawMessage(`{"a":"` + strings.Repeat("x", 5000) + `"}`)
	large := pizzaWaits()
	for k := range 1000 {
		large.Tasks = append(large.Tasks, task(fmt.Sprintf("Ship[%d]/pack", k), eventlog.Execute, machine.Completed, int64(k)))
	}
	endless := pizzaWaits()
	endless.Error, endless.Params = strings.Repeat("e", 5000), json.RawMessage(`{"a":"`+strings.Repeat("x", 5000)+`"}`)
	broken := pizzaWaits()
	broken.Params = json.RawMessage(`{"a":`)
	for _, c := range []struct {
		name  string
		i     *machine.Instance
		limit int
		want  []string
	}{
		{"all of it", deepRuns(), len(whole), nil},
		{"the parameters are too large", i, len(whole) + 500, []string{leftParameters}},
		{"the tree is too large", deepRuns(), 1000, []string{leftTree}},
		{"the tree can't fit", large, 100_000, []string{leftTree}},
		{"both are too large", i, 1000, []string{leftTree, leftParameters}},
		{"only the name fits", endless, 1000, []string{leftTree, leftParameters, leftMessage}},
		{"parameters that are no JSON", broken, 1 << 20, []string{leftParameters}},
	} {
		got := Update(c.i, p, c.limit)
		if len(got) == 0 || len(got) > c.limit {
			t.Errorf("%s: %d bytes of %d", c.name, len(got), c.limit)
			continue
		}
		var n Node
		if err := json.Unmarshal(got, &n); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, n.LeftOut); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if n.ID != "order-7" || n.Status.Code != "EXECUTING" || n.UpdateCount != 5 || len(n.RuntimeParameters) < 2 {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	if got := Update(deepRuns(), p, 100); got != nil {
		t.Errorf("100 bytes: %s", got)
	}
}

// BenchmarkUpdate is the cost of one update of an instance with so many tasks.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{3, 300} {
		i := instance(machine.Executing, 3)
		for k := range n {
			i.Tasks = append(i.Tasks, task(fmt.Sprintf("Ship[%d]/pack", k), eventlog.Execute, machine.Executing, 1))
		}
		i.Items = []machine.Items{{Path: "Ship", Values: make([]json.RawMessage, n), Seqs: make([]uint64, n), States: strings.Repeat("E", n)}}
		p, err := machine.NewPlan("Demo", 1, []machine.Node{node(eventlog.ForEach, "Ship", node(eventlog.Process, "Ship[]", node(eventlog.Execute, "Ship[]/pack")))})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Update(i, p, 1<<20)
			}
		})
	}
}
