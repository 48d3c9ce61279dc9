package audit

import (
	"strconv"

	"github.com/godagger/dagger/eventlog"
)

// letters are the dead letters that events speak of, by the origin of the message: how many
// there must be, less those that were found.
type letters map[uint64]int

func (l letters) expect(origin uint64) {
	if origin != 0 {
		l[origin]++
	}
}

// origin stands for a record that is delivered to a correlation key; 0 for none.
func (a *Auditor) origin(k eventlog.KeyRef, m *eventlog.Message) uint64 {
	if m == nil {
		return 0
	}
	return a.hash(k.Key, k.Value, m.Topic, m.TopicID, strconv.FormatInt(int64(m.Partition), 10), strconv.FormatInt(m.Offset, 10))
}

// deadLetter counts a record of the dead-letter topic, if it is a message that an event
// speaks of. Relays and owners put others there: what can't be read.
func (a *Auditor) deadLetter(r *eventlog.Record) {
	h := map[string]string{}
	for _, x := range r.Headers {
		h[x.Key] = string(x.Value)
	}
	if _, correlated := h["dagger-value"]; !correlated || h["dagger-offset"] == "" {
		return
	}
	origin := a.hash(h["dagger-key"], h["dagger-value"], h["dagger-topic"], h["dagger-topic-id"], h["dagger-partition"], h["dagger-offset"])
	if a.deadLetters[origin]--; a.deadLetters[origin] < 0 {
		a.violation(Violation{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Text: "no event speaks of this dead letter"})
		a.deadLetters[origin] = 0
	}
}

// lettersAll reports dead letters that are not in the topic.
func (a *Auditor) lettersAll(topic string) {
	missing := 0
	for _, n := range a.deadLetters {
		missing += n
	}
	if missing > 0 {
		a.violation(Violation{Topic: topic, Offset: -1, Text: strconv.Itoa(missing) + " messages are not in the dead-letter topic, though events say so"})
	}
}
