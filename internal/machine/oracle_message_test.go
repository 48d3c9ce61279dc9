package machine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// message is one of a topic, of one value of a key.
type message struct {
	key     eventlog.KeyRef
	offset  int64
	expires int64
}

// copied is a message that an instance keeps; sole says that nobody else was given it.
type copied struct {
	*message
	sole bool
}

// oracleWorld has what instances share: the clock, and the messages that nobody took yet.
type oracleWorld struct {
	now       int64
	limit     int       // messages of one key that an instance keeps
	instances []*oracle // in the order of their start
	waiters   map[eventlog.KeyRef][]*waits
	kept      map[eventlog.KeyRef][]*message
	letters   []string
	queue     []func() // what instances and keys tell each other, in order
}

// waits is an instance that wants the messages of a key.
type waits struct {
	o     *oracle
	alone bool // what it gets nobody else does
	given int
}

func (w *oracleWorld) letter(m *message) {
	w.letters = append(w.letters, fmt.Sprintf("%s=%s %d", m.key.Key, m.key.Value, m.offset))
}

// settle lets everything that was told arrive.
func (w *oracleWorld) settle() {
	for len(w.queue) > 0 {
		f := w.queue[0]
		w.queue = w.queue[1:]
		f()
	}
}

// arrive gives a message to all that wait for its key, or to one of them, or keeps it.
func (w *oracleWorld) arrive(m *message, to []*waits) {
	if len(to) == 0 {
		w.kept[m.key] = append(w.kept[m.key], m)
		slices.SortFunc(w.kept[m.key], func(a, b *message) int { return cmp.Compare(a.offset, b.offset) })
		return
	}
	if slices.ContainsFunc(to, func(x *waits) bool { return x.alone }) {
		to = []*waits{slices.MinFunc(to, func(a, b *waits) int { return cmp.Compare(a.given, b.given) })}
		to[0].given++
	}
	refused := 0
	for _, x := range to {
		w.queue = append(w.queue, func() {
			if x.o.subs[m.key] == x && x.o.deliver(copied{m, len(to) == 1}) {
				return
			}
			w.leave(x, m.key) // it has just stopped waiting
			if refused++; refused == len(to) {
				w.back(m)
			}
		})
	}
}

func (w *oracleWorld) leave(x *waits, k eventlog.KeyRef) {
	w.waiters[k] = slices.DeleteFunc(w.waiters[k], func(y *waits) bool { return y == x })
}

// keeps is how many messages of a key the instance keeps.
func (o *oracle) keeps(k eventlog.KeyRef) (n int) {
	for _, c := range o.inbox {
		if c.key == k {
			n++
		}
	}
	return n
}

// deliver is a message that comes to the instance. When it has too many, it does not wait for
// more until there is room.
func (o *oracle) deliver(c copied) bool {
	if o.keeps(c.key) == o.world.limit {
		delete(o.subs, c.key)
		return false
	}
	o.inbox = append(o.inbox, &c)
	slices.SortStableFunc(o.inbox, func(a, b *copied) int { return cmp.Compare(a.offset, b.offset) })
	o.settle()
	return true
}

// back is a message that an instance has not taken.
func (w *oracleWorld) back(m *message) {
	if m.expires <= w.now {
		w.letter(m)
		return
	}
	w.arrive(m, w.waiters[m.key])
}

// listening is a Listen where it stands in the instance.
type listening struct {
	spot
	early bool // it was not reached
	again bool // it has completed, and works on later messages
}

func (l listening) key(o *oracle) eventlog.KeyRef {
	return eventlog.KeyRef{Topic: l.n.Topic, Key: l.n.Key, Value: o.value(l.path)}
}

// listeners are those that may get messages, in the order of the plan.
func (o *oracle) listeners() (l []listening) {
	if o.whole.ended() || o.stopping || o.flowEnded {
		return nil
	}
	var ahead, here func(v spot)
	ahead = func(v spot) { // not reached yet
		switch v.n.Kind {
		case eventlog.Listen:
			l = append(l, listening{spot: v, early: true})
		case eventlog.ForEach:
		case eventlog.Dynamic:
			for k := range v.n.Nodes[0].Nodes {
				c := &v.n.Nodes[0].Nodes[k]
				ahead(spot{c, v.path + "[]/" + c.name()})
			}
		default:
			for _, c := range o.inside(v) {
				ahead(c)
			}
		}
	}
	here = func(v spot) { // reached, and not ended
		itself, collect := o.handles(v)
		switch {
		case v.n.Kind == eventlog.Listen:
			l = append(l, listening{spot: v})
		case v.n.Kind == eventlog.Decide && itself, v.n.Kind == eventlog.Dynamic && itself:
			ahead(v)
		case collect:
		default:
			passed := false
			for _, c := range o.inside(v) {
				sequence := v.n.Kind == eventlog.Process || v.n.Kind == eventlog.Dynamic
				switch {
				case o.status[c.path] == Executing:
					here(c)
					passed = true
				case sequence && passed:
					ahead(c)
				}
			}
		}
	}
	here(o.root())
	for path, r := range o.results {
		n := o.plan.Node(strings.TrimRight(path, "#!"))
		if n.Kind == eventlog.Listen && n.Reprocess && r.ok && o.over[path] == nil && o.runs(path) {
			l = append(l, listening{spot: spot{n, path}, again: true})
		}
	}
	for path, a := range o.over {
		if a.status == Executing && o.runs(path) {
			l = append(l, listening{spot: spot{a.n, path}})
		}
	}
	slices.SortFunc(l, func(a, b listening) int {
		if a.n != b.n {
			return cmp.Compare(slices.Index(o.plan.listening, a.n), slices.Index(o.plan.listening, b.n))
		}
		return strings.Compare(a.path, b.path)
	})
	return l
}

