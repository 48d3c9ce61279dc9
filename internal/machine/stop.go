package machine

import "github.com/godagger/dagger/eventlog"

// stop ends an instance. Where nodes that it is in have on-stop handlers these run first; a
// second stop does not wait for them.
func (t *Turn) stop(i *Instance, e *eventlog.Event) {
	e.Type = eventlog.InstanceStopped
	plan := t.S.Plans[i.Plan]
	if !i.Stopping && plan != nil {
		f := t.flow(plan, i, e)
		for _, k := range i.Tasks {
			pl, ok := plan.place(k.Path)
			if !ok || k.Status != Executing {
				continue
			}
			for n := range pl.n.Attached {
				if pl.n.Attached[n].Kind == eventlog.OnStop {
					f.start(pl.attachment(n))
				}
			}
		}
		if len(e.Starts) > 0 {
			e.Type = eventlog.InstanceStopping
			for _, k := range i.Tasks {
				if k.Status == Executing {
					f.noteAt(k.Path, k.Kind, Stopped)
				}
			}
			t.transit(i, e)
			return
		}
	}
	t.transit(i, t.ending(i, e))
}

// ending gives an event that ends an instance the time at which that is forgotten.
func (t *Turn) ending(i *Instance, e *eventlog.Event) *eventlog.Event {
	if plan := t.S.Plans[i.Plan]; plan != nil && plan.Retain > 0 {
		e.Due = max(t.Now, t.S.At) + plan.Retain
	}
	return e
}

// outlived deletes an instance whose time after its end is over.
func (t *Turn) outlived(i *Instance, r *eventlog.Request) string {
	if i == nil || i.Run != r.Run || !i.Terminal() || i.DeleteAt != r.Expires || i.DeleteAt > max(t.Now, t.S.At) {
		return Ignored
	}
	t.transit(i, &eventlog.Event{Type: eventlog.InstanceDeleted})
	return OK
}
