// Package drawing shows plans to people: as a tree of lines, and as a Mermaid flowchart. With
// an instance it has the statuses of its nodes.
package drawing

import (
	"fmt"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Line is a node in a tree.
type Line struct {
	Depth  int            // from 0
	Path   string         // of the plan
	Name   string         // the last part of it
	Kind   eventlog.Kind  //
	Says   string         // its policies, in words
	Status machine.Status // of an instance; "" without one
}

// Tree is the plan from top to bottom. Of what runs more than once the instance's worst status
// counts: what failed, then what executes.
func Tree(p *machine.Plan, i *machine.Instance) []Line {
	t := tree{status: statuses(p, i)}
	t.nodes(p.Root, "", 0)
	return t.lines
}

type tree struct {
	lines  []Line
	status map[string]machine.Status
}

func (t *tree) nodes(nodes []machine.Node, around string, depth int) {
	for k := range nodes {
		n := &nodes[k]
		if strings.HasSuffix(n.Path, "[]") { // what a ForEach or Dynamic runs is no line of its own
			t.nodes(n.Nodes, n.Path, depth)
			continue
		}
		t.lines = append(t.lines, Line{Depth: depth, Path: n.Path, Name: nameIn(n.Path, around), Kind: n.Kind, Says: Says(n), Status: t.status[n.Path]})
		t.nodes(n.Attached, n.Path, depth+1)
		t.nodes(n.Nodes, n.Path, depth+1)
	}
}

func nameIn(path, around string) string {
	if name, attached := strings.CutPrefix(path, around+"@"); attached {
		return "@" + name
	}
	return strings.TrimPrefix(strings.TrimPrefix(path, around), "/")
}

// statuses are an instance's, by the plan's paths; nil without one.
func statuses(p *machine.Plan, i *machine.Instance) map[string]machine.Status {
	if i == nil {
		return nil
	}
	worse := map[machine.Status]int{machine.NotStarted: 1, machine.Skipped: 2, machine.Completed: 3, machine.Stopped: 4, machine.Submitted: 5, machine.Executing: 6, machine.Failure: 7}
	all := map[string]machine.Status{}
	p.Walk(i, func(path string, _ *machine.Node, s machine.Status) {
		if of := machine.Pattern(path); worse[s] > worse[all[of]] {
			all[of] = s
		}
	})
	return all
}

// Says are the policies of a node in words.
func Says(n *machine.Node) string {
	var l []string
	say := func(format string, args ...any) { l = append(l, fmt.Sprintf(format, args...)) }
	ms := func(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }
	switch {
	case n.Kind == eventlog.Command:
		say("to %s", n.Topic)
	case n.Kind == eventlog.Listen:
		say("on %s by %s", n.Topic, n.Key)
	case n.Any:
		say("any")
	case n.Kind == eventlog.Parallel:
		say("all")
	}
	if n.Collect {
		say("collects")
	}
	if n.Concurrency > 0 {
		say("%d at once", n.Concurrency)
	}
	if n.WaitAll {
		say("waits for all")
	}
	if n.One {
		say("one instance takes a message")
	}
	if n.Reprocess {
		say("works again on later messages")
	}
	if n.SkipTo != "" {
		say("an early message skips to %s", n.SkipTo)
	}
	if n.Retry != nil {
		say("%d attempts after %v", n.Retry.Attempts, ms(n.Retry.Delay))
	}
	if n.Timeout > 0 {
		say("at most %v", ms(n.Timeout))
	}
	past := "then what is open is skipped"
	if n.DeadlineFails {
		past = "then it fails"
	}
	switch {
	case n.Deadline > 0:
		say("deadline %v, %s", ms(n.Deadline), past)
	case n.DeadlineAt:
		say("deadline from the parameters, %s", past)
	}
	switch {
	case n.Goto != "":
		say("a failure goes to %s, %d times", n.Goto, n.Gotos)
	case n.Continue:
		say("may fail")
	}
	if n.From != "" {
		say("from %s", n.From)
	}
	return strings.Join(l, "; ")
}
