package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/internal/seedview"
)

// Updates: after each event of an instance the whole instance goes to the updates topic, in
// the transaction of the event. They are for who watches: what can't be told there never
// keeps an instance from going on.

const (
	// updatesPause is how long updates are left out after the log refused one, in ms; it
	// doubles with each that is refused again, up to 64 times.
	updatesPause = 10_000
	// updatesTurn is the bytes of updates after which a turn takes no more.
	updatesTurn = 8 << 20
	// updateOverhead is what the record around an update takes, its headers' own bytes aside.
	updateOverhead = 200
)

// openUpdates makes sure that the updates topic exists.
func (e *Engine) openUpdates(ctx context.Context) error {
	name := e.cfg.UpdatesTopic
	if name == "" {
		return nil
	}
	app := e.log.App()
	for _, own := range []string{eventlog.RequestsTopic(app), eventlog.EventsTopic(app), eventlog.DefinitionsTopic(app), eventlog.DeadLetterTopic(app)} {
		if name == own {
			return fmt.Errorf("engine: the updates topic %s is one of the engine's own", name)
		}
	}
	if err := e.log.EnsureTopic(ctx, name, 1); err != nil {
		return fmt.Errorf("create the updates topic %s: %w", name, err)
	}
	topic, err := e.log.Topic(ctx, name)
	if err != nil {
		return fmt.Errorf("describe the updates topic %s: %w", name, err)
	}
	e.describe(topic)
	return nil
}

// updates of a turn, and whether the log takes them.
type updates struct {
	records  []eventlog.Record
	bytes    int
	pause    int64 // until then none are made: the log refused one
	refusals int   // one after the other
}

// makeUpdates lets the turn make an update of each event of an instance.
func (o *owner) makeUpdates() {
	u := &o.updates
	if len(u.records) > 0 {
		u.refusals = 0
	}
	u.records, u.bytes = nil, 0
	if o.updatesTopic == "" || o.now < u.pause {
		return
	}
	// Applications may share the topic, and have instances of the same id.
	headers := []eventlog.Header{
		{Key: "content-type", Value: []byte("application/json")}, {Key: "dagger-app", Value: []byte(o.app)},
	}
	o.turn.Folded = func(e *eventlog.Event) {
		i := o.st.Instances[e.ID]
		if e.Seq == 0 || i == nil || i.Run == 0 {
			return
		}
		key := eventlog.PartitionKey(i.ID)
		h := i.Trace.AppendHeaders(slices.Clip(headers))
		limit := o.maxMessage(o.updatesTopic) - len(key) - updateOverhead
		for k := range h {
			limit -= len(h[k].Key) + len(h[k].Value)
		}
		value := update(i, o.st.Plans[i.Plan], limit)
		if value == nil {
			return // the topic takes next to nothing
		}
		u.bytes += len(value)
		u.records = append(u.records, eventlog.Record{Topic: o.updatesTopic, Partition: -1, Key: []byte(key), Value: value, Headers: h})
	}
}

// update is nil also where the view can't be computed: that is no fault of the instance.
func update(i *machine.Instance, plan *machine.Plan, limit int) (value []byte) {
	defer func() {
		if recover() != nil {
			value = nil
		}
	}()
	return seedview.Update(i, plan, limit)
}

// refusedUpdate leaves updates out for a while when it was one of them that the log refused.
func (o *owner) refusedUpdate(refused *eventlog.RefusedError) bool {
	if refused.Index < len(o.turn.Sendings) {
		return false
	}
	u := &o.updates
	u.records = nil
	u.pause = o.now + updatesPause<<min(u.refusals, 6)
	u.refusals++
	return true
}
