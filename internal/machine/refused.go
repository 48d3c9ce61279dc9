package machine

import (
	"strconv"

	"github.com/godagger/dagger/eventlog"
)

// refusedLetter sets a refused call aside for which nobody waits: it came from a record of a
// user's topic, or without a request id, by which its sender would find the answer. That an
// instance runs already, or has ended, is what such a call wants: it is no reason to keep it.
func (t *Turn) refusedLetter(r *eventlog.Request, answer string) {
	if r.Request != "" && !relayed(r) || answer == Exists || answer == Terminal {
		return
	}
	t.setAside(r, answer)
}

// Unanswered sets a call from the requests topic aside whose answer is not remembered, and so
// stands in no event.
func (t *Turn) Unanswered(r *eventlog.Request, answer string) {
	if answer == Ahead || answer == Expired {
		t.setAside(r, answer)
	}
}

func relayed(r *eventlog.Request) bool { return r.Source != nil && r.Source.TopicID != "" }

func (t *Turn) setAside(r *eventlog.Request, answer string) {
	rec := DeadLetter(t.App, string(r.Type)+" was refused: "+answer)
	if m := r.Message; m != nil {
		rec.Key, rec.Value = m.Key, m.Value
		if m.Value == nil {
			rec.Value = m.Bytes
		}
	} else {
		c := *r // as its sender made it
		c.Source, c.Mark, c.At = nil, nil, 0
		value, err := eventlog.AppendRequest(nil, &c)
		if err != nil {
			value = nil
		}
		rec.Key, rec.Value = []byte(r.PartitionKey()), value
	}
	if t.MaxMessage != nil && len(rec.Key)+len(rec.Value)+deadLetterOverhead > t.MaxMessage(rec.Topic) {
		rec.Headers = append(rec.Headers, eventlog.Header{Key: "dagger-omitted-bytes", Value: strconv.AppendInt(nil, int64(len(rec.Value)), 10)})
		rec.Key, rec.Value = nil, nil
	}
	if relayed(r) {
		rec.Headers = append(rec.Headers,
			eventlog.Header{Key: "dagger-topic", Value: []byte(r.Topic)},
			eventlog.Header{Key: "dagger-topic-id", Value: []byte(r.Source.TopicID)},
			eventlog.Header{Key: "dagger-partition", Value: strconv.AppendInt(nil, int64(r.Source.Partition), 10)},
			eventlog.Header{Key: "dagger-offset", Value: strconv.AppendInt(nil, r.Mark.Pos, 10)})
	} else {
		rec.Headers = append(rec.Headers, eventlog.Header{Key: "dagger-topic", Value: []byte(eventlog.RequestsTopic(t.App))})
	}
	rec.Headers = append(rec.Headers, eventlog.Header{Key: "dagger-instance", Value: []byte(r.ID)})
	t.DeadLetter(rec)
}
