package audit

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/godagger/dagger/eventlog"
)

// delivery of a message to an instance in another partition.
type delivery struct {
	from int32 // partition of the key
	msg  uint64
	id   uint64 // hash
}

type deliver struct {
	told, taken int32
	partition   int32 // that took it last
	n           uint64
}

// subscription as its two sides see it.
type subscription struct {
	wanted, ended  bool // by the instance
	added, removed bool // by the key
	unsubscribed   bool // there was a SubscriptionRemoved
	partition      int32
	n              uint64 // of the event that wanted it, else of the one that added it
}

func (a *Auditor) activation(id string, run, act uint64, k eventlog.KeyRef) uint64 {
	return a.hash(id, strconv.FormatUint(run, 36), strconv.FormatUint(act, 36), k.Topic, k.Key, k.Value)
}

// crossing notes what the event tells other partitions.
func (p *partition) crossing(e *eventlog.Event) {
	for k, o := range e.Out {
		if o.To == p.index || o.To < 0 || o.To >= p.a.count {
			p.fail(e, "tells partition %d something", o.To)
			continue
		}
		r := route{p.index, o.To}
		p.a.told[r] = append(p.a.told[r], mark{int64(e.N), int32(k)})
		if o.Request.Type != eventlog.Ack {
			if want := eventlog.PartitionOfKey(o.Request.PartitionKey(), p.a.count); want != o.To {
				p.fail(e, "tells partition %d what belongs to partition %d", o.To, want)
			}
		}
		if o.Request.Type == eventlog.DeliverTo {
			p.delivered[o.To] = mark{int64(e.N), int32(k)}
			p.a.deliverTo(p.index, o.Request.Msg, o.Request.ID).told++
			if _, ok := p.live[p.a.activation(o.Request.ID, o.Request.Run, o.Request.Act, p.keyOf(e))]; !ok {
				p.fail(e, "gives message %d to instance %q under an activation (%d, %d) that is not subscribed", o.Request.Msg, o.Request.ID, o.Request.Run, o.Request.Act)
			}
		}
	}
}

func (a *Auditor) deliverTo(from int32, msg uint64, id string) *deliver {
	k := delivery{from, msg, a.hash(id)}
	d := a.deliveries[k]
	if d == nil {
		d = &deliver{}
		a.deliveries[k] = d
	}
	return d
}

// body counts how often instances handed a message back that they had taken, and how often
// it came.
func (a *Auditor) body(from int32, msg uint64) *deliver {
	k := delivery{from: from, msg: msg}
	d := a.bodies[k]
	if d == nil {
		d = &deliver{}
		a.bodies[k] = d
	}
	return d
}

// handBack notes that an instance hands back a message that it had taken.
func (p *partition) handBack(e *eventlog.Event, k eventlog.KeyRef, msg uint64) {
	d := p.a.body(eventlog.PartitionOf(k.Value, p.a.count), msg)
	d.told++
	d.partition, d.n = p.index, e.N
}

// taken notes that the event decides a delivery of message msg of the key value.
func (p *partition) taken(e *eventlog.Event, value string) {
	from := eventlog.PartitionOf(value, p.a.count)
	var d *deliver
	if from == p.index {
		if d = p.local[e.Msg]; d == nil {
			d = &deliver{}
			p.local[e.Msg] = d
		}
		if d.taken++; d.taken > d.told {
			p.fail(e, "message %d was taken %d times and given to %d instances here", e.Msg, d.taken, d.told)
		}
		return
	}
	d = p.a.deliverTo(from, e.Msg, e.ID)
	d.taken++
	d.partition, d.n = p.index, e.N
}

