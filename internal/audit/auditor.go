package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/maphash"

	"github.com/godagger/dagger/eventlog"
)

// Auditor checks events that are given to it: those of a partition in order, partitions in
// any order. It is for tests that have no log; others use Log.
type Auditor struct {
	o          Options
	partitions map[int32]*partition
	count      int32
	report     Report
	moved      bool
	seed       maphash.Seed

	// What one partition says of another, judged at the end.
	told       map[route][]mark        // requests in events, in order
	counted    map[route][]noted       // watermarks of forwards, in order
	deliveries map[delivery]*deliver   // to instances elsewhere
	bodies     map[delivery]*deliver   // messages handed back
	subs       map[uint64]subscription // by activation and key
	sent       map[string]map[uint64]*sent

	deadLetters letters
}

// mark is a position within what a partition tells.
type mark struct {
	n     int64
	index int32
}

func (m mark) less(o mark) bool { return m.n < o.n || m.n == o.n && m.index < o.index }

type noted struct {
	mark
	at uint64 // event that notes it
}

type route struct{ from, to int32 }

// partition is what the auditor keeps of a partition.
type partition struct {
	a     *Auditor
	index int32

	offset    int64 // of the event at hand
	n         uint64
	at        int64
	topicID   string
	position  int64
	forwarded uint64
	sources   map[eventlog.Source]eventlog.Mark
	plans     map[string]*plan
	instances map[string]*instance
	stops     map[string][]keptStop // by instance
	refused   map[uint64]refusal
	lives     map[uint64]life // by id
	chain     chain
	live      map[uint64]struct{} // subscriptions at their key
	messages  map[uint64]*message
	arrived   map[uint64]struct{}
	acked     map[int32]mark
	delivered map[int32]mark // last delivery told
	local     map[uint64]*deliver
}

type refusal struct {
	at   int64
	made bool
}

// plan is what the auditor understands of a plan.
type plan struct {
	name  string
	root  []node
	nodes map[string]*node // by path
	known bool             // only kinds that it knows: the order of tasks can be judged
}

// New begins an audit of an application with so many partitions.
func New(partitions int32, o Options) *Auditor {
	if o.Limit == 0 {
		o.Limit = 100
	}
	if o.Buffered == 0 {
		o.Buffered = bufferLimit
	}
	a := &Auditor{
		o: o, partitions: map[int32]*partition{}, count: partitions, seed: maphash.MakeSeed(),
		told: map[route][]mark{}, counted: map[route][]noted{}, deliveries: map[delivery]*deliver{}, bodies: map[delivery]*deliver{},
		subs: map[uint64]subscription{}, sent: map[string]map[uint64]*sent{},
		deadLetters: letters{},
	}
	a.report.Partitions = partitions
	for _, t := range o.Topics {
		a.sent[t] = map[uint64]*sent{}
	}
	return a
}

// Report is what was found so far.
func (a *Auditor) Report() Report { return a.report }

func (a *Auditor) violation(v Violation) {
	a.report.Violations++
	if len(a.report.First) < a.o.Limit {
		a.report.First = append(a.report.First, v)
	}
}

// Record checks a record of the events topic.
func (a *Auditor) Record(partition int32, offset int64, value []byte) {
	if eventlog.IsBarrier(value) {
		return
	}
	var e eventlog.Event
	if err := eventlog.DecodeEvent(value, &e); err != nil {
		a.violation(Violation{Partition: partition, Offset: offset, Text: "is no event: " + err.Error()})
		return
	}
	a.Event(partition, offset, &e)
}

// Event checks an event; it does not keep it.
func (a *Auditor) Event(index int32, offset int64, e *eventlog.Event) {
	if a.o.Each != nil {
		a.o.Each(index, offset, e)
	}
	p := a.partitions[index]
	if p == nil {
		p = &partition{
			a: a, index: index, sources: map[eventlog.Source]eventlog.Mark{}, plans: map[string]*plan{},
			instances: map[string]*instance{}, stops: map[string][]keptStop{}, refused: map[uint64]refusal{}, lives: map[uint64]life{}, live: map[uint64]struct{}{},
			messages: map[uint64]*message{}, arrived: map[uint64]struct{}{}, acked: map[int32]mark{},
			delivered: map[int32]mark{}, local: map[uint64]*deliver{},
		}
		a.partitions[index] = p
	}
	a.report.Events++
	p.event(offset, e)
}

