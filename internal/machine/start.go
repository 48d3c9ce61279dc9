package machine

import (
	"encoding/json"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

func (t *Turn) start(i *Instance, r *eventlog.Request) string {
	s := t.S
	if i != nil && i.Run > 0 {
		return t.refuse(r, Exists)
	}
	var plan *Plan
	if r.Plan != "" {
		if plan = s.Plans[r.Plan]; plan == nil {
			plan = t.Registry.Plan(r.Plan)
		}
	} else {
		plan = t.Registry.Current(r.Definition)
	}
	if plan == nil {
		return t.refuse(r, UnknownPlan)
	}
	params := r.Params
	if len(params) == 0 {
		params = json.RawMessage("{}")
	}
	if !isObject(params) {
		return t.refuse(r, BadParams)
	}
	if t.tooLarge(params) {
		return t.refuse(r, TooLarge)
	}
	if s.Plans[plan.Hash()] == nil { // protocol rule 13
		t.emit(&eventlog.Event{Type: eventlog.PlanUsed, Plan: plan.Hash(), PlanData: plan.Recorded()})
	}
	e := &eventlog.Event{Type: eventlog.InstanceStarted, Definition: plan.Name, Plan: plan.Hash(), Params: MergePatch(nil, params), Request: r.Request, Made: r.Made, Caller: r.Caller, Trace: r.Trace}
	if r.HasKeys {
		e.Keys = sortedKeys(r.Keys)
	} else {
		e.Evaluate = plan.Computes()
	}
	if i == nil {
		i = &Instance{ID: r.ID}
	}
	t.flow(plan, &Instance{}, e).begin(place{n: &plan.root})
	t.transitWith(plan, i, e)
	t.settle(r.ID)
	t.overtaken(r.ID)
	return OK
}

func sortedKeys(keys []eventlog.TaskKey) []eventlog.TaskKey {
	l := slices.Clone(keys)
	slices.SortFunc(l, func(a, b eventlog.TaskKey) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return l
}

// eventOverhead is what an event has beside the parameters, generously.
const eventOverhead = 16 << 10

func (t *Turn) tooLarge(params json.RawMessage) bool {
	return t.MaxEvent > 0 && len(params) > t.MaxEvent-eventOverhead
}