// runs says that all runs of a ForEach that a node is in work.
func (o *oracle) runs(path string) bool {
	for at := range len(path) {
		if path[at] == ']' {
			run := path[:at+1]
			if o.plan.Node(run[:strings.LastIndexByte(run, '[')]).Kind == eventlog.ForEach && o.status[run] != Executing {
				return false
			}
		}
	}
	return true
}

// wants are the keys that the instance waits for.
func (o *oracle) wants() (l []eventlog.KeyRef) {
	for _, x := range o.listeners() {
		if k := x.key(o); k.Value != "" && !slices.Contains(l, k) && (!x.early || !x.n.One || x.n.SkipTo != "") {
			l = append(l, k)
		}
	}
	return l
}

// subscribe tells the keys what the instance waits for now, and gives back what it kept of others.
func (o *oracle) subscribe() {
	w, wants := o.world, o.wants()
	for _, k := range slices.SortedFunc(maps.Keys(o.subs), compareKeys) {
		if x := o.subs[k]; !slices.Contains(wants, k) {
			delete(o.subs, k)
			w.queue = append(w.queue, func() { w.leave(x, k) })
		}
	}
	for _, k := range wants {
		if o.subs[k] == nil && o.keeps(k) < o.world.limit {
			x := &waits{o: o, alone: slices.ContainsFunc(o.plan.listening, func(n *Node) bool { return n.One && n.Topic == k.Topic && n.Key == k.Key })}
			o.subs[k] = x
			w.queue = append(w.queue, func() { w.wait(x, k) })
		}
	}
	kept := o.inbox[:0:0]
	for _, c := range o.inbox {
		switch {
		case slices.Contains(wants, c.key):
			kept = append(kept, c)
		case c.sole:
			w.queue = append(w.queue, func() { w.back(c.message) })
		default:
			w.letter(c.message)
		}
	}
	o.inbox = kept
}

// wait lets an instance wait at a key: what was kept there is its own.
func (w *oracleWorld) wait(x *waits, k eventlog.KeyRef) {
	w.waiters[k] = append(w.waiters[k], x)
	kept := w.kept[k]
	w.kept[k] = nil
	for _, m := range kept {
		if m.expires <= w.now {
			w.letter(m)
		} else {
			w.arrive(m, []*waits{x})
		}
	}
}

// settle lets listeners take what came for them, the oldest first, and the flow skip to those
// that were not reached.
func (o *oracle) settle() {
	o.subscribe()
	for o.takes() || o.skips() {
		o.subscribe()
	}
}

func (o *oracle) takes() bool {
	if o.stale {
		return false // its key may be about to move
	}
	for at, c := range o.inbox {
		for _, again := range []bool{false, true} {
			for _, l := range o.listeners() {
				a := o.activity(l.path)
				if l.early || l.again != again || l.key(o) != c.key || !again && a.phase != Waiting {
					continue
				}
				if again {
					a = &activity{n: l.n}
					o.over[l.path] = a
				}
				a.run(1, o.now())
				a.msg = c.message
				o.inbox = slices.Delete(o.inbox, at, at+1)
				return true
			}
		}
	}
	return false
}

// skips lets the flow skip to the first listener that a message came for too early.
func (o *oracle) skips() bool {
	if o.stale {
		return false
	}
	for _, c := range o.inbox {
		for _, l := range o.listeners() {
			if l.early && l.n.SkipTo != "" && l.key(o) == c.key {
				if o.skipTo(l.spot) {
					return true
				}
				break // the message is for this one, as long as it may be reached
			}
		}
	}
	return false
}

// expire is the end of a message that was kept in the instance.
func (o *oracle) expire(c *copied) {
	o.world.letter(c.message)
	o.inbox = slices.DeleteFunc(o.inbox, func(x *copied) bool { return x == c })
}

// dues are the tasks and nodes with a time.
func (o *oracle) dues() map[string]int64 {
	l := map[string]int64{}
	if o.whole.ended() {
		return l
	}
	for path := range o.times {
		l[path] = o.deadlineOf(path)
	}
	for _, m := range []map[string]*activity{o.acts, o.over, o.monitors, o.stops} {
		for path, a := range m {
			if a.status == Executing {
				l[path] = o.dueOf(path, a)
			}
		}
	}
	maps.DeleteFunc(l, func(_ string, at int64) bool { return at == 0 })
	return l
}
