package machine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

// TestOracle compares the machine with the oracle for random plans and random inputs. What it
// finds it makes smaller first.
func TestOracle(t *testing.T) {
	text, err := os.ReadFile(statesFile)
	if err != nil {
		t.Fatal(err)
	}
	allowed := readStates(string(text))
	if *rewrite {
		allowed = nil
	}
	seeds := *flowsFlag
	if *seedFlag > 0 {
		seeds = 1
	}
	for k := range seeds {
		seed := *firstFlag + uint64(k)
		if *seedFlag > 0 {
			seed = *seedFlag
		}
		used := newTape(seed)
		err := comparePlay(used, allowed, states{})
		if err == nil {
			continue
		}
		if _, e := shrink(used.l, func(s *tape) error { return comparePlay(s, allowed, states{}) }); e != nil {
			err = e
		}
		t.Fatalf("seed %d, made smaller: %v", seed, err)
	}
}

// compareFlow plays one seed. It collects the moves of its events; allowed may be nil.
func compareFlow(seed uint64, allowed, observed states) error {
	return comparePlay(newTape(seed), allowed, observed)
}

// TestOracleNotices lets the machine break a rule, which the oracle must see.
func TestOracleNotices(t *testing.T) {
	for name, rules := range map[string]Rules{
		"AnyAttempt": {AnyAttempt: true}, "AnyRun": {AnyRun: true}, "TimeoutAnyDue": {TimeoutAnyDue: true},
		"NoInterrupted": {NoInterrupted: true}, "CutCountsAll": {CutCountsAll: true},
		"NoSourceMarks": {NoSourceMarks: true}, "NoRequestIDs": {NoRequestIDs: true}, "NoReturn": {NoReturn: true},
		"NoFull": {NoFull: true}, "NoSurplusBack": {NoSurplusBack: true},
	} {
		noticed := false
		for seed := uint64(1); seed <= 4000 && !noticed; seed++ {
			source := newTape(seed)
			p := newPlay(source)
			limits := p.state.Rules.Limits
			p.state.Rules = rules
			p.state.Rules.Limits = limits
			noticed = p.run(source) != nil
		}
		if !noticed {
			t.Errorf("without rule %s the oracle sees no difference", name)
		}
	}
}

// play is one run of a few instances, by the machine and by the oracle.
type play struct {
	r      *rand.Rand
	w      *world
	state  *State
	shadow *State
	o      *oracleWorld
	byID   map[string]*oracle

	allowed, observed states
	failures          int // of a hundred attempts
	requests, offset  int
	sent, wanted      []string // messages of Command tasks
	letters           []string
	past              []eventlog.Request // results and timers, to say again when they are late
	calls             []eventlog.Request // to make again
	trace             []string
	judge             *audit.Auditor
}

func comparePlay(source *tape, allowed, observed states) error {
	p := newPlay(source)
	p.allowed, p.observed, p.judge = allowed, observed, audit.New(1, audit.Options{Buffered: p.o.limit})
	return p.run(source)
}

func newPlay(source *tape) *play {
	p := &play{r: rand.New(source), w: newWorld(1), state: NewState(0, 1), shadow: NewState(0, 1), byID: map[string]*oracle{}, observed: states{}}
	p.w.maxEvent = 0
	p.o = &oracleWorld{now: p.w.now, limit: bufferLimit, waiters: map[eventlog.KeyRef][]*waits{}, kept: map[eventlog.KeyRef][]*message{}}
	if p.failures = p.r.IntN(60); p.chance(30) {
		p.o.limit = 2
	}
	p.state.Rules.Limits.Buffer = p.o.limit
	return p
}

func (p *play) run(source *tape) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, strings.Join(p.trace, "\n"))
		}
	}()
	for _, id := range []string{"i", "j"}[:1+p.r.IntN(5)/4] {
		if err := p.start(id); err != nil {
			return err
		}
	}
	for range 10 + p.r.IntN(100) {
		if source.ended() {
			break
		}
		if err := p.any(); err != nil {
			return err
		}
		if !slices.ContainsFunc(p.o.instances, func(o *oracle) bool { return o.whole == Executing || o.whole == Failure }) {
			break
		}
	}
	return nil
}

func (p *play) chance(percent int) bool { return p.r.IntN(100) < percent }

// plan is a random one, with all kinds of nodes in one another.
func (p *play) plan(id string) (*Plan, error) {
	g := planner{r: p.r, left: 2 + p.r.IntN(18), wide: p.chance(50), leaf: func(n *Node) {
		n.Kind = pick(p.r, []eventlog.Kind{eventlog.Execute, eventlog.Execute, eventlog.Command, eventlog.Listen, eventlog.Listen, eventlog.At, eventlog.Every})
		switch n.Kind {
		case eventlog.Command:
			n.Topic = "out"
		case eventlog.Listen:
			n.Topic, n.Key, n.TTL = "in", pick(p.r, keyed), 60_000
		}
		if p.chance(35) {
			n.Retry = &Retry{Attempts: 1 + p.r.IntN(3), Delay: 1000, MaxDelay: int64(p.r.IntN(2) * 1500)}
		}
		if p.chance(30) {
			n.Timeout = 5000
		}
	}}
	nodes := g.nodes("", 1+p.r.IntN(4), 1)
	if often := p.r.IntN(4); often > 0 {
		widen(p.r, nodes, often)
	}
	return Build(Plan{Name: "Plan-" + id, Version: 1, Root: nodes})
}

