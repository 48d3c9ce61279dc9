package engine

import (
	"context"
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// relaySpec is a relay that this process can run.
type relaySpec struct {
	TopicKey
	ttl  time.Duration // the longest of the topic's listeners
	keys MessageKeys
	// Of a trigger, instead of keys: that of the highest version which has it.
	call    func(context.Context, *eventlog.Message) (*eventlog.Request, error)
	version int
}

// relays are the relays whose key function this process has; protocol rule 17.
func (r *registry) relays() []relaySpec {
	r.mu.Lock()
	defer r.mu.Unlock()
	var l []relaySpec
	for _, c := range r.order {
		for tk, keys := range c.Messages {
			k := slices.IndexFunc(l, func(s relaySpec) bool { return s.TopicKey == tk })
			if k < 0 {
				k, l = len(l), append(l, relaySpec{TopicKey: tk})
			}
			l[k].keys = keys
		}
		for _, t := range c.Triggers {
			tk := t.key(c.Plan.Name)
			k := slices.IndexFunc(l, func(s relaySpec) bool { return s.TopicKey == tk })
			if k < 0 {
				k, l = len(l), append(l, relaySpec{TopicKey: tk})
			}
			if c.Plan.Version >= l[k].version {
				l[k].call, l[k].version = t.Call, c.Plan.Version
			}
		}
	}
	for k := range l {
		for _, c := range r.order {
			l[k].ttl = max(l[k].ttl, topicTTL(c.Plan, l[k].Topic))
		}
		for _, d := range r.recorded {
			if d.plan != nil {
				l[k].ttl = max(l[k].ttl, topicTTL(d.plan, l[k].Topic))
			}
		}
	}
	return l
}

// relay is the relay of a topic and key name as it is known now.
func (r *registry) relay(tk TopicKey) (relaySpec, bool) {
	l := r.relays()
	k := slices.IndexFunc(l, func(s relaySpec) bool { return s.TopicKey == tk })
	if k < 0 {
		return relaySpec{}, false
	}
	return l[k], true
}

// startOf is the recorded start of a relay's partition: the lowest of all definitions, and 0
// for a partition that was unknown then. known is false when no record is of this topic id.
func (r *registry) startOf(tk TopicKey, topicID string, partition int32) (offset int64, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.recorded {
		for _, s := range d.Starts {
			if s.Topic != tk.Topic || s.Key != tk.Key || s.TopicID != topicID {
				continue
			}
			at := int64(0)
			if int(partition) < len(s.Offsets) {
				at = s.Offsets[partition]
			}
			if !known || at < offset {
				offset, known = at, true
			}
		}
	}
	return offset, known
}

// topicTTL is the longest time to live of the plan's listeners to a topic.
func topicTTL(p *machine.Plan, topic string) (ttl time.Duration) {
	for _, n := range p.Tasks() {
		if n.Kind != eventlog.Listen || n.Topic != topic {
			continue
		}
		d := time.Duration(n.TTL) * time.Millisecond
		if d <= 0 {
			d = defaultTTL
		}
		ttl = max(ttl, d, time.Minute)
	}
	return ttl
}
