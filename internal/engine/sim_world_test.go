package engine

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

const (
	simApp      = "sim"
	simEventsID = "events#1"
	simRequests = "requests#1"
	simRefusing = "refusing" // a topic that refuses messages now and then
	simBase     = int64(1_700_000_000_000)
	simInterval = 20_000 // ms between two reads of the due index
)

// simEnv says what a world has and which faults happen in it, in 1/1000 of the occasions.
type simEnv struct {
	partitions int32
	workers    int
	instances  int
	keys       int
	seconds    int // of faults, before everything is let come to rest

	unknown  int // commit outcomes
	refuse   int // messages to simRefusing
	lost     int // replies of calls, of store applies, errors of reads
	late     int // publishes that land after their client gave up
	crash    int
	freeze   int
	move     int
	rewind   int
	wipe     int
	jump     int
	recreate int
	poison   int // events that a worker of version 1 can't fold
	kill     int // handlers that kill their worker
	stale    int // proofs of membership that are out of date
	cache    int64
	skew     int64
	hot      bool // many calls to one instance
	without  bool // the last worker has not the code of one definition
	limits   machine.Limits
}

// world drives workers, the log, the stores and the clock: one goroutine, one queue, and
// chance from a seed. The same seed gives the same run.
type world struct {
	env   simEnv
	rules simRules
	rng   *rand.Rand
	now   int64 // ms
	wall  int64 // what jumps add to the clock of all
	seq   uint64
	queue simQueue
	calm  bool // no more faults
	trace func(string)

	log      *simLog
	store    *memstore.Store
	plans    []*simPlan
	workers  []*simWorker
	assign   []int            // worker of each partition
	relayOf  map[TopicKey]int // worker of each relay
	offsets  map[TopicKey]int64
	clients  simClients
	units    map[string]*simUnit
	triggers []simAsked
	faults   []string
	tasks    map[simTask]*simTries
	// inInbox has the offset of an attempt's first good result in the requests, inboxEnd where
	// the requests ended when an owner began to read them.
	inInbox  map[simTask]int64
	inboxEnd map[simOwned]int64
	finished map[simTask]simProcess // which process has the good result of an attempt
	count    struct {
		steps, commits, fenced, unknown, crashes, events, calls, handlers, mended, ids int
	}
}

// simOwned is a time of a partition with one owner.
type simOwned struct {
	p     int32
	epoch uint64
}

// simProcess is a life of a worker.
type simProcess struct {
	worker string
	life   int
	at     int64 // when it had the result
}

// simRules are the rules that a run leaves out.
type simRules struct {
	machine machine.Rules
	owner   ownerRules
	noFence bool // 4: the log does not fence
	relayOn bool // 17: a relay goes on after an error
	direct  bool // 8: forwards take the short cut into an owner's queue
	noCAS   bool // 25: applies are not compared with the watermark
	noPool  bool // 10: results are not kept until their event was seen
}

type simItem struct {
	at  int64
	seq uint64
	f   func()
}

type simQueue []simItem

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simItem)) }
func (q *simQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// after does f in some milliseconds.
func (w *world) after(ms int64, f func()) {
	w.seq++
	heap.Push(&w.queue, simItem{w.now + max(ms, 0), w.seq, f})
}

func (w *world) chance(perMille int) bool { return w.rng.IntN(1000) < perMille }

// fault is chance while there are faults.
func (w *world) fault(perMille int) bool { return !w.calm && perMille > 0 && w.chance(perMille) }

func (w *world) between(from, to int64) int64 { return from + w.rng.Int64N(to-from+1) }

// delay is how long a message takes: mostly short, now and then long.
func (w *world) delay() int64 {
	if !w.calm && w.chance(30) {
		return w.between(50, 1500)
	}
	return w.between(0, 8)
}

func (w *world) gap() int64 {
	if w.chance(100) {
		return w.between(1, 3)
	}
	return 0
}

func (w *world) tracef(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%8d ", w.now) + fmt.Sprintf(format, args...))
	}
}

