package engine

import (
	"cmp"

	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/scheduler"
)

// forgottenAfter is how many ms an entry that only a rescan finds must be overdue to be
// reported: less may have been on its way to the store.
const forgottenAfter = 1000

func (o *owner) newTimers() *scheduler.Scheduler[machine.Due] {
	return scheduler.New(scheduler.Config{Interval: o.rescan, Horizon: o.horizon, Late: forgottenAfter},
		func(d machine.Due) int64 { return d.At }, compareDues)
}

// compareDues orders what is due at one time: in what order entries were armed may depend on
// that of a map.
func compareDues(a, b machine.Due) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Act, b.Act), cmp.Compare(a.Path, b.Path),
		cmp.Compare(a.Msg, b.Msg), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Run, b.Run),
		cmp.Compare(a.Key.Topic, b.Key.Topic), cmp.Compare(a.Key.Key, b.Key.Key), cmp.Compare(a.Key.Value, b.Key.Value))
}
