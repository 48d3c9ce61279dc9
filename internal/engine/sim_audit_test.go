package engine

import (
	"fmt"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

// audit judges a world that has come to rest, mostly from its log alone.
func (w *world) audit() {
	if len(w.faults) > 0 {
		return
	}
	a := audit.New(w.env.partitions, audit.Options{Settled: true, Buffered: w.env.limits.Buffer})
	w.eachEvent(func(p int32, offset int64, e *eventlog.Event) { a.Event(p, offset, e) })
	for _, v := range a.Finish().First {
		w.violation("%s", v)
	}
	w.auditCalls()
}

// eachEvent gives the committed events, partition by partition.
func (w *world) eachEvent(f func(p int32, offset int64, e *eventlog.Event)) {
	for p := range w.log.parts {
		for _, x := range w.log.parts[p].events {
			if x.state == simCommitted && x.event != nil {
				f(int32(p), x.offset, x.event)
			}
		}
	}
}

// auditCalls compares what callers were told with what the log says.
func (w *world) auditCalls() {
	applied := map[string]int{}
	w.eachEvent(func(_ int32, _ int64, e *eventlog.Event) {
		if e.Request != "" {
			applied[e.Request]++
		}
	})
	for _, c := range w.clients.calls {
		n := applied[c.request.Request]
		switch {
		case n > 1:
			w.violation("call %s was applied %d times", c.request.Request, n)
		case c.answer == "ok" && n == 0:
			w.violation("call %s %s of %s was answered ok and is not in the log", c.request.Request, c.request.Type, c.request.ID)
		case c.done && c.answer != "ok" && c.answer != "expired" && n > 0:
			w.violation("call %s %s of %s was answered %q although it was applied", c.request.Request, c.request.Type, c.request.ID, c.answer)
		}
	}
}

var _ = fmt.Sprint
