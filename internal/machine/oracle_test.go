package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// oracle is the flow a second time and as simple as can be: it keeps nothing but the results
// of tasks and works out from them, each time anew, what has ended and how.
type oracle struct {
	plan    *Plan
	results map[string]outcome
	clock   int
	status  map[string]Status // of tasks and nodes, by the last assign
}

type outcome struct {
	at     int
	ok     bool
	choice string
}

// eval says whether a node that was reached executes, has completed or failed, and when.
func (o *oracle) eval(n *Node) (Status, int) {
	r, has := o.results[n.Path]
	switch n.Kind {
	case eventlog.Process:
		last := 0
		for k := range n.Nodes {
			c := &n.Nodes[k]
			s, at := o.eval(c)
			if s == Executing || s == Failure && !c.Continue {
				return s, at
			}
			last = max(last, at)
		}
		return Completed, last
	case eventlog.Parallel:
		return o.join(n)
	}
	switch {
	case !has:
		return Executing, 0
	case !r.ok:
		return Failure, r.at
	case r.choice != "":
		c := chosen(n, r.choice)
		s, at := o.eval(c)
		if s == Failure && c.Continue {
			s = Completed
		}
		return s, at
	}
	return Completed, r.at
}

func chosen(n *Node, choice string) *Node {
	for k := range n.Nodes {
		if n.Nodes[k].name() == choice {
			return &n.Nodes[k]
		}
	}
	return nil
}

func (o *oracle) join(n *Node) (Status, int) {
	running, failed, won, lost, last := false, false, 1<<30, 1<<30, 0
	for k := range n.Nodes {
		s, at := o.eval(&n.Nodes[k])
		switch {
		case s == Executing:
			running = true
		case s == Completed:
			won = min(won, at)
		case !n.Nodes[k].Continue:
			failed, lost = true, min(lost, at)
		}
		last = max(last, at)
	}
	switch {
	case n.Any && won < 1<<30:
		return Completed, won
	case failed && !n.Any && !n.WaitAll:
		return Failure, lost
	case running:
		return Executing, 0
	case failed:
		return Failure, last
	}
	return Completed, last
}

// assign gives each task its status. cut is what a task that executes has come to, because
// something around it has ended; "" when nothing has. NotStarted stands for a node that was
// not reached, whether it was skipped or not.
func (o *oracle) assign(n *Node, cut Status) {
	s, _ := o.eval(n)
	if s == Executing && cut != "" {
		s = cut
	}
	o.status[n.Path] = s
	if s == Failure && n.Continue {
		cut = Skipped
	}
	switch n.Kind {
	case eventlog.Process:
		going := true
		for k := range n.Nodes {
			c := &n.Nodes[k]
			if !going {
				o.unreached(c)
				continue
			}
			o.assign(c, cut)
			s, _ := o.eval(c)
			going = s == Completed || s == Failure && c.Continue
		}
	case eventlog.Parallel:
		for k := range n.Nodes {
			c, in := &n.Nodes[k], cut
			own, _ := o.eval(c)
			switch {
			case own == Failure && !c.Continue && (n.Any || n.WaitAll) && !o.lastToEnd(n, c):
				in = Stopped
			case n.Any && s == Completed && own != Completed:
				in = Skipped
			}
			o.assign(c, in)
		}
	case eventlog.Decide:
		for k := range n.Nodes {
			if c := &n.Nodes[k]; o.results[n.Path].choice == c.name() {
				o.assign(c, cut)
			} else {
				o.unreached(c)
			}
		}
	}
}

// lastToEnd says that a failed node ended when all beside it had.
func (o *oracle) lastToEnd(n, c *Node) bool {
	_, mine := o.eval(c)
	for k := range n.Nodes {
		if s, at := o.eval(&n.Nodes[k]); s == Executing || at > mine {
			return false
		}
	}
	return true
}

func (o *oracle) unreached(n *Node) {
	o.status[n.Path] = NotStarted
	for k := range n.Nodes {
		o.unreached(&n.Nodes[k])
	}
}

// retry forgets the failures that made the instance fail.
func (o *oracle) retry(n *Node) {
	s, _ := o.eval(n)
	if s == Completed || s == Failure && n.Continue {
		return
	}
	if r, has := o.results[n.Path]; has && !r.ok {
		delete(o.results, n.Path)
		return
	}
	for k := range n.Nodes {
		if c := &n.Nodes[k]; o.status[c.Path] != NotStarted {
			o.retry(c)
		}
	}
}

