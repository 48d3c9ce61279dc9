package engine

import (
	"encoding/json"
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// simUpdates is the updates topic of one world in four.
const simUpdates = "updates"

func simUpdatesOf(env *simEnv) string {
	if env.seconds%4 == 0 { // it takes no chance that other things depend on
		return simUpdates
	}
	return ""
}

// takeUpdates compares the updates of a transaction with its events, and leaves the other
// messages: one for each event of an instance, in order, with the key of its partition and
// the status that the event left.
func (l *simLog) takeUpdates(p int32, entries []simEntry, messages []eventlog.Record) []eventlog.Record {
	if simUpdatesOf(&l.w.env) == "" {
		return messages
	}
	type change struct {
		id  string
		seq uint64
	}
	var want, got []change
	for _, x := range entries {
		if x.event != nil && x.event.Seq > 0 && x.event.Type != eventlog.InstanceDeleted { // nothing is left to tell
			want = append(want, change{x.event.ID, x.event.Seq})
		}
	}
	ends := map[change]string{}
	for _, x := range entries {
		if e := x.event; e != nil {
			switch e.Type {
			case eventlog.InstanceCompleted:
				ends[change{e.ID, e.Seq}] = string(machine.Completed)
			case eventlog.InstanceFailed:
				ends[change{e.ID, e.Seq}] = string(machine.Failure)
			case eventlog.InstanceStopped:
				ends[change{e.ID, e.Seq}] = string(machine.Stopped)
			case eventlog.InstanceStarted, eventlog.InstanceRetried:
				ends[change{e.ID, e.Seq}] = string(machine.Executing)
			}
		}
	}
	rest := slices.DeleteFunc(slices.Clone(messages), func(m eventlog.Record) bool {
		if m.Topic != simUpdates {
			return false
		}
		var u updated
		if err := json.Unmarshal(m.Value, &u); err != nil {
			l.w.violation("partition %d: an update can't be decoded: %v", p, err)
		}
		c := change{u.ID, u.Count}
		got = append(got, c)
		if eventlog.PartitionOfKey(string(m.Key), l.w.env.partitions) != p {
			l.w.violation("partition %d: the update of %s has the key %q", p, u.ID, m.Key)
		}
		if s := ends[c]; s != "" && s != u.Status.Code && l.w.env.poison == 0 {
			l.w.violation("partition %d: update %d of %s says %s, its event %s", p, u.Count, u.ID, u.Status.Code, s)
		}
		return true
	})
	if !slices.Equal(want, got) {
		l.w.violation("partition %d: a transaction has the events %v and the updates %v", p, want, got)
	}
	return rest
}
