package workflow

import (
	"context"

	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/internal/seedview"
)

// Tree is an instance, or a process or task in one, in the JSON shape that Wayfair's Dagger for
// Python has. Config.UpdatesTopic gets it. docs/http.md explains its fields.
type Tree = seedview.Node

// Tree returns the instance with all its processes and tasks, as it is now, or ErrNotFound.
func (e *Engine) Tree(ctx context.Context, id string) (*Tree, error) {
	i, err := e.run.Get(ctx, id)
	if err != nil {
		return nil, e.told(id, err)
	}
	return seedview.Tree(i, e.run.FindPlan(ctx, i.Plan)), nil
}

// Trees is List with each instance as a Tree, without what is inside it. cursor is that of the next
// page; "" = there is none.
func (e *Engine) Trees(ctx context.Context, f Filter) (trees []*Tree, cursor string, err error) {
	p, err := e.run.List(ctx, f.engine())
	if err != nil {
		return nil, "", e.told("", err)
	}
	plans := map[string]*machine.Plan{} // one that is nowhere is looked for once
	for _, i := range p.Instances {
		plan, known := plans[i.Plan]
		if !known {
			plan = e.run.FindPlan(ctx, i.Plan)
			plans[i.Plan] = plan
		}
		trees = append(trees, seedview.Root(i, plan))
	}
	return trees, p.Cursor, nil
}
