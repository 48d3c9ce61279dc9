package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// message lets a relay tell a key of a message.
func (h *history) message() {
	source := eventlog.Source{TopicID: "in-id", Partition: int32(h.r.IntN(2)), Key: pick(h.r, keyed)}
	offset := h.offsets[source]
	h.offsets[source]++
	told := map[int32]int{} // index numbers what goes to one partition
	for _, v := range values {
		if !h.chance(50) {
			continue
		}
		r := eventlog.Request{V: 1, Type: eventlog.Deliver, Topic: "in", Key: source.Key, Value: v, TTL: int64(h.r.IntN(2)) * 90_000,
			Message: &eventlog.Message{Topic: "in", TopicID: "in-id", Partition: source.Partition, Offset: offset, Value: json.RawMessage(fmt.Sprint(offset))}}
		p := h.of(&r)
		s := source
		r.Source, r.Mark = &s, &eventlog.Mark{Pos: offset, Index: told[p.s.Partition]}
		told[p.s.Partition]++
		p.inbox = append(p.inbox, r)
		h.relays[source] = append(h.relays[source], r)
		h.fate[r.Key+v+messageName(r.Message)] = map[string]bool{}
	}
}

func messageName(m *eventlog.Message) string {
	return fmt.Sprintf(" %s/%d/%d", m.Topic, m.Partition, m.Offset)
}

// rewind lets a forwarder or relay say again what it said before, in order.
func (h *history) rewind() {
	if h.chance(50) {
		from, to := pick(h.r, h.parts), pick(h.r, h.parts)
		if l := from.outbox[to.s.Partition]; len(l) > 0 {
			to.inbox = append(to.inbox, l[h.r.IntN(len(l)):]...)
		}
		return
	}
	for _, source := range slices.SortedFunc(maps.Keys(h.relays), func(a, b eventlog.Source) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		l := h.relays[source]
		for _, r := range l[h.r.IntN(len(l)):] {
			p := h.of(&r)
			p.inbox = append(p.inbox, r)
		}
	}
}
