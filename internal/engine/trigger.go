package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Trigger makes a call of each record of a topic, by a relay of its own; protocol rule 19.
type Trigger struct {
	Topic string
	Kind  string // "start" or "stop"
	Begin Begin
	// Call makes the call that a record asks for: Type and ID, and of a Start Definition or
	// Plan, Params and Keys. nil: the record is nobody's. An error or a panic dead-letters the
	// record. For one record it must always give the same id.
	Call func(context.Context, *eventlog.Message) (*eventlog.Request, error)
}

// Begin says where reading a topic begins when it was never read before.
type Begin int

const (
	BeginYoung    Begin = iota // with the first record younger than the time to live
	BeginEarliest              // with the first record
	BeginLatest                // with the first record after the registration
)

// key names the relay. The slash sets it apart from the names of correlation keys, and the
// definition from others that read the topic: workers may have the one and not the other.
func (t *Trigger) key(definition string) TopicKey {
	return TopicKey{Topic: t.Topic, Key: t.Kind + "/" + definition}
}

// recordKey is the key of the record with the offsets at which a trigger's relay starts. A
// new version has a record of its own, so that it can take over a topic that was made anew.
func (t *Trigger) recordKey(c *Code) string {
	return fmt.Sprintf("%s@%d/%s/%s", c.Plan.Name, c.Plan.Version, t.Kind, t.Topic)
}

// withTriggers is the code with the triggers that the same plan was registered with before:
// a definition may be registered with and without them.
func (c *Code) withTriggers(before *Code) *Code {
	if before == nil || before == c {
		return c
	}
	all := *c
	for _, t := range before.Triggers {
		if !slices.ContainsFunc(c.Triggers, func(x Trigger) bool { return x.Topic == t.Topic && x.Kind == t.Kind }) {
			all.Triggers = append(slices.Clip(all.Triggers), t)
		}
	}
	return &all
}

// triggerRecords are the records of a definition's triggers that the topic does not have.
func (r *registry) triggerRecords(ctx context.Context, c *Code) (missing []eventlog.Record, err error) {
	for k := range c.Triggers {
		t := &c.Triggers[k]
		key := t.recordKey(c)
		r.mu.Lock()
		known := r.recorded[key] != nil
		r.mu.Unlock()
		if known {
			continue
		}
		at, err := r.begin(ctx, t.key(c.Plan.Name), t.Begin, defaultTTL)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(definition{V: 1, Name: c.Plan.Name, Starts: []relayStart{at}})
		if err != nil {
			return nil, fmt.Errorf("encode where a topic is read from: %w", err)
		}
		missing = append(missing, eventlog.Record{Topic: eventlog.DefinitionsTopic(r.e.log.App()), Key: []byte(key), Value: value})
	}
	return missing, nil
}

// begin finds where the relay of a topic starts; protocol rule 18.
func (r *registry) begin(ctx context.Context, tk TopicKey, b Begin, ttl time.Duration) (relayStart, error) {
	topic, err := r.e.log.Topic(ctx, tk.Topic)
	if err != nil {
		return relayStart{}, fmt.Errorf("describe topic %s: %w", tk.Topic, err)
	}
	s := relayStart{Topic: tk.Topic, TopicID: topic.ID, Key: tk.Key}
	if b == BeginYoung {
		if s.Offsets, err = r.e.log.OffsetAt(ctx, tk.Topic, time.Now().Add(-ttl)); err != nil {
			return relayStart{}, fmt.Errorf("find where to start in topic %s: %w", tk.Topic, err)
		}
		return s, nil
	}
	for _, p := range topic.Partitions {
		at := p.Start
		if b == BeginLatest {
			at = p.End
		}
		s.Offsets = append(s.Offsets, at)
	}
	return s, nil
}

// errRelayEnded: the relay was told to end while user code looked at a record, so what that
// said counts for nothing.
var errRelayEnded = errors.New("engine: the relay ended")

// trigger makes the request of one record of a trigger's topic, or its dead letter.
func (r *relay) trigger(rec *eventlog.Record) error {
	q, err := r.callOf(rec)
	switch {
	case errors.Is(err, errRelayEnded):
		return err
	case err != nil:
		r.deadLetter(rec, err.Error())
		return nil
	case q == nil:
		return nil
	}
	// protocol rule 16: one record makes one call, and it counts once.
	q.V, q.Topic = 1, rec.Topic
	q.Source = &eventlog.Source{TopicID: r.topicID, Partition: r.partition, Key: r.tk.Key}
	q.Mark = &eventlog.Mark{Pos: rec.Offset}
	kind, _, _ := strings.Cut(r.tk.Key, "/") // a record may start one instance and stop another
	q.Request = kind + "/" + rec.Topic + "/" + strconv.Itoa(int(rec.Partition)) + "/" + strconv.FormatInt(rec.Offset, 10) + "/" + r.topicID
	if q.Type == eventlog.StartInstance {
		q.Trace = eventlog.TraceOf(rec.Headers)
	}
	if q.Type == eventlog.StopInstance {
		q.Message = messageOf(rec, r.topicID) // for the dead letters, should there be nothing to stop
	}
	if err := q.Validate(); err != nil {
		r.deadLetter(rec, "its call can't be recorded: "+err.Error())
		return nil
	}
	data, err := eventlog.AppendRequest(nil, q)
	if err != nil {
		r.deadLetter(rec, "its call can't be recorded: "+err.Error())
		return nil
	}
	key := []byte(q.PartitionKey())
	if n := len(key) + len(data); n > r.maxRequest {
		r.deadLetter(rec, fmt.Sprintf("it asks for more than fits the log: it needs %d bytes of a request, %d fit", n, r.maxRequest))
		return nil
	}
	r.out = append(r.out, eventlog.Record{Topic: eventlog.RequestsTopic(r.app), Partition: eventlog.PartitionOf(q.ID, r.partitions), Key: key, Value: data})
	return nil
}

// callOf asks the user's function.
func (r *relay) callOf(rec *eventlog.Record) (q *eventlog.Request, err error) {
	err = guarded(func() (err error) {
		q, err = r.call(messageOf(rec, r.topicID))
		return err
	})
	return q, err
}