// TestOracle compares the flow with the oracle for random plans and random results.
func TestOracle(t *testing.T) {
	text, err := os.ReadFile(statesFile)
	if err != nil {
		t.Fatal(err)
	}
	allowed := readStates(string(text))
	seeds := *flowsFlag
	if *seedFlag > 0 {
		seeds = 1
	}
	for k := range seeds {
		seed := uint64(k) + 1
		if *seedFlag > 0 {
			seed = *seedFlag
		}
		if err := compareFlow(seed, allowed, states{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// compareFlow runs one flow. It collects the moves of its events; allowed may be nil.
func compareFlow(seed uint64, allowed, observed states) (err error) {
	r := rand.New(rand.NewPCG(seed, 2))
	g := planner{r: r, left: 2 + r.IntN(14), leaf: func(*Node) {}}
	plan, err := NewPlan("Random", 1, g.nodes("", 1+r.IntN(4), 1))
	if err != nil {
		return err
	}
	w := newWorld(1)
	w.addPlan(plan)
	state, shadow := NewState(0, 1), NewState(0, 1)
	o := &oracle{plan: plan, results: map[string]outcome{}}
	trace := draw(plan.Root)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, trace)
		}
	}()
	decide := func(r eventlog.Request) error {
		turn := w.newTurn(state)
		answer := turn.Decide(&r)
		trace += fmt.Sprintf("\n%s %s ok=%v choice=%q: %s", r.Type, r.Path, r.OK, r.Choice, answer)
		for _, e := range turn.Events {
			trace += "\n    " + string(eventlog.AppendEvent(nil, e))
			before := &Instance{}
			if i := shadow.Instances[e.ID]; i != nil {
				before = i.Clone()
			}
			if err := shadow.Evolve(e); err != nil {
				return err
			}
			if e.Seq == 0 {
				continue
			}
			for _, m := range moves(before, shadow.Instances[e.ID], e) {
				observed[m] = true
				if allowed != nil && !allowed[m] {
					return fmt.Errorf("%s is not allowed", m)
				}
			}
		}
		if answer != OK {
			return fmt.Errorf("it is not decided")
		}
		return nil
	}
	if err := decide(eventlog.Request{Type: eventlog.StartInstance, ID: "i", Definition: "Random", Request: "s", Made: w.now}); err != nil {
		return err
	}
	params := map[string]any{}
	failures := r.IntN(60)
	for retries := 0; ; {
		i := state.Instances["i"]
		if err := o.compare(i); err != nil {
			return err
		}
		var have map[string]any
		if err := json.Unmarshal(i.Params, &have); err != nil {
			return err
		}
		if diff := cmp.Diff(params, have); diff != "" {
			return fmt.Errorf("parameters (-oracle +machine):\n%s", diff)
		}
		if i.Status == Completed {
			return nil
		}
		if i.Status == Failure {
			if retries++; retries == 4 {
				failures = 0
			}
			if err := decide(eventlog.Request{Type: eventlog.RetryInstance, ID: "i", Request: fmt.Sprint("retry", retries), Made: w.now}); err != nil {
				return err
			}
			o.retry(&plan.root)
			continue
		}
		works := i.Works()
		if len(works) == 0 {
			return fmt.Errorf("nothing runs")
		}
		work := pick(r, works)
		n := plan.Task(work.Path)
		o.clock++
		out := outcome{at: o.clock, ok: r.IntN(100) >= failures}
		req := eventlog.Request{Type: eventlog.Result, ID: "i", Run: i.Run, Path: work.Path, Act: work.Act, Attempt: work.Attempt}
		if req.OK = out.ok; out.ok {
			params[work.Path] = float64(o.clock)
			req.Params = json.RawMessage(fmt.Sprintf(`{%q:%d}`, work.Path, o.clock))
			if n.Kind == eventlog.Decide && r.IntN(5) > 0 {
				out.choice = n.Nodes[r.IntN(len(n.Nodes))].name()
			}
			req.Choice = out.choice
		} else {
			req.Error = "broken"
		}
		o.results[work.Path] = out
		if err := decide(req); err != nil {
			return err
		}
	}
}

// compare says where the instance differs from what the oracle expects.
func (o *oracle) compare(i *Instance) error {
	whole, _ := o.eval(&o.plan.root)
	if i.Status != whole {
		return fmt.Errorf("the instance is %s; the oracle says %s", i.Status, whole)
	}
	cut := Status("")
	if whole == Failure {
		cut = Stopped
	}
	o.status = map[string]Status{}
	o.assign(&o.plan.root, cut)
	delete(o.status, "")
	var wrong []string
	for _, path := range slices.Sorted(maps.Keys(o.status)) {
		n, want, have := o.plan.Node(path), o.status[path], Status("")
		if k := i.Task(path); k != nil {
			have = k.Status
		}
		ok := have == want
		switch {
		case want == NotStarted:
			ok = have == "" || have == Skipped
		case n.Kind == eventlog.Process: // it has a status in a Parallel, and when it failed and may
			ok = ok || have == "" && !(want == Failure && n.Continue) && (n.parent.Kind != eventlog.Parallel || want != Completed && want != Failure) ||
				want == Failure && whole == Failure && have == "" || have == Stopped
		case n.isComposite() && want == Failure:
			ok = ok || have == Stopped // it failed with the instance
		}
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s is %q; the oracle says %s", path, have, want))
		}
	}
	if wrong != nil {
		return fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	return nil
}
