package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

var (
	// ErrNotEmpty: a log that is to be filled has records already.
	ErrNotEmpty = errors.New("engine: the log is not empty")
	// ErrNotQuiet: a log that is to be copied is in use.
	ErrNotQuiet = errors.New("engine: the log is in use")
)

// CopyOptions of CopyLog.
type CopyOptions struct {
	// Topics of users that are copied whole. Of other topics that definitions listen to only
	// what no relay has read yet is copied, and topics of Command tasks not at all.
	Topics   []string
	Progress func(done, total int64) // offsets of the events; may be nil
}

// CopiedLog is what CopyLog did.
type CopiedLog struct {
	Partitions  int32            `json:"partitions"`
	Events      int64            `json:"events"`
	Requests    int64            `json:"requests"` // that were not consumed yet
	Definitions int64            `json:"definitions"`
	DeadLetters int64            `json:"deadLetters"`
	Messages    map[string]int64 `json:"messages"` // by user's topic
}

// protocol rule 27

// CopyLog copies an application into an empty log with the same count of partitions, so that
// every instance goes on there: events as they are, requests that were not consumed,
// definitions, dead letters, and messages that no relay has read. A last event of each
// partition says where the new requests begin. The source must be at rest: no engine runs on
// it (ErrNotQuiet). The target's application must be new (ErrNotEmpty). Cut off, it leaves a
// target on which no engine starts (ErrUnfinished); the next CopyLog with the same source goes
// on: it compares what is there with what it would write, and appends the rest.
func CopyLog(ctx context.Context, from, to eventlog.Log, o CopyOptions) (CopiedLog, error) {
	c := &copier{from: from, to: to, o: o, done: CopiedLog{Partitions: from.Partitions(), Messages: map[string]int64{}}, topics: map[string]*copiedTopic{}}
	if err := c.check(ctx); err != nil {
		return c.done, err
	}
	if err := c.definitions(ctx); err != nil {
		return c.done, err
	}
	source := c.before[eventlog.EventsTopic(from.App())].ID
	err := fillFrom(ctx, to, filled{From: from.URL(), Source: source}, func(earlier *filled) error {
		c.resumes = earlier != nil
		for _, step := range []func(context.Context) error{c.messages, c.record, c.events, c.requests, c.deadLetters, c.unmoved, c.positions} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return c.done, err
}

// copier copies a log.
type copier struct {
	from, to eventlog.Log
	o        CopyOptions
	done     CopiedLog
	resumes  bool
	before   map[string]eventlog.Topic // of from, by name
	defs     []*definition
	defKeys  []string
	topics   map[string]*copiedTopic
	parts    []copiedPartition
}

// copiedPartition is where the events of a partition have come to.
type copiedPartition struct {
	n         uint64
	at        int64
	topicID   string // of the requests
	offset    int64
	forwarded uint64
	relays    map[eventlog.Source]eventlog.Mark
	ended     *eventlog.Record // in the target: the last event, of an earlier attempt
}

// definitions reads the registry; the first record of a key counts. ErrUnfinished: the log
// itself was filled only in part.
func (c *copier) definitions(ctx context.Context) error {
	t := c.before[eventlog.DefinitionsTopic(c.from.App())]
	var filling filling
	if err := all(ctx, c.from, t, 0, t.Partitions[0].Start, eventlog.ReadCommitted, func(records []eventlog.Record, _ int64) error {
		for _, r := range records {
			if filling.take(&r) || len(r.Value) == 0 || slices.Contains(c.defKeys, string(r.Key)) {
				continue
			}
			d := &definition{}
			if err := json.Unmarshal(r.Value, d); err != nil {
				return fmt.Errorf("decode definition %s: %w", r.Key, err)
			}
			c.defs, c.defKeys = append(c.defs, d), append(c.defKeys, string(r.Key))
		}
		return nil
	}); err != nil {
		return err
	}
	return filling.whole(c.from)
}

// record writes the definitions with the positions at which relays start now.
func (c *copier) record(ctx context.Context) error {
	var records []eventlog.Record
	for k, d := range c.defs {
		for i := range d.Starts {
			s := &d.Starts[i]
			x := c.topics[s.Topic]
			if x == nil {
				continue
			}
			s.TopicID = x.new.ID
			next := x.read[s.Key]
			s.Offsets = make([]int64, len(x.new.Partitions))
			for p := range s.Offsets {
				switch {
				case p >= len(next):
				case x.new.ID == x.old.ID:
					s.Offsets[p] = next[p]
				default:
					// All copied records from this one on were not read.
					n, _ := slices.BinarySearch(x.moved[p], next[p])
					s.Offsets[p] = int64(n)
				}
			}
		}
		value, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode definition: %w", err)
		}
		records = append(records, eventlog.Record{Topic: eventlog.DefinitionsTopic(c.to.App()), Key: []byte(c.defKeys[k]), Value: value})
	}
	c.done.Definitions = int64(len(records))
	if err := publishKeyed(ctx, c.to, records); err != nil {
		return fmt.Errorf("copy definitions: %w", err)
	}
	return nil
}

// requests copies those that were not consumed.
func (c *copier) requests(ctx context.Context) error {
	t := c.before[eventlog.RequestsTopic(c.from.App())]
	for p := range t.Partitions {
		x := &c.parts[p]
		from := t.Partitions[p].Start
		if x.topicID != "" {
			if x.topicID != t.ID {
				return fmt.Errorf("copy requests of partition %d: %w: %s", p, eventlog.ErrTopicChanged, t.Name)
			}
			if x.offset < from {
				return fmt.Errorf("copy requests of partition %d: %w: it begins at %d, %d was to be consumed", p, eventlog.ErrOffsetGone, from, x.offset)
			}
			from = x.offset
		}
		to, err := newAppender(ctx, c.to, eventlog.RequestsTopic(c.to.App()), int32(p))
		if err != nil {
			return err
		}
		defer to.close()
		// Who reads requests reads uncommitted ones too.
		if err := all(ctx, c.from, t, int32(p), from, eventlog.ReadUncommitted, func(records []eventlog.Record, _ int64) error {
			for k := range records {
				r := &records[k]
				r.Topic, r.Partition = eventlog.RequestsTopic(c.to.App()), int32(p)
				if err := c.request(r); err != nil {
					return fmt.Errorf("copy request at offset %d of partition %d: %w", r.Offset, p, err)
				}
			}
			c.done.Requests += int64(len(records))
			return to.add(ctx, records)
		}); err != nil {
			return err
		}
		if err := to.end(ctx); err != nil {
			return err
		}
	}
	return nil
}

// request gives a relay's request the position that its message has now.
func (c *copier) request(r *eventlog.Record) error {
	var q eventlog.Request
	if eventlog.DecodeRequest(r.Value, &q) != nil || q.Source == nil || q.Mark == nil || q.Source.TopicID == "" {
		return nil
	}
	source, m, ok := c.source(*q.Source, *q.Mark)
	if !ok {
		return nil
	}
	q.Source, q.Mark = &source, &m
	value, err := eventlog.AppendRequest(nil, &q)
	if err != nil {
		return err
	}
	r.Value = value
	return nil
}

// source is where a relay's record stands now; false when it was not copied.
func (c *copier) source(s eventlog.Source, m eventlog.Mark) (eventlog.Source, eventlog.Mark, bool) {
	for _, x := range c.topics {
		if x.old.ID != s.TopicID || x.new.ID == x.old.ID {
			continue
		}
		pos := x.to(s.Partition, m.Pos)
		if pos < 0 {
			return s, m, false
		}
		s.TopicID, m.Pos = x.new.ID, pos
		return s, m, true
	}
	return s, m, false
}

func (c *copier) deadLetters(ctx context.Context) error {
	t := c.before[eventlog.DeadLetterTopic(c.from.App())]
	for p := range t.Partitions {
		to, err := newAppender(ctx, c.to, eventlog.DeadLetterTopic(c.to.App()), int32(p))
		if err != nil {
			return err
		}
		defer to.close()
		err = all(ctx, c.from, t, int32(p), t.Partitions[p].Start, eventlog.ReadCommitted, func(records []eventlog.Record, _ int64) error {
			for k := range records {
				records[k].Topic = eventlog.DeadLetterTopic(c.to.App())
			}
			c.done.DeadLetters += int64(len(records))
			return to.add(ctx, records)
		})
		if err == nil {
			err = to.end(ctx)
		}
		if err != nil {
			return fmt.Errorf("copy dead letters: %w", err)
		}
	}
	return nil
}
