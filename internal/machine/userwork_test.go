package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// keys are values of what is computed from the parameters, random ones.
func (h *history) keys(plan *Plan, i *Instance, r *eventlog.Request) (l []eventlog.TaskKey) {
	for _, n := range computed(plan) {
		for _, path := range paths(plan, i, n, r) {
			l = append(l, eventlog.TaskKey{Path: path, Value: h.value(n)})
		}
	}
	return l
}

func (h *history) value(n *Node) string {
	switch n.Kind {
	case eventlog.Listen:
		return pick(h.r, append(values, ""))
	case eventlog.Every:
		v := pick(h.r, []string{"1", "1000", "3000"})
		if h.chance(50) {
			v += "/" + pick(h.r, []string{"1", fmt.Sprint(h.now + 500), fmt.Sprint(h.now + 4000)})
		}
		return v
	}
	v := pick(h.r, []string{"", "1", fmt.Sprint(h.now), fmt.Sprint(h.now + 1000), fmt.Sprint(h.now + 5000)})
	if n.Kind == eventlog.Monitor && v != "" && h.chance(30) {
		v += "/1000"
	}
	return v
}

// works are all that user code should be doing.
func (h *history) works() (l []eventlog.Request) {
	for _, p := range h.parts {
		for _, id := range slices.Sorted(maps.Keys(p.works)) {
			i := p.s.Instances[id]
			for _, k := range p.works[id] {
				r := eventlog.Request{Type: eventlog.Result, ID: id, Run: i.Run, Path: k.Path, Act: k.Act, Attempt: k.Attempt, Jitter: 0.5}
				if _, r.Base = i.ParamsAt(k.Path); k.Path == "" {
					r.Base = i.LastParams()
					r.Type, r.Attempt = eventlog.Evaluated, 0
				}
				l = append(l, r)
			}
		}
	}
	return l
}

// work ends or cuts short a handler.
func (h *history) work() {
	l := h.works()
	if len(l) == 0 {
		return
	}
	r := pick(h.r, l)
	i := h.instance(r.ID)
	plan := h.plans[i.Plan]
	if r.Type == eventlog.Evaluated {
		r.Keys = h.keys(plan, i, nil)
		if h.chance(5) {
			r.Error = "no key"
		}
		if h.chance(10) {
			r.Base--
		}
		h.toOwner(r)
		return
	}
	switch h.r.IntN(10) {
	case 0:
		r.Type = Interrupted
		h.queue(h.of(&r), r)
		return
	case 1:
		r.Type = HasRun
		h.queue(h.of(&r), r)
		return
	case 2, 3:
		r.Error, r.Terminal = "broken", h.chance(20)
		if h.chance(20) {
			r.RetryAfter = 1 + h.r.Int64N(3000)
		}
	default:
		r.OK = true
		r.Params = json.RawMessage(pick(h.r, []string{"", "", `{}`, `{"a":1}`, `{"b":null}`, `{"c":{"d":[1,2]}}`, `7`, `{"e":"` + strings.Repeat("y", 120) + `"}`}))
		r.More = h.chance(20)
		if h.chance(3) {
			r.Stop = "enough"
		}
		h.choose(plan.Task(r.Path), &r)
		if h.chance(70) {
			r.HasKeys, r.Keys = true, h.keys(plan, i, &r)
		}
		switch n := plan.Task(r.Path); n.Kind {
		case eventlog.Every:
			r.More = h.chance(60)
		case eventlog.Decide:
			if r.Choice = n.Nodes[h.r.IntN(len(n.Nodes))].name(); h.chance(30) {
				r.Choice = pick(h.r, []string{"", "unknown"})
			}
		case eventlog.Command:
			r.Record = &eventlog.Record{Topic: "out", Partition: -1, Value: []byte(strings.Repeat("m", h.r.IntN(70)))}
		}
	}
	h.toOwner(r)
}