// violation notes a broken promise; each kind once.
func (w *world) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.tracef("VIOLATION %s", text)
	if len(w.faults) < 50 {
		w.faults = append(w.faults, text)
	}
}

// newWorld is a world at its beginning.
func newWorld(seed uint64, env simEnv, rules simRules, trace func(string)) *world {
	w := &world{env: env, rules: rules, rng: rand.New(rand.NewPCG(seed, 0)), trace: trace,
		relayOf: map[TopicKey]int{}, offsets: map[TopicKey]int64{}, units: map[string]*simUnit{}, tasks: map[simTask]*simTries{},
		inInbox: map[simTask]int64{}, inboxEnd: map[simOwned]int64{}, finished: map[simTask]simProcess{}}
	w.rules.machine.Limits = env.limits
	w.log = newSimLog(w)
	w.store = memstore.New(projection.Identity{App: simApp, Partitions: env.partitions}, memstore.Options{History: 8})
	w.plans = simPlans()
	w.count.ids = env.instances
	for p := range env.partitions {
		w.assign = append(w.assign, int(p)%env.workers)
	}
	for _, tk := range simRelays {
		w.relayOf[tk] = w.rng.IntN(env.workers)
		w.log.topic(tk.Topic)
	}
	for _, name := range []string{simRefusing, "out"} {
		w.log.topic(name)
	}
	for k := range env.workers {
		wk := &simWorker{w: w, index: k, view: make([]bool, env.partitions), version: 2}
		if env.poison > 0 && k == 1 {
			wk.version = 1
		}
		if env.without && k == 2 {
			wk.without = "tasks"
		}
		if env.skew > 0 {
			wk.skew = w.between(-env.skew, env.skew)
		}
		w.workers = append(w.workers, wk)
	}
	return w
}

// run lets the world go on for its time, then until it is at rest, and audits it.
func (w *world) run() {
	for _, wk := range w.workers {
		wk.boot()
	}
	w.every(40, 400, w.userMessage)
	w.every(80, 1200, w.userTrigger)
	w.every(20, 250, w.clientCall)
	w.every(50, 500, w.clientsAgain)
	w.every(20, 300, w.worldFault)
	w.until(int64(w.env.seconds)*1000, nil)
	w.rest()
	w.audit()
}

// every does f again and again, also in a calm world.
func (w *world) every(from, to int64, f func()) {
	w.after(w.between(from, to), func() {
		f()
		w.every(from, to, f)
	})
}

// until goes on to a time, or until done.
func (w *world) until(at int64, done func() bool) bool {
	for len(w.queue) > 0 && w.queue[0].at <= at && len(w.faults) == 0 {
		x := heap.Pop(&w.queue).(simItem)
		w.now = x.at
		w.count.steps++
		x.f()
		if done != nil && w.count.steps%200 == 0 && done() {
			return true
		}
	}
	w.now = max(w.now, at)
	return false
}

// rest ends the faults and waits until nothing is under way any more.
func (w *world) rest() {
	w.calm = true
	w.tracef("---- calm ----")
	for _, wk := range w.workers {
		wk.frozen = 0
		if !wk.up {
			wk.boot()
		}
		wk.see()
		wk.pool.unpark(simContext)
		wk.work()
	}
	// The last crashes, when nobody sends anything any more: what is owed must be in the log.
	for _, wk := range w.workers {
		if w.chance(400) {
			w.after(w.between(0, 3000), wk.crash)
		}
	}
	quiet := 0
	if !w.until(w.now+600_000, func() bool {
		if w.busy() == "" {
			quiet++
		} else {
			quiet = 0
		}
		return quiet >= 4
	}) && len(w.faults) == 0 {
		w.violation("the world does not come to rest: %s", w.busy())
	}
}

