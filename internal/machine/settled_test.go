package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// quiet lets everything that is on its way arrive.
func (h *history) quiet() error {
	for range 100_000 {
		busy := false
		for _, p := range h.parts {
			for len(h.pending[p.s.Partition]) > 0 {
				busy = true
				if err := h.batch(p); err != nil {
					return err
				}
			}
		}
		_, _, more, err := h.step()
		if err := h.wrong(err); err != nil {
			return err
		}
		if !more && !busy {
			if err := h.same(); err != nil {
				return err
			}
			return h.settled()
		}
	}
	return fmt.Errorf("never quiet")
}

// settled checks what must hold when nothing is on its way.
func (h *history) settled() error {
	type sub struct {
		key eventlog.KeyRef
		id  string
		run uint64
		act uint64
	}
	subs, waiters := map[sub]int{}, map[sub]int{}
	waits := map[eventlog.KeyRef]bool{}
	for _, p := range h.parts {
		if len(p.s.Matched) > 0 {
			return fmt.Errorf("partition %d keeps matched messages that all have acknowledged: %s", p.s.Partition, mustMarshal(p.s.Matched))
		}
		for key, k := range p.s.Keys {
			for _, x := range k.Waiters {
				waiters[sub{key, x.ID, x.Run, x.Act}]++
			}
			if len(k.Kept) > 0 && len(k.Waiters) > 0 {
				return fmt.Errorf("key %v keeps %d messages although %d wait", key, len(k.Kept), len(k.Waiters))
			}
			for _, m := range k.Kept {
				h.mark(&eventlog.Event{Key: key.Key, Value: key.Value}, m.Message, "kept")
			}
		}
		for id, i := range p.s.Instances {
			if i == nil {
				continue
			}
			for _, x := range i.Subs {
				subs[sub{x.KeyRef, id, i.Run, x.Act}]++
				waits[x.KeyRef] = true
			}
			for _, r := range i.Held {
				if r.Message != nil {
					h.mark(&eventlog.Event{Key: r.Key, Value: r.Value}, r.Message, "held")
				}
			}
			if err := h.ends(i); err != nil {
				return err
			}
		}
	}
	if !maps.Equal(subs, waiters) {
		return fmt.Errorf("subscriptions of instances and waiters at keys differ:\n%v\n%v", subs, waiters)
	}
	for _, l := range h.letters {
		h.markLetter(l)
	}
	for m, f := range h.fate {
		if len(f) == 0 {
			return fmt.Errorf("message %s is lost", m)
		}
	}
	return nil
}

func (h *history) markLetter(l eventlog.Record) {
	m, e := eventlog.Message{}, eventlog.Event{}
	for _, x := range l.Headers {
		switch x.Key {
		case "dagger-topic":
			m.Topic = string(x.Value)
		case "dagger-partition":
			fmt.Sscan(string(x.Value), &m.Partition)
		case "dagger-offset":
			fmt.Sscan(string(x.Value), &m.Offset)
		case "dagger-key":
			e.Key = string(x.Value)
		case "dagger-value":
			e.Value = string(x.Value)
		}
	}
	h.mark(&e, &m, "dead-lettered")
}

// ends checks that an instance has ended or waits for something named, with exactly the
// subscriptions that it wants.
func (h *history) ends(i *Instance) error {
	if i.Run == 0 || i.Quarantined != "" {
		return nil
	}
	plan := h.plans[i.Plan]
	for _, x := range i.Subs {
		if !slices.Contains(wants(plan, i), x.KeyRef) {
			return fmt.Errorf("instance %s is subscribed to %v and does not want it", i.ID, x.KeyRef)
		}
	}
	if i.Terminal() {
		if len(i.Buffer) > 0 || len(i.Works()) > 0 {
			return fmt.Errorf("instance %s has ended and still has %s", i.ID, mustMarshal(i))
		}
		return nil
	}
	for _, k := range wants(plan, i) {
		if i.subscription(k) == 0 && i.buffered(k) < bufferLimit {
			return fmt.Errorf("instance %s wants %v and is not subscribed", i.ID, k)
		}
	}
	if len(i.Works()) > 0 || len(i.Dues()) > 0 {
		return nil
	}
	for _, k := range i.Tasks {
		if k.Status == Executing && k.Phase == Waiting {
			if k.Kind != eventlog.Listen {
				if i.KeyValue(k.Path) != "" {
					return fmt.Errorf("instance %s has a time and waits for none: %s", i.ID, mustMarshal(i))
				}
				return nil
			}
			pl, _ := plan.place(k.Path)
			ref, _ := keyRef(pl, i)
			if i.buffered(ref) > 0 {
				return fmt.Errorf("instance %s waits for what it has in its buffer: %s", i.ID, mustMarshal(i))
			}
			return nil
		}
	}
	return fmt.Errorf("instance %s waits for nothing: %s", i.ID, mustMarshal(i))
}

// finish lets all user code succeed and all messages come, and expects every instance to end.
func (h *history) finish() error {
	clear(h.poison)
	for round := range 60 {
		open := 0
		for _, p := range h.parts {
			for _, id := range slices.Sorted(maps.Keys(p.s.Instances)) {
				i := p.s.Instances[id]
				if i == nil || i.Run == 0 || i.Terminal() && i.Quarantined == "" {
					continue
				}
				open++
				if i.Quarantined != "" {
					h.nextID++
					r := eventlog.Request{Type: eventlog.ReleaseInstance, ID: id, Request: fmt.Sprint("r", h.nextID), Made: h.now}
					if i.Definition == "" && i.Run > 0 { // its very start could not be folded: the operator has to say
						r.State = json.RawMessage(mustMarshal(p.shadow.Instances[id].Body))
					}
					h.queue(p, r)
				}
				for _, k := range i.Tasks {
					if k.Status == Executing && k.Phase == Waiting && i.Evaluate == 0 && round > 40 {
						h.nextID++
						h.queue(p, eventlog.Request{Type: eventlog.StopInstance, ID: id, Request: fmt.Sprint("r", h.nextID), Made: h.now})
					}
				}
			}
			for _, d := range h.due(p) {
				h.queue(p, d.Request())
			}
		}
		if open == 0 {
			return nil
		}
		for _, r := range h.works() {
			i := h.instance(r.ID)
			r.OK, r.HasKeys = true, true
			if n := h.plans[i.Plan].Task(r.Path); n != nil {
				h.choose(n, &r)
			}
			r.Keys = h.keys(h.plans[i.Plan], i, &r)
			for k := range r.Keys {
				switch n := h.plans[i.Plan].Node(r.Keys[k].Path); n.Kind {
				case eventlog.Listen:
					r.Keys[k].Value = "x"
				case eventlog.At:
					r.Keys[k].Value = "1"
				case eventlog.Every:
					r.Keys[k].Value = "1000"
				}
			}
			h.queue(h.of(&r), r)
		}
		for range 4 {
			h.message()
		}
		h.now += 2000
		if err := h.quiet(); err != nil {
			return err
		}
	}
	var left []string
	for _, p := range h.parts {
		for _, id := range slices.Sorted(maps.Keys(p.s.Instances)) {
			if i := p.s.Instances[id]; i != nil && i.Run > 0 && (!i.Terminal() || i.Quarantined != "") {
				left = append(left, mustMarshal(i))
			}
		}
	}
	return fmt.Errorf("instances never end:\n%s", strings.Join(left, "\n"))
}
