package audit

import (
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// sent is a message that a TaskCompleted says was sent.
type sent struct {
	seen      int32
	partition int32
	n         uint64
	id        string
}

// sentBy notes the message of a Command task.
func (p *partition) sentBy(e *eventlog.Event) {
	if e.Sent == nil {
		return
	}
	if e.Type != eventlog.TaskCompleted {
		p.fail(e, "sends a message")
	}
	m := p.a.sent[e.Sent.Topic]
	if m == nil {
		return
	}
	h := p.a.hash(fmt.Sprintf("%s/%d/%s/%d", e.ID, e.Run, e.Path, e.Act))
	if m[h] != nil {
		p.fail(e, "sends the message of task %s, activation %d, a second time", e.Path, e.Act)
		return
	}
	m[h] = &sent{partition: p.index, n: e.N, id: e.ID}
}

// message checks a record of a topic that Command tasks send to. known says that it was
// there before the events were read, so that its event must be among them.
func (a *Auditor) message(r *eventlog.Record, known bool) {
	key := ""
	for _, h := range r.Headers {
		if h.Key == "dagger-app" && a.o.App != "" && string(h.Value) != a.o.App {
			return // another application shares the topic
		}
		if h.Key == "dagger-idempotency-key" {
			key = string(h.Value)
		}
	}
	if key == "" {
		return // not ours
	}
	a.report.Messages++
	s := a.sent[r.Topic][a.hash(key)]
	switch {
	case s == nil && known:
		a.violation(Violation{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Text: "no event sent the message with idempotency key " + key})
	case s == nil:
	case s.seen > 0:
		a.violation(Violation{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, N: s.n, ID: s.id, Text: "the message with idempotency key " + key + " a second time"})
		s.seen++
	default:
		s.seen++
	}
}

// sentAll reports messages that are not in the topic, when it still has its first records.
func (a *Auditor) sentAll(topic string, whole bool) {
	if !whole {
		return
	}
	for _, s := range a.sent[topic] {
		if s.seen == 0 {
			a.violation(Violation{Partition: s.partition, Offset: -1, N: s.n, ID: s.id, Text: "its message is not in topic " + topic})
		}
	}
}
