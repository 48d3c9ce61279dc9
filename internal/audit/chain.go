package audit

import (
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// answersLast is how long answers to calls are remembered at least: a day, and a little for clocks.
const answersLast = 25 * 3600_000

// life is what a partition knows of an id: from the first event that changed that on, until
// nothing of it is remembered.
type life struct {
	last     uint64 // event that changed it
	answered int64  // when a call to it was answered last
	over     bool   // it may be forgotten: the next event may be the first of another life
}

// chain is whether the events of an owner name the ones before them. Logs are kept for years,
// and workers are updated one after the other: an owner that never does is an older one.
type chain struct {
	named   bool
	missing *Violation // the first event that should have named one, until that is known
}

// chained checks that an event, and each refused call in it, names the event before it that
// changed what the partition knows of the instance. What the event does is folded already.
func (p *partition) chained(e *eventlog.Event) {
	if e.Type == eventlog.PartitionOwned {
		p.chain = chain{}
	}
	own := ""
	if e.ID != "" && changes(e) {
		own = e.ID
		p.follow(e, own, "", e.Prev)
	} else if e.Prev > 0 {
		p.fail(e, "names event %d as the one before it, and changes no instance", e.Prev)
	}
	if e.Pos != nil {
		for _, r := range e.Pos.Refused {
			call := fmt.Sprintf("the refused call %s to instance %q ", r.Request, r.ID)
			switch {
			case r.ID != own:
				p.follow(e, r.ID, call, r.Prev)
			case r.Prev > 0:
				p.fail(e, "%snames event %d as the one before it, which the event does", call, r.Prev)
			}
		}
		for _, r := range e.Pos.Refused { // a second call names the same one as the first
			p.changed(e, r.ID, true)
		}
	}
	if own != "" {
		p.changed(e, own, e.Request != "" && e.Seq > 0)
	}
}

// changes says whether an event changes what is known of its instance.
func changes(e *eventlog.Event) bool {
	switch e.Type {
	case eventlog.RequestHeld, eventlog.RequestReleased, eventlog.AnswersForgotten, eventlog.StopKept, eventlog.StopExpired:
		return true
	}
	return e.Seq > 0
}

// follow compares the event that is named as the one before with the one that was.
func (p *partition) follow(e *eventlog.Event, id, what string, prev uint64) {
	if prev > 0 && !p.chain.named {
		p.chain.named = true
		if v := p.chain.missing; v != nil {
			p.chain.missing = nil
			p.a.violation(*v)
		}
	}
	l := p.lives[p.a.hash(id)]
	if prev == l.last || prev == 0 && l.over {
		return
	}
	text := fmt.Sprintf("%s: %snames event %d as the one before it, that was %d", e.Type, what, prev, l.last)
	if prev == 0 {
		text = fmt.Sprintf("%s: %sdoes not name the event before it, %d", e.Type, what, l.last)
	}
	v := Violation{Partition: p.index, Offset: p.offset, N: e.N, ID: id, Text: text}
	switch {
	case prev > 0 || p.chain.named:
		p.a.violation(v)
	case p.chain.missing == nil:
		p.chain.missing = &v
	}
}

// changed notes that an event changed what is known of an id.
func (p *partition) changed(e *eventlog.Event, id string, answers bool) {
	h := p.a.hash(id)
	l := life{last: e.N, answered: p.lives[h].answered}
	if answers {
		l.answered = e.At
	}
	switch e.Type {
	case eventlog.AnswersForgotten, eventlog.StopExpired, eventlog.InstanceDeleted:
		i := p.instances[id]
		l.over = id == e.ID && (i == nil || i.run == 0 && i.seq == 0) && len(p.stops[id]) == 0 && l.answered <= e.At-answersLast
	}
	p.lives[h] = l
}