// busy says what is still under way; "" = nothing.
func (w *world) busy() string {
	if s := w.clients.busy(w); s != "" {
		return s
	}
	for p, k := range w.assign {
		r := w.workers[k].runners[int32(p)]
		if r == nil {
			return fmt.Sprintf("partition %d has no owner", p)
		}
		if s := r.busy(); s != "" {
			return fmt.Sprintf("partition %d: %s", p, s)
		}
	}
	for _, tk := range simRelays {
		if w.offsets[tk] < w.log.topics[tk.Topic].end {
			return fmt.Sprintf("relay %v: committed %d, end %d", tk, w.offsets[tk], w.log.topics[tk.Topic].end)
		}
	}
	for _, wk := range w.workers {
		if wk.pool == nil {
			return fmt.Sprintf("worker %d is down", wk.index)
		}
		if n := len(wk.pool.jobs); n > 0 {
			return fmt.Sprintf("worker %d has %d jobs", wk.index, n)
		}
	}
	return ""
}

// wakeReaders tells the owners of a partition that its inbox has something.
func (w *world) wakeReaders(p int32) {
	for _, wk := range w.workers {
		if r := wk.runners[p]; r != nil {
			r.readLater()
		}
	}
}

// worldFault lets one thing go wrong, or the group decide something.
func (w *world) worldFault() {
	if w.calm {
		return
	}
	wk := w.workers[w.rng.IntN(len(w.workers))]
	p := int32(w.rng.IntN(int(w.env.partitions)))
	if w.chance(300) {
		wk.see()
	}
	switch {
	case w.fault(w.env.move):
		w.assign[p] = w.rng.IntN(len(w.workers))
		w.tracef("p%d is assigned to w%d", p, w.assign[p])
	case w.fault(w.env.move):
		w.relayOf[simRelays[w.rng.IntN(len(simRelays))]] = wk.index
	case w.fault(w.env.crash):
		wk.crash()
	case w.fault(w.env.freeze):
		wk.frozen = w.now + w.between(200, 8000)
		w.tracef("w%d freezes until %d", wk.index, wk.frozen)
	case w.fault(w.env.rewind):
		mark := w.store.Rewind(p, 1+w.rng.IntN(6))
		w.tracef("the store of p%d falls back to %d", p, mark.N)
	case w.fault(w.env.wipe):
		w.store.Wipe(p)
		w.tracef("the store of p%d is wiped", p)
	case w.fault(w.env.jump):
		w.jump()
	case w.fault(w.env.recreate):
		w.recreate()
	}
}

// jump moves the clock of one worker, or of all.
func (w *world) jump() {
	if w.chance(300) {
		w.wall += w.between(3600_000, 30*3600_000)
		w.tracef("the clocks jump by hours")
	} else {
		wk := w.workers[w.rng.IntN(len(w.workers))]
		wk.skew = w.between(-20_000, 20_000)
		w.tracef("the clock of w%d jumps to %d", wk.index, wk.skew)
	}
	for _, wk := range w.workers {
		for _, p := range wk.partitions() {
			wk.runners[p].wake()
		}
	}
}

// recreate deletes a topic that was relayed to its end and makes it anew.
func (w *world) recreate() {
	name := simRelays[w.rng.IntN(len(simRelays))].Topic
	for _, tk := range simRelays {
		if tk.Topic == name && w.offsets[tk] < w.log.topics[name].end {
			return
		}
	}
	for _, wk := range w.workers {
		for _, r := range wk.relays {
			if r.step.tk.Topic == name {
				r.close()
			}
		}
	}
	w.log.topics[name].recreate()
	for _, tk := range simRelays {
		if tk.Topic == name {
			w.offsets[tk] = 0
		}
	}
	w.tracef("topic %s is made anew", name)
}

var simContext = context.Background()

// simPanics says whether a worker of version 1 can't fold the event.
func simPanics(perMille int) func(*eventlog.Event) {
	return func(e *eventlog.Event) {
		h := uint32(2166136261)
		for _, c := range fmt.Sprintf("%s/%d/%s", e.ID, e.Seq, e.Type) {
			h = (h ^ uint32(c)) * 16777619
		}
		if int((h>>8)%1000) < perMille {
			panic("version 1 does not know this: " + strings.ToLower(string(e.Type)))
		}
	}
}
