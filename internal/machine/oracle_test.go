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
	results map[string]outcome // by path; of the handler that gets a ForEach's items by path and "#", of a deadline that has passed by path and "!"
	clock   int
	working map[string]bool   // runs of a ForEach that work, or have worked
	skipped map[string]int    // nodes that the flow jumped over, or out of, and when
	jumps   map[string]int    // how often the flow went elsewhere when a node had failed
	status  map[string]Status // of tasks and nodes, by the last assign
	nodes   map[string]*Node  // behind the paths of status
}

type outcome struct {
	at      int
	ok      bool
	choice  string
	choices []string
	items   int
}

// spot is a node where it stands in an instance.
type spot struct {
	n    *Node
	path string
}

// inside are the nodes at work in a spot: runs of a ForEach, chosen processes of a Dynamic.
func (o *oracle) inside(v spot) (l []spot) {
	r := o.results[v.path]
	switch v.n.Kind {
	case eventlog.ForEach:
		for k := range r.items {
			l = append(l, spot{&v.n.Nodes[0], fmt.Sprintf("%s[%d]", v.path, k)})
		}
	case eventlog.Dynamic:
		for k, name := range r.choices {
			c := chosen(&v.n.Nodes[0], name)
			l = append(l, spot{c, fmt.Sprintf("%s[%d]/%s", v.path, k, name)})
		}
	default:
		for k := range v.n.Nodes {
			c := &v.n.Nodes[k]
			l = append(l, spot{c, strings.TrimPrefix(v.path+"/"+c.name(), "/")})
		}
	}
	return l
}

// eval says whether a node that was reached executes, has completed or failed, and when.
func (o *oracle) eval(v spot) (Status, int) {
	if at, over := o.skipped[v.path]; over {
		return Completed, at
	}
	s, at := o.inTime(v)
	if late, passed := o.results[v.path+"!"]; passed && (s == Executing || at > late.at) {
		if v.n.DeadlineFails {
			return Failure, late.at
		}
		return Completed, late.at
	}
	return s, at
}

// inTime is eval without a look at the node's deadline.
func (o *oracle) inTime(v spot) (Status, int) {
	n := v.n
	r, has := o.results[v.path]
	switch n.Kind {
	case eventlog.Process:
		return o.sequence(v, 0)
	case eventlog.Parallel:
		return o.join(v)
	}
	switch {
	case !has:
		return Executing, 0
	case !r.ok:
		return Failure, r.at
	case n.Kind == eventlog.Dynamic:
		return o.sequence(v, r.at)
	case n.Kind == eventlog.ForEach:
		s, at := Completed, r.at
		if r.items > 0 {
			s, at = o.join(v)
		}
		if s != Completed || !n.Collect {
			return s, at
		}
		switch last, has := o.results[v.path+"#"]; {
		case !has:
			return Executing, 0
		case !last.ok:
			return Failure, last.at
		default:
			return Completed, last.at
		}
	case r.choice != "":
		c := chosen(n, r.choice)
		s, at := o.eval(spot{c, v.path + "/" + c.name()})
		if s == Failure && c.Continue {
			s = Completed
		}
		return s, at
	}
	return Completed, r.at
}

// sequence is one node after the other.
func (o *oracle) sequence(v spot, last int) (Status, int) {
	for _, c := range o.inside(v) {
		s, at := o.eval(c)
		if s == Executing || s == Failure && !c.n.Continue {
			return s, at
		}
		last = max(last, at)
	}
	return Completed, last
}

func chosen(n *Node, choice string) *Node {
	for k := range n.Nodes {
		if n.Nodes[k].name() == choice {
			return &n.Nodes[k]
		}
	}
	return nil
}

