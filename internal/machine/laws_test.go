package machine

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run the laws on this seed alone")
	traceFlag = flag.Int("lines", 30, "requests and events that a failure of TestLaws prints")
	seedsFlag = flag.Int("seeds", 80, "histories that TestLaws runs")
	flowsFlag = flag.Int("flows", 3000, "plans that TestOracle runs")
)

// TestLaws runs random plans through random requests, sensible ones and nonsense, and checks
// what must hold of every history.
func TestLaws(t *testing.T) {
	text, err := os.ReadFile(statesFile)
	if err != nil && !*rewrite {
		t.Fatal(err)
	}
	allowed := readStates(string(text))
	if *seedFlag > 0 {
		runHistory(t, *seedFlag, allowed, states{})
		return
	}
	observed := states{}
	for seed := range *seedsFlag {
		if runHistory(t, uint64(seed)+1, allowed, observed); t.Failed() && !*rewrite {
			return
		}
	}
	if *rewrite {
		for seed := range 10 * *seedsFlag {
			if err := compareFlow(uint64(seed)+1, nil, observed); err != nil {
				t.Fatal(err)
			}
		}
		observed.close()
		if err := os.WriteFile(statesFile, []byte(observed.document()), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if allowed.document() != string(text) {
		t.Errorf("%s is not as the test writes it: run it with -rewrite -seeds 2000", statesFile)
	}
}

func runHistory(t *testing.T, seed uint64, allowed, observed states) {
	t.Helper()
	h := newHistory(seed)
	h.allowed, h.moves = allowed, observed
	h.judge = audit.New(int32(len(h.parts)), audit.Options{})
	err := h.run()
	if err == nil {
		err = h.judge.Finish().Err()
	}
	if err != nil {
		t.Errorf("seed %d, step %d: %v\nthe last of it:\n%s", seed, h.steps, err, strings.Join(h.trace, "\n"))
	}
}

// history is one random run.
type history struct {
	*world
	r       *rand.Rand
	steps   int
	pending [][]eventlog.Request // calls, results and timers that wait for a turn
	past    []eventlog.Request   // to say again
	calls   map[[2]string]string // answers by instance and request id
	applied map[[2]string]int
	relays  map[eventlog.Source][]eventlog.Request
	offsets map[eventlog.Source]int64
	names   []string
	nextID  int
	fate    map[string]map[string]bool // of each message, by topic, partition and offset
	broken  error
	allowed states
	moves   states
	trace   []string
	judge   *audit.Auditor
}

var (
	ids    = []string{"a", "b", "c", "d", "{x}/1", "{x}/2", "{y}/1"}
	values = []string{"x", "y", "z"}
	keyed  = []string{"k1", "k2"}
)

func newHistory(seed uint64) *history {
	h := &history{r: rand.New(rand.NewPCG(seed, 1)), calls: map[[2]string]string{}, applied: map[[2]string]int{},
		relays: map[eventlog.Source][]eventlog.Request{}, offsets: map[eventlog.Source]int64{}, fate: map[string]map[string]bool{}}
	h.world = newWorld(1 + h.r.IntN(3))
	h.maxEvent, h.maxMsg = eventOverhead+100, 60
	h.pending = make([][]eventlog.Request, len(h.parts))
	h.onEvent = h.observe
	for k := range 1 + h.r.IntN(3) {
		h.addPlan(h.plan(fmt.Sprint("P", k), 1))
		h.names = append(h.names, fmt.Sprint("P", k))
	}
	return h
}

func (h *history) chance(percent int) bool { return h.r.IntN(100) < percent }

func pick[T any](r *rand.Rand, l []T) T { return l[r.IntN(len(l))] }

func (h *history) plan(name string, version int) *Plan {
	leaf := func(n *Node) {
		n.Kind = pick(h.r, []eventlog.Kind{eventlog.Execute, eventlog.Command, eventlog.Listen, eventlog.Listen, eventlog.At, eventlog.Every})
		switch n.Kind {
		case eventlog.Command:
			n.Topic = "out"
		case eventlog.Listen:
			n.Topic, n.Key, n.TTL = "in", pick(h.r, keyed), 60_000
		}
		if h.chance(50) {
			n.Retry = &Retry{Attempts: 1 + h.r.IntN(3), Delay: 1000, MaxDelay: int64(h.r.IntN(2) * 1500)}
		}
		if h.chance(30) && n.Kind != eventlog.At {
			n.Timeout = 5000
		}
	}
	g := planner{r: h.r, left: 1 + h.r.IntN(8), leaf: leaf, wide: h.chance(60)}
	nodes := g.nodes("", h.r.IntN(4), 1)
	of := Plan{Name: name, Version: version, Root: nodes}
	if h.chance(60) {
		h.widen(nodes)
		of.Retain = int64(h.r.IntN(2)) * 5000
	}
	p, err := Build(of)
	if err != nil {
		panic(err)
	}
	return p
}

func (h *history) run() error {
	if err := h.own(); err != nil {
		return err
	}
	for h.steps = range 50 + h.r.IntN(250) {
		if err := h.any(); err != nil {
			return err
		}
	}
	if err := h.quiet(); err != nil {
		return err
	}
	return h.finish()
}

// any does one random thing.
func (h *history) any() error {
	switch n := h.r.IntN(100); {
	case n < 10:
		h.start()
	case n < 30:
		h.work()
	case n < 40:
		h.message()
	case n < 44:
		h.now += int64(h.r.IntN(2000))
		for _, p := range h.parts {
			for _, d := range h.due(p) {
				h.queue(p, d.Request())
			}
		}
	case n < 45:
		h.now += int64(h.r.IntN(100_000_000)) // more than a day
	case n < 50:
		h.call()
	case n < 53:
		h.again()
	case n < 56:
		h.nonsense()
	case n < 57:
		h.poison[pick(h.r, ids)] = pick(h.r, []eventlog.Type{"", eventlog.InstanceCompleted, eventlog.InstanceFailed})
	case n < 58:
		id := pick(h.r, ids)
		h.queue(h.parts[eventlog.PartitionOf(id, int32(len(h.parts)))], eventlog.Request{Type: Quarantine, ID: id, Reason: "asked for"})
	case n < 60:
		h.rewind()
	case n < 62:
		for _, p := range h.parts {
			p.reload()
		}
		return h.same()
	case n < 75:
		return h.batch(pick(h.r, h.parts))
	default:
		_, _, _, err := h.step()
		return h.wrong(err)
	}
	return nil
}

func (h *history) wrong(err error) error {
	if err == nil {
		err = h.broken
	}
	return err
}

func (h *history) queue(p *part, r eventlog.Request) {
	r.V = 1
	h.pending[p.s.Partition] = append(h.pending[p.s.Partition], r)
}

// toOwner queues a request where it belongs, or now and then elsewhere.
func (h *history) toOwner(r eventlog.Request) {
	r.V = 1
	p := h.of(&r)
	if h.chance(5) {
		p = pick(h.r, h.parts)
	}
	h.queue(p, r)
	h.past = append(h.past, r)
}

// batch decides a few of the requests that wait.
func (h *history) batch(p *part) error {
	k := p.s.Partition
	n := min(len(h.pending[k]), 1+h.r.IntN(4))
	batch := slices.Clone(h.pending[k][:n])
	h.pending[k] = h.pending[k][n:]
	m := min(len(p.inbox), h.r.IntN(3))
	batch = append(batch, p.inbox[:m]...)
	p.inbox = p.inbox[m:]
	h.log(p, batch)
	d, err := h.turn(p, h.chance(30), batch...)
	if err != nil {
		return err
	}
	for i, r := range batch {
		if r.Request != "" {
			h.answered(&r, d.answers[i])
		}
	}
	return h.broken
}

// log keeps the last requests and events for a failure's report.
func (h *history) log(p *part, batch []eventlog.Request) {
	for _, r := range batch {
		h.trace = append(h.trace, fmt.Sprintf("p%d <- %s", p.s.Partition, mustMarshal(r)))
	}
}

// answered checks that a call is answered alike however often it is made.
func (h *history) answered(r *eventlog.Request, answer string) {
	id := [2]string{r.ID, r.Request}
	switch answer {
	case Forwarded, Ahead, Expired:
		return
	case Ignored: // a forwarder said it again
		return
	}
	if had, ok := h.calls[id]; ok && had != answer {
		h.broken = fmt.Errorf("call %v was answered %q, now %q", id, had, answer)
	}
	h.calls[id] = answer
}

func (h *history) start() {
	r := eventlog.Request{Type: eventlog.StartInstance, ID: pick(h.r, ids), Definition: pick(h.r, h.names), Made: h.now}
	h.nextID++
	r.Request = fmt.Sprint("r", h.nextID)
	r.Params = json.RawMessage(fmt.Sprintf(`{"a":%d,"b":"x"}`, h.r.IntN(9)))
	plan := h.current[r.Definition]
	switch h.r.IntN(20) {
	case 0:
		r.Params = json.RawMessage(`[1]`)
	case 1:
		r.Definition = "unknown"
	case 2:
		r.Params = json.RawMessage(`{"big":"` + strings.Repeat("x", 200) + `"}`)
	case 3:
		r.Params = nil
	case 4:
		r.Made = h.now + 100_000
	case 5:
		r.Definition, r.Plan = "", plan.Hash()
	}
	if h.chance(60) {
		r.HasKeys, r.Keys = true, h.keys(plan, &Instance{}, nil)
	}
	h.toOwner(r)
}

// keys are values of what is computed from the parameters, random ones.
func (h *history) keys(plan *Plan, i *Instance, r *eventlog.Request) (l []eventlog.TaskKey) {
	for _, n := range computed(plan) {
		for _, path := range paths(plan, i, n, r) {
			l = append(l, eventlog.TaskKey{Path: path, Value: h.value(n)})
		}
	}
	return l
}

func (h *history) value(n *Node) string {
	switch n.Kind {
	case eventlog.Listen:
		return pick(h.r, append(values, ""))
	case eventlog.Every:
		v := pick(h.r, []string{"1", "1000", "3000"})
		if h.chance(50) {
			v += "/" + pick(h.r, []string{"1", fmt.Sprint(h.now + 500), fmt.Sprint(h.now + 4000)})
		}
		return v
	}
	v := pick(h.r, []string{"", "1", fmt.Sprint(h.now), fmt.Sprint(h.now + 1000), fmt.Sprint(h.now + 5000)})
	if n.Kind == eventlog.Monitor && v != "" && h.chance(30) {
		v += "/1000"
	}
	return v
}

// works are all that user code should be doing.
func (h *history) works() (l []eventlog.Request) {
	for _, p := range h.parts {
		for _, id := range slices.Sorted(maps.Keys(p.works)) {
			i := p.s.Instances[id]
			for _, k := range p.works[id] {
				r := eventlog.Request{Type: eventlog.Result, ID: id, Run: i.Run, Path: k.Path, Act: k.Act, Attempt: k.Attempt, Jitter: 0.5}
				if _, r.Base = i.ParamsAt(k.Path); k.Path == "" {
					r.Base = i.LastParams()
					r.Type, r.Attempt = eventlog.Evaluated, 0
				}
				l = append(l, r)
			}
		}
	}
	return l
}

// work ends or cuts short a handler.
func (h *history) work() {
	l := h.works()
	if len(l) == 0 {
		return
	}
	r := pick(h.r, l)
	i := h.instance(r.ID)
	plan := h.plans[i.Plan]
	if r.Type == eventlog.Evaluated {
		r.Keys = h.keys(plan, i, nil)
		if h.chance(5) {
			r.Error = "no key"
		}
		if h.chance(10) {
			r.Base--
		}
		h.toOwner(r)
		return
	}
	switch h.r.IntN(10) {
	case 0:
		r.Type = Interrupted
		h.queue(h.of(&r), r)
		return
	case 1:
		r.Type = HasRun
		h.queue(h.of(&r), r)
		return
	case 2, 3:
		r.Error, r.Terminal = "broken", h.chance(20)
		if h.chance(20) {
			r.RetryAfter = 1 + h.r.Int64N(3000)
		}
	default:
		r.OK = true
		r.Params = json.RawMessage(pick(h.r, []string{"", "", `{}`, `{"a":1}`, `{"b":null}`, `{"c":{"d":[1,2]}}`, `7`, `{"e":"` + strings.Repeat("y", 120) + `"}`}))
		r.More = h.chance(20)
		if h.chance(3) {
			r.Stop = "enough"
		}
		h.choose(plan.Task(r.Path), &r)
		if h.chance(70) {
			r.HasKeys, r.Keys = true, h.keys(plan, i, &r)
		}
		switch n := plan.Task(r.Path); n.Kind {
		case eventlog.Every:
			r.More = h.chance(60)
		case eventlog.Decide:
			if r.Choice = n.Nodes[h.r.IntN(len(n.Nodes))].name(); h.chance(30) {
				r.Choice = pick(h.r, []string{"", "unknown"})
			}
		case eventlog.Command:
			r.Record = &eventlog.Record{Topic: "out", Partition: -1, Value: []byte(strings.Repeat("m", h.r.IntN(70)))}
		}
	}
	h.toOwner(r)
}

// message lets a relay tell a key of a message.
func (h *history) message() {
	source := eventlog.Source{TopicID: "in-id", Partition: int32(h.r.IntN(2)), Key: pick(h.r, keyed)}
	offset := h.offsets[source]
	h.offsets[source]++
	told := map[int32]int{} // index numbers what goes to one partition
	for _, v := range values {
		if !h.chance(50) {
			continue
		}
		r := eventlog.Request{V: 1, Type: eventlog.Deliver, Topic: "in", Key: source.Key, Value: v, TTL: int64(h.r.IntN(2)) * 90_000,
			Message: &eventlog.Message{Topic: "in", TopicID: "in-id", Partition: source.Partition, Offset: offset, Value: json.RawMessage(fmt.Sprint(offset))}}
		p := h.of(&r)
		s := source
		r.Source, r.Mark = &s, &eventlog.Mark{Pos: offset, Index: told[p.s.Partition]}
		told[p.s.Partition]++
		p.inbox = append(p.inbox, r)
		h.relays[source] = append(h.relays[source], r)
		h.fate[r.Key+v+messageName(r.Message)] = map[string]bool{}
	}
}

func messageName(m *eventlog.Message) string {
	return fmt.Sprintf(" %s/%d/%d", m.Topic, m.Partition, m.Offset)
}

// call asks for something by its name.
func (h *history) call() {
	h.nextID++
	r := eventlog.Request{Type: pick(h.r, []eventlog.RequestType{eventlog.StopInstance, eventlog.RetryInstance, eventlog.RetryInstance, eventlog.ReleaseInstance, eventlog.ReleaseInstance, eventlog.DeleteInstance}),
		ID: pick(h.r, ids), Request: fmt.Sprint("r", h.nextID), Made: h.now, Reason: "test"}
	if i := h.instance(r.ID); r.Type == eventlog.ReleaseInstance && i != nil && i.Run > 0 && h.chance(30) {
		body := i.Clone().Body
		switch h.r.IntN(6) {
		case 0:
			body.Plan = "unknown"
		case 1:
			body.Params = json.RawMessage(`[]`)
		case 2:
			body.Definition = ""
		case 3:
			body.Params = json.RawMessage(`{"mended":true}`)
		}
		r.State = json.RawMessage(mustMarshal(body))
	}
	h.toOwner(r)
}

// again says something again, word by word.
func (h *history) again() {
	if len(h.past) > 0 {
		r := pick(h.r, h.past)
		h.queue(h.of(&r), r)
	}
}

// nonsense says something that is not so.
func (h *history) nonsense() {
	if len(h.past) == 0 {
		return
	}
	r := pick(h.r, h.past)
	if r.Request != "" {
		h.nextID++
		r.Request = fmt.Sprint("r", h.nextID)
	}
	switch h.r.IntN(6) {
	case 0:
		r.Act += uint64(h.r.IntN(3)) - 1
	case 1:
		r.Attempt++
	case 2:
		r.Run++
	case 3:
		r.Path = pick(h.r, []string{"", "none", "t0", "P/t1"})
	case 4:
		r.ID = pick(h.r, ids)
	case 5:
		r.Type = pick(h.r, []eventlog.RequestType{Timer, HasRun, Interrupted, ExpireBuffer, ExpireKept, Forget, FanOut, eventlog.Result, eventlog.Evaluated, eventlog.DeliverTo, "Unheard"})
		r.Msg, r.Expires, r.Request = uint64(h.r.IntN(50)), h.now, ""
		if r.Type == eventlog.DeliverTo {
			r.Topic, r.Key, r.Value = "in", pick(h.r, keyed), "nobody waits for this"
			r.Source, r.Mark, r.Message = nil, nil, &eventlog.Message{Topic: "in"}
			return // a delivery always has a source or is local; the next line keeps it so
		}
	}
	h.queue(h.of(&r), r)
}

// rewind lets a forwarder or relay say again what it said before, in order.
func (h *history) rewind() {
	if h.chance(50) {
		from, to := pick(h.r, h.parts), pick(h.r, h.parts)
		if l := from.outbox[to.s.Partition]; len(l) > 0 {
			to.inbox = append(to.inbox, l[h.r.IntN(len(l)):]...)
		}
		return
	}
	for _, source := range slices.SortedFunc(maps.Keys(h.relays), func(a, b eventlog.Source) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		l := h.relays[source]
		for _, r := range l[h.r.IntN(len(l)):] {
			p := h.of(&r)
			p.inbox = append(p.inbox, r)
		}
	}
}

// observe checks each event against what was before.
func (h *history) observe(p *part, e *eventlog.Event, before, after *Instance) {
	h.trace = append(h.trace, fmt.Sprintf("p%d    %s", p.s.Partition, eventlog.AppendEvent(nil, e)))
	h.trace = h.trace[max(0, len(h.trace)-*traceFlag):]
	h.judge.Event(p.s.Partition, int64(e.N), e)
	fail := func(format string, args ...any) {
		if h.broken == nil {
			h.broken = fmt.Errorf("%s: %s", eventlog.AppendEvent(nil, e), fmt.Sprintf(format, args...))
		}
	}
	if e.Request != "" {
		id := [2]string{e.ID, e.Request}
		if h.applied[id]++; h.applied[id] > 1 {
			fail("call %v was applied twice", id)
		}
		if had, ok := h.calls[id]; ok && had != OK {
			fail("call %v was refused (%s) and then applied", id, had)
		}
	}
	if m := e.Message; m != nil && (e.Type == eventlog.MessageReceived || e.Type == eventlog.MessageBuffered) {
		h.mark(e, m, "taken")
	}
	if e.Type == eventlog.MessageExpired || e.Type == eventlog.MessageDropped || e.Type == eventlog.BufferExpired {
		return
	}
	if e.Seq == 0 || e.Type == eventlog.InstanceReset || e.Type == eventlog.InstanceQuarantined {
		return
	}
	if before != nil && before.Quarantined != "" {
		fail("an event of a quarantined instance")
	}
	for _, move := range moves(before, after, e) {
		h.moves[move] = true
		if !*rewrite && !h.allowed[move] {
			fail("%s is not allowed", move)
		}
	}
	if before != nil && before.Run > 0 && before.Terminal() && e.Type != eventlog.InstanceRetried && e.Type != eventlog.InstanceDeleted {
		fail("an event after the end")
	}
	if e.Type == eventlog.DeadlinePassed && e.Error != "" {
		return // what executes inside is stopped by the InstanceFailed that may follow
	}
	if err := together(h.plans[after.Plan], after); err != nil {
		fail("%v", err)
	}
}

func (h *history) mark(e *eventlog.Event, m *eventlog.Message, what string) {
	if f := h.fate[e.Key+e.Value+messageName(m)]; f != nil {
		f[what] = true
	}
}

// together checks that what executes at once may: tasks say what they wait for, nodes around
// them execute too, and two tasks are in different branches of a Parallel or runs of a ForEach.
func together(plan *Plan, i *Instance) error {
	var running []place
	for _, k := range i.Tasks {
		if k.Status != Executing {
			continue
		}
		pl, _ := plan.place(k.Path)
		if k.Phase != Inside && i.WaitsFor(plan, k.Path) == "" {
			return fmt.Errorf("task %s does not say what it waits for", k.Path)
		}
		if k.Over || pl.n.Kind == eventlog.OnStop {
			continue
		}
		for p := pl.parent(); p.n.parent != nil; p = p.parent() {
			if o := i.Task(p.path); o != nil && o.Status == Failure && pl.n.attached {
				continue // it is stopped by the InstanceFailed that follows
			} else if o != nil && o.Status != Executing || o == nil && p.n.Kind != eventlog.Process {
				return fmt.Errorf("%s executes in %s, which does not", k.Path, p.path)
			}
		}
		if k.Phase == Inside || pl.n.attached {
			continue
		}
		for _, o := range running {
			if p := common(pl, o); p.n.Kind != eventlog.Parallel && p.n.Kind != eventlog.ForEach {
				return fmt.Errorf("%s and %s execute at once", k.Path, o.path)
			}
		}
		running = append(running, pl)
	}
	return nil
}

// common is the innermost node around both.
func common(a, b place) place {
	for a = a.parent(); a.n.parent != nil && !inside(b.path, a.path); {
		a = a.parent()
	}
	return a
}