// Finish judges what crosses partitions, and ends the audit.
func (a *Auditor) Finish() Report {
	a.report.Moved = a.moved
	for _, p := range a.partitions {
		for id, i := range p.instances {
			if i.run > 0 {
				a.report.Instances++
			}
			if len(i.dropped) > 0 {
				a.violation(Violation{Partition: p.index, Offset: -1, ID: id, Text: fmt.Sprintf("message %d left it and was neither handed back nor dropped", i.dropped[0].msg)})
			}
		}
		for msg, m := range p.messages {
			if m.matched && m.back >= m.chosen && m.until == 0 {
				a.violation(Violation{Partition: p.index, Offset: -1, N: msg, Text: fmt.Sprintf("message %d was returned by everybody and is nowhere now", msg)})
			}
		}
	}
	a.forwards()
	if !a.moved {
		a.balance()
	}
	slices.SortStableFunc(a.report.First, func(x, y Violation) int {
		if x.Partition != y.Partition {
			return int(x.Partition) - int(y.Partition)
		}
		return int(int64(x.N) - int64(y.N))
	})
	return a.report
}

// forwards checks that every watermark of another partition is something that partition
// told, and when the log has settled that nothing told was left.
func (a *Auditor) forwards() {
	for r, l := range a.counted {
		told, k := a.told[r], 0
		for _, c := range l {
			for k < len(told) && told[k].less(c.mark) {
				k++
			}
			if (k == len(told) || told[k] != c.mark) && !(a.moved && k == len(told)) {
				a.violation(Violation{Partition: r.to, Offset: -1, N: c.at, Text: fmt.Sprintf("counted a request (%d.%d) that partition %d never told", c.n, c.index, r.from)})
			}
		}
	}
	if !a.o.Settled || a.moved {
		return
	}
	for r, l := range a.told {
		counted := a.counted[r]
		if last := l[len(l)-1]; len(counted) == 0 || counted[len(counted)-1].less(last) {
			a.violation(Violation{Partition: r.from, Offset: -1, N: uint64(last.n), Text: fmt.Sprintf("what it told partition %d (%d.%d) was never counted there", r.to, last.n, last.index)})
		}
	}
}

// balance compares both sides of deliveries and subscriptions.
func (a *Auditor) balance() {
	lost := a.o.Settled
	for k, d := range a.deliveries {
		switch {
		case d.taken > d.told:
			a.violation(Violation{Partition: d.partition, Offset: -1, N: d.n, Text: fmt.Sprintf("message %d of partition %d was taken %d times and told %d times", k.msg, k.from, d.taken, d.told)})
		case d.taken < d.told && lost:
			a.violation(Violation{Partition: k.from, Offset: -1, N: k.msg, Text: fmt.Sprintf("message %d was given to an instance %d times and decided there %d times", k.msg, d.told, d.taken)})
		}
	}
	for k, d := range a.bodies {
		switch {
		case d.taken > d.told:
			a.violation(Violation{Partition: k.from, Offset: -1, N: k.msg, Text: fmt.Sprintf("message %d came back %d times and was handed back %d times", k.msg, d.taken, d.told)})
		case d.taken < d.told && lost:
			a.violation(Violation{Partition: d.partition, Offset: -1, N: d.n, Text: fmt.Sprintf("message %d of partition %d was handed back %d times and came %d times", k.msg, k.from, d.told, d.taken)})
		}
	}
	for _, s := range a.subs {
		text := ""
		switch {
		case s.added && !s.wanted:
			text = "a subscription was added that no instance asked for"
		case s.unsubscribed && !s.ended:
			text = "a subscription was removed that its instance still has"
		case lost && s.wanted && !s.added:
			text = "a subscription never reached its key"
		case lost && s.ended && !s.removed:
			text = "a subscription that its instance ended still stands at its key"
		default:
			continue
		}
		a.violation(Violation{Partition: s.partition, Offset: -1, N: s.n, Text: text})
	}
	if !lost {
		return
	}
	for _, p := range a.partitions {
		for to, last := range p.delivered {
			if p.acked[to].less(last) {
				a.violation(Violation{Partition: p.index, Offset: -1, N: uint64(last.n), Text: fmt.Sprintf("deliveries to partition %d are not acknowledged", to)})
			}
		}
		for msg, d := range p.local {
			if d.taken < d.told {
				a.violation(Violation{Partition: p.index, Offset: -1, N: msg, Text: fmt.Sprintf("message %d was given to %d instances here and decided by %d", msg, d.told, d.taken)})
			}
		}
	}
}