func (o *oracle) join(v spot) (Status, int) {
	n := v.n
	running, failed, won, lost, last := false, false, 1<<30, 1<<30, 0
	for _, c := range o.inside(v) {
		s, at := o.eval(c)
		switch {
		case s == Executing:
			running = true
		case s == Completed:
			won = min(won, at)
		case !c.n.Continue:
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

// work begins runs of each ForEach, in order, while fewer work than may.
func (o *oracle) work(v spot) {
	if _, over := o.skipped[v.path]; over {
		return
	}
	if s, _ := o.eval(v); v.n.Kind == eventlog.ForEach && s == Executing {
		running := 0
		for _, c := range o.inside(v) {
			if s, _ := o.eval(c); s == Executing && o.working[c.path] {
				running++
			}
		}
		for _, c := range o.inside(v) {
			if s, _ := o.eval(c); s == Executing && !o.working[c.path] && (v.n.Concurrency == 0 || running < v.n.Concurrency) {
				o.working[c.path] = true
				running++
			}
		}
	}
	for _, c := range o.inside(v) {
		o.work(c)
	}
}

// assign gives each task its status. cut is what a task that executes has come to, because
// something around it has ended; "" when nothing has. NotStarted stands for a node that was
// not reached, whether it was skipped or not. Of a run of a ForEach that has done its work, or
// was skipped, nothing but that is known; of a ForEach that completed or was skipped neither.
func (o *oracle) assign(v spot, cut Status) {
	n := v.n
	if _, over := o.skipped[v.path]; over {
		o.leave(v)
		return
	}
	s, _ := o.eval(v)
	if s == Executing && cut != "" {
		s = cut
	}
	o.set(v, s)
	if _, passed := o.results[v.path+"!"]; passed && s == Completed || s == Failure && n.Continue {
		cut = Skipped
	}
	if (n.Kind == eventlog.ForEach || n.item && n.parent.Kind == eventlog.ForEach) && (s == Completed || s == Skipped) {
		return
	}
	switch n.Kind {
	case eventlog.Process, eventlog.Dynamic:
		going := true
		for _, c := range o.inside(v) {
			if !going {
				o.unreached(c)
				continue
			}
			o.assign(c, cut)
			s, _ := o.eval(c)
			going = s == Completed || s == Failure && c.n.Continue
		}
	case eventlog.Parallel, eventlog.ForEach:
		for _, c := range o.inside(v) {
			in := cut
			own, _ := o.eval(c)
			if n.Kind == eventlog.ForEach && own == Executing && !o.working[c.path] {
				o.set(c, NotStarted) // or STOPPED, when it has worked before a retry
				continue
			}
			switch {
			case own == Failure && !c.n.Continue && (n.Any || n.WaitAll) && !o.lastToEnd(v, c):
				in = Stopped
			case n.Any && s == Completed && own != Completed:
				in = Skipped
			}
			o.assign(c, in)
		}
	case eventlog.Decide:
		for _, c := range o.inside(v) {
			if o.results[v.path].choice == c.n.name() {
				o.assign(c, cut)
			} else {
				o.unreached(c)
			}
		}
	}
}

func (o *oracle) set(v spot, s Status) { o.status[v.path], o.nodes[v.path] = s, v.n }

// lastToEnd says that a failed node ended when all beside it had.
func (o *oracle) lastToEnd(v, c spot) bool {
	_, mine := o.eval(c)
	for _, x := range o.inside(v) {
		if s, at := o.eval(x); s == Executing || at > mine {
			return false
		}
	}
	return true
}

func (o *oracle) unreached(v spot) {
	o.set(v, NotStarted)
	for _, c := range o.inside(v) {
		o.unreached(c)
	}
}

// retry forgets the failures that made the instance fail.
func (o *oracle) retry(v spot) {
	if _, over := o.skipped[v.path]; over {
		return
	}
	s, _ := o.eval(v)
	if s == Completed || s == Failure && v.n.Continue {
		return
	}
	delete(o.working, v.path) // its turn comes again
	for _, path := range []string{v.path, v.path + "#", v.path + "!"} {
		if r, has := o.results[path]; has && !r.ok {
			delete(o.results, path)
			if path != v.path+"!" { // what is inside goes on
				return
			}
		}
	}
	for _, c := range o.inside(v) {
		if o.status[c.path] != NotStarted {
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
	g := planner{r: r, left: 2 + r.IntN(14), wide: r.IntN(2) == 0, leaf: func(n *Node) {
		if r.IntN(4) == 0 {
			n.Kind, n.Topic = eventlog.Command, "out"
		}
	}}
	nodes := g.nodes("", 1+r.IntN(4), 1)
	deadlines(r, nodes)
	if r.IntN(2) == 0 {
		gotos(r, nodes)
	}
	plan, err := NewPlan("Random", 1, nodes)
	if err != nil {
		return err
	}
	w := newWorld(1)
	w.addPlan(plan)
	state, shadow := NewState(0, 1), NewState(0, 1)
	o := &oracle{plan: plan, results: map[string]outcome{}, working: map[string]bool{}, skipped: map[string]int{}, jumps: map[string]int{}}
	trace := draw(plan.Root)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, trace)
		}
	}()
	var sent, wanted []string // messages
	decide := func(r eventlog.Request) error {
		turn := w.newTurn(state)
		answer := turn.Decide(&r)
		for _, m := range turn.Sendings {
			sent = append(sent, string(m.Record.Value))
		}
		trace += fmt.Sprintf("\n%s %s ok=%v choice=%q %q items=%d: %s", r.Type, r.Path, r.OK, r.Choice, r.Choices, len(r.Items), answer)
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
	params := map[string]map[string]any{"": {}} // by the run of a ForEach that they are of
	failures := r.IntN(60)
	for retries := 0; ; {
		i := state.Instances["i"]
		if err := o.compare(i); err != nil {
			return err
		}
		if err := compareParams(params, i); err != nil {
			return err
		}
		if diff := cmp.Diff(wanted, sent); diff != "" {
			return fmt.Errorf("messages (-oracle +machine):\n%s", diff)
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
			o.retry(spot{n: &plan.root})
			o.work(spot{n: &plan.root})
			continue
		}
		if dues := i.Dues(); len(dues) > 0 && r.IntN(12) == 0 {
			d := pick(r, dues)
			o.clock++
			o.results[d.Path+"!"] = outcome{at: o.clock, ok: !plan.Node(d.Path).DeadlineFails}
			o.jump()
			o.work(spot{n: &plan.root})
			if err := decide(d.Request()); err != nil {
				return err
			}
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
		key := work.Path
		if i.Task(work.Path).Collect {
			key += "#"
		}
		if req.OK = out.ok; out.ok {
			params[i.Scope(work.Path)][work.Path] = float64(o.clock)
			req.Params = json.RawMessage(fmt.Sprintf(`{%q:%d}`, work.Path, o.clock))
			switch {
			case n.Kind == eventlog.Command:
				m := fmt.Sprint(work.Path, " ", o.clock)
				req.Record, wanted = &eventlog.Record{Topic: "out", Partition: -1, Value: []byte(m)}, append(wanted, m)
			case n.Kind == eventlog.Decide && r.IntN(5) > 0:
				out.choice = n.Nodes[r.IntN(len(n.Nodes))].name()
			case n.Kind == eventlog.Dynamic:
				for range r.IntN(4) {
					c := pick(r, n.Nodes[0].Nodes)
					out.choices = append(out.choices, c.name())
				}
			case n.Kind == eventlog.ForEach && key == work.Path:
				out.items = r.IntN(5)
				for k := range out.items {
					req.Items = append(req.Items, json.RawMessage(fmt.Sprintf(`{"item":%d}`, k)))
					params[fmt.Sprintf("%s[%d]", work.Path, k)] = map[string]any{"item": float64(k)}
				}
			}
			req.Choice, req.Choices = out.choice, out.choices
		} else {
			req.Error = "broken"
		}
		o.results[key] = out
		o.jump()
		o.work(spot{n: &plan.root})
		if err := decide(req); err != nil {
			return err
		}
	}
}

// deadlines gives some nodes one.
func deadlines(r *rand.Rand, nodes []Node) {
	for k := range nodes {
		n := &nodes[k]
		deadlines(r, n.Nodes)
		if (n.Kind == eventlog.Process || n.Kind == eventlog.Parallel) && !strings.HasSuffix(n.Path, "[]") && r.IntN(5) == 0 {
			n.Deadline, n.DeadlineFails = 1000, r.IntN(2) == 0
		}
	}
}

// compareParams compares the parameters of the instance, and of the runs that it knows.
func compareParams(params map[string]map[string]any, i *Instance) error {
	have := map[string]json.RawMessage{"": i.Params}
	for _, x := range i.Items {
		for k, v := range x.Values {
			have[fmt.Sprintf("%s[%d]", x.Path, k)] = v
		}
	}
	for of, data := range have {
		var v map[string]any
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		if diff := cmp.Diff(params[of], v); diff != "" {
			return fmt.Errorf("parameters of %q (-oracle +machine):\n%s", of, diff)
		}
	}
	return nil
}

// compare says where the instance differs from what the oracle expects.
func (o *oracle) compare(i *Instance) error {
	root := spot{n: &o.plan.root}
	whole, _ := o.eval(root)
	if i.Status != whole {
		return fmt.Errorf("the instance is %s; the oracle says %s", i.Status, whole)
	}
	cut := Status("")
	if whole == Failure {
		cut = Stopped
	}
	o.status, o.nodes = map[string]Status{}, map[string]*Node{}
	o.assign(root, cut)
	delete(o.status, "")
	var wrong []string
	for _, path := range slices.Sorted(maps.Keys(o.status)) {
		n, want, have := o.nodes[path], o.status[path], Status("")
		run := n.item && n.parent.Kind == eventlog.ForEach
		switch k := i.Task(path); {
		case k != nil:
			have = k.Status
		case run:
			if x := i.ItemsOf(path[:strings.LastIndexByte(path, '[')]); x != nil {
				have = itemStatus(x.States[indexOf(path)])
			}
		}
		ok := have == want
		switch {
		case want == left:
			ok = have != Executing
		case want == NotStarted:
			ok = have == "" || have == Skipped || run && have == Stopped
		case run: // it executes as long as the instance may be retried
			ok = ok || want == Stopped && have == Executing || want == Failure && have == Executing && whole == Failure || want == Failure && have == Stopped
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
