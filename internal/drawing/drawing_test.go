package drawing

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

var rewrite = flag.Bool("rewrite", false, "write what is drawn into testdata")

// order has a node of every kind and policy.
func order(t *testing.T) *machine.Plan {
	t.Helper()
	task := func(path string, kind eventlog.Kind) machine.Node { return machine.Node{Path: path, Kind: kind} }
	p, err := machine.NewPlan("Order", 1, []machine.Node{
		{Path: "Pay", Kind: eventlog.Process, Deadline: 60_000, DeadlineFails: true, From: "Payments/Pay", Nodes: []machine.Node{
			{Path: "Pay/ask", Kind: eventlog.Command, Topic: "payments"},
			{Path: "Pay/paid", Kind: eventlog.Listen, Topic: "paid", Key: "order", Timeout: 3_600_000, Goto: "Cancel", Gotos: 10, SkipTo: "Pay", Reprocess: true, One: true},
		}, Attached: []machine.Node{task("Pay@late", eventlog.Monitor), task("Pay@stop", eventlog.OnStop)}},
		{Path: "Ship", Kind: eventlog.ForEach, Collect: true, Concurrency: 20, WaitAll: true, Nodes: []machine.Node{
			{Path: "Ship[]", Kind: eventlog.Process, Nodes: []machine.Node{
				{Path: "Ship[]/pack", Kind: eventlog.Execute, Retry: &machine.Retry{Attempts: 5, Delay: 1000}},
				task("Ship[]/send", eventlog.Execute),
			}},
		}},
		{Path: "Extras", Kind: eventlog.Dynamic, Nodes: []machine.Node{{Path: "Extras[]", Kind: eventlog.Process, Nodes: []machine.Node{
			{Path: "Extras[]/Wrap", Kind: eventlog.Process, Nodes: []machine.Node{task("Extras[]/Wrap/fold", eventlog.Execute)}},
		}}}},
		{Path: "How", Kind: eventlog.Decide, Nodes: []machine.Node{task("How/road", eventlog.Execute), task("How/rail", eventlog.Execute)}},
		{Path: "Race", Kind: eventlog.Parallel, Any: true, Nodes: []machine.Node{task("Race/at", eventlog.At), task("Race/every", eventlog.Every)}},
		{Path: "Both", Kind: eventlog.Parallel, DeadlineAt: true, Continue: true, Nodes: []machine.Node{task("Both/a [x]", eventlog.Execute), task(`Both/"b"`, eventlog.Execute)}},
		task("Cancel", eventlog.Execute),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDrawing(t *testing.T) {
	p := order(t)
	i := &machine.Instance{ID: "order-1", Mailbox: machine.Mailbox{Run: 1}, Body: machine.Body{Status: machine.Executing, Tasks: []machine.Task{
		{Path: "Pay", Kind: eventlog.Process, Status: machine.Completed}, {Path: "Pay/ask", Kind: eventlog.Command, Status: machine.Completed},
		{Path: "Pay/paid", Kind: eventlog.Listen, Status: machine.Completed}, {Path: "Pay@late", Kind: eventlog.Monitor, Status: machine.Skipped},
		{Path: "Ship", Kind: eventlog.ForEach, Status: machine.Executing, Phase: machine.Inside, Items: 2},
		{Path: "Ship[0]/pack", Kind: eventlog.Execute, Status: machine.Completed}, {Path: "Ship[0]/send", Kind: eventlog.Execute, Status: machine.Executing},
		{Path: "Ship[1]/pack", Kind: eventlog.Execute, Status: machine.Failure},
	}, Items: []machine.Items{{Path: "Ship", Values: make([]json.RawMessage, 2), States: "EF"}}}}
	for name, of := range map[string]*machine.Instance{"definition": nil, "instance": i} {
		var b strings.Builder
		for _, l := range Tree(p, of) {
			fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%s%s | %s | %s | %s", strings.Repeat("  ", l.Depth), l.Name, l.Kind, l.Says, l.Status), " |"))
		}
		b.WriteString("\n" + Mermaid(p, of))
		file := "testdata/" + name + ".txt"
		if *rewrite {
			if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s (-file +now; -rewrite takes what is now):\n%s", file, diff)
		}
	}
}