func (p *partition) fail(e *eventlog.Event, format string, args ...any) {
	p.a.violation(Violation{Partition: p.index, Offset: p.offset, N: e.N, ID: e.ID, Text: string(e.Type) + ": " + fmt.Sprintf(format, args...)})
}

// event is one event after the other; the order of checks is that of the engine's fold.
func (p *partition) event(offset int64, e *eventlog.Event) {
	p.offset = offset
	if e.N != p.n+1 {
		p.fail(e, "follows event %d", p.n)
	}
	p.n = e.N
	if e.At < p.at {
		p.fail(e, "its time %d is before %d, that of an earlier event", e.At, p.at)
	}
	p.at = max(p.at, e.At)
	if e.Type == eventlog.PlanUsed {
		p.plan(e)
	}
	p.crossing(e)
	p.positions(e)
	if e.Seq > 0 {
		p.instance(e)
	} else {
		p.about(e)
	}
	p.key(e)
	p.sentBy(e)
	p.chained(e)
}

func (p *partition) plan(e *eventlog.Event) {
	if p.plans[e.Plan] != nil {
		p.fail(e, "plan %s a second time", e.Plan)
		return
	}
	if sum := sha256.Sum256(e.PlanData); hex.EncodeToString(sum[:8]) != e.Plan {
		p.fail(e, "plan %s does not have this hash", e.Plan)
	}
	var data struct {
		Name  string `json:"name"`
		Nodes []node `json:"nodes"`
	}
	if err := json.Unmarshal(e.PlanData, &data); err != nil {
		p.fail(e, "plan %s can't be read: %v", e.Plan, err)
		return
	}
	l := &plan{name: data.Name, root: data.Nodes, nodes: map[string]*node{}}
	l.known = l.index(l.root)
	p.plans[e.Plan] = l
}

// positions checks what the owner says it has consumed and told.
func (p *partition) positions(e *eventlog.Event) {
	pos := e.Pos
	if pos == nil {
		return
	}
	if pos.TopicID == p.topicID && pos.Offset < p.position {
		p.fail(e, "the consumed position went back from %d to %d", p.position, pos.Offset)
	}
	if pos.TopicID != p.topicID {
		p.position = 0
	}
	p.topicID, p.position = pos.TopicID, max(p.position, pos.Offset)
	if pos.Forwarded < p.forwarded {
		p.fail(e, "the forward cursor went back from %d to %d", p.forwarded, pos.Forwarded)
	}
	if pos.Forwarded > e.N {
		p.fail(e, "the forward cursor %d is ahead of the event", pos.Forwarded)
	}
	p.forwarded = max(p.forwarded, pos.Forwarded)
	for _, s := range pos.Sources {
		if have, ok := p.sources[s.Source]; ok && s.Mark.Compare(have) <= 0 {
			p.fail(e, "the watermark of %s did not rise: %d.%d after %d.%d", sourceName(s.Source), s.Pos, s.Index, have.Pos, have.Index)
		}
		p.sources[s.Source] = s.Mark
		if s.TopicID == "" {
			r := route{s.Partition, p.index}
			p.a.counted[r] = append(p.a.counted[r], noted{mark{s.Pos, int32(s.Index)}, e.N})
		}
	}
	for _, r := range pos.Refused {
		h := p.a.hash(r.ID, r.Request)
		if i := p.instances[r.ID]; i != nil && r.Made != 0 && i.applied(p.a.hash(r.Request)) {
			p.fail(e, "call %s to instance %q was applied and then refused %q", r.Request, r.ID, r.Answer)
		}
		p.refused[h] = refusal{e.At, r.Made != 0}
	}
}

func sourceName(s eventlog.Source) string {
	if s.TopicID == "" {
		return fmt.Sprintf("partition %d", s.Partition)
	}
	return fmt.Sprintf("topic %s partition %d key %s", s.TopicID, s.Partition, s.Key)
}

// hash stands for a tuple of strings; 64 bits are enough to tell millions apart.
func (a *Auditor) hash(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	for _, s := range parts {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}
