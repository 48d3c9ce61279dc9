package machine

import (
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

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
	if e.Request != "" && e.Type != eventlog.StopKept { // that is applied later
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
