package machine

import (
	"flag"
	"fmt"
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
	seedsFlag = flag.Int("seeds", lawSeeds, "histories that TestLaws runs")
	firstFlag = flag.Uint64("first", 1, "seed of the first history of TestOracle")
	flowsFlag = flag.Int("flows", oracleFlows, "histories that TestOracle runs")
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
		widen(h.r, nodes, 1)
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