func (p *play) say(format string, args ...any) {
	p.trace = append(p.trace, fmt.Sprintf(format, args...))
}

// decide lets the machine decide a request, and what follows from it.
func (p *play) decide(r eventlog.Request) (answer string, err error) {
	r.V = 1
	data, _ := eventlog.AppendRequest(nil, &r)
	p.say("at %d %s", p.w.now-epoch, data)
	turn := p.w.newTurn(p.state)
	turn.Now = p.w.now
	answer = turn.Decide(&r)
	for {
		local, ok := turn.NextLocal()
		if !ok {
			break
		}
		turn.Decide(&local)
	}
	p.say("  %s", answer)
	for _, m := range turn.Sendings {
		if m.Path != "" {
			p.sent = append(p.sent, string(m.Record.Value))
			continue
		}
		var h [3]string
		for _, x := range m.Record.Headers {
			switch x.Key {
			case "dagger-key":
				h[0] = string(x.Value)
			case "dagger-value":
				h[1] = string(x.Value)
			case "dagger-offset":
				h[2] = string(x.Value)
			}
		}
		p.letters = append(p.letters, fmt.Sprintf("%s=%s %s", h[0], h[1], h[2]))
	}
	for _, e := range turn.Events {
		p.say("    %s", eventlog.AppendEvent(nil, e))
		before := &Instance{}
		if i := p.shadow.Instances[e.ID]; i != nil {
			before = i.Clone()
		}
		if err := p.shadow.Evolve(e); err != nil {
			return answer, err
		}
		if p.judge != nil {
			if p.judge.Event(0, int64(e.N), e); p.judge.Report().Violations > 0 {
				return answer, p.judge.Report().Err()
			}
		}
		if e.Seq == 0 {
			continue
		}
		for _, m := range moves(before, p.shadow.Instances[e.ID], e) {
			p.observed[m] = true
			if p.allowed != nil && !p.allowed[m] {
				return answer, fmt.Errorf("%s is not allowed", m)
			}
		}
	}
	return answer, nil
}

// decided is decide for a request that must be accepted; what the oracle says is compared.
func (p *play) decided(r eventlog.Request) error {
	answer, err := p.decide(r)
	if err == nil && answer != OK {
		err = fmt.Errorf("it is not decided")
	}
	if err != nil {
		return err
	}
	if r.Request != "" {
		p.calls = append(p.calls, r)
	}
	p.o.settle()
	return p.compare()
}

// refused is decide for a request that must not be accepted: nothing changes.
func (p *play) refused(r eventlog.Request, answers ...string) error {
	before := dump(p.state)
	answer, err := p.decide(r)
	if err != nil {
		return err
	}
	if !slices.Contains(answers, answer) {
		return fmt.Errorf("the answer is %q and not one of %q", answer, answers)
	}
	if dump(p.state) != before {
		return fmt.Errorf("the state changed")
	}
	return nil
}

func (p *play) start(id string) error {
	plan, err := p.plan(id)
	if err != nil {
		return err
	}
	p.w.addPlan(plan)
	p.say("%s", draw(plan.Root))
	p.say("%s", plan.Recorded())
	o := &oracle{id: id, plan: plan, world: p.o, whole: Executing,
		results: map[string]outcome{}, working: map[string]bool{}, skipped: map[string]int{}, frozen: map[string]Status{}, jumps: map[string]int{},
		acts: map[string]*activity{}, times: map[string]*activity{}, monitors: map[string]*activity{}, over: map[string]*activity{}, stops: map[string]*activity{},
		held: map[string]*message{}, params: map[string]map[string]string{}, change: map[string]int{}, known: map[string]map[string]string{},
		subs: map[eventlog.KeyRef]*waits{}}
	p.byID[id] = o
	p.o.instances = append(p.o.instances, o)
	o.params[""] = p.values(o, "", 85)
	r := eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: plan.Name, Request: "start", Made: p.w.now, Params: encode(o.params[""])}
	if p.chance(70) {
		r.HasKeys, r.Keys = true, p.keys(o, "", o.params[""])
		o.known[""] = maps.Clone(o.params[""])
	} else {
		o.stale = plan.Computes()
	}
	o.advance()
	o.settle()
	return p.decided(r)
}

// any is one random thing that happens.
func (p *play) any() error {
	o := pick(p.r, p.o.instances)
	switch n := p.r.IntN(100); {
	case n < 50:
		return p.result(o)
	case n < 65:
		return p.message()
	case n < 83:
		return p.time(o)
	case n < 86:
		return p.late(o)
	case n < 89:
		return p.cutShort(o)
	case n < 90 && p.chance(25):
		return p.stop(o)
	}
	return p.evaluate(o)
}

// decides lets the oracle of an instance take a step and compares.
func (p *play) decides(o *oracle, r eventlog.Request, step func()) error {
	o.clock++
	step()
	o.advance()
	o.settle()
	return p.decided(r)
}
