package engine

import (
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// limit is a task whose handlers may not all run at once; see machine.Node.Concurrency.
type limit struct{ plan, path string }

type limited struct {
	running int
	queue   []*poolJob // wait for one of these to end
}

// limitOf is the limit that a job counts against, and how many may run; 0 = there is none.
func limitOf(code *Code, x *poolJob) (limit, int) {
	path := machine.Pattern(x.id.key.work.Path)
	if n := code.Plan.Task(path); n != nil && n.Kind != eventlog.ForEach {
		return limit{x.job.plan, path}, n.Concurrency
	}
	return limit{}, 0
}

// admit sets a job aside whose task has as many handlers at work as it may. Needs mu.
func (p *pool) admit(code *Code, x *poolJob) bool {
	at, most := limitOf(code, x)
	if most == 0 {
		return true
	}
	l := p.limits[at]
	if l == nil {
		l = &limited{}
		p.limits[at] = l
	}
	if l.running >= most {
		l.queue = append(l.queue, x)
		return false
	}
	l.running++
	return true
}

// leave lets the next job of the task run, before all others: it has waited for longer.
func (p *pool) leave(code *Code, x *poolJob) {
	at, most := limitOf(code, x)
	if most == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.limits[at]
	l.running--
	for len(l.queue) > 0 {
		next := l.queue[0]
		l.queue = l.queue[1:]
		if !next.unwanted {
			p.queue = slices.Insert(p.queue, 0, next)
			return
		}
	}
	if l.running == 0 {
		delete(p.limits, at)
	}
}
