package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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

// copiedTopic is a user's topic: which records were copied, and where they stand now.
type copiedTopic struct {
	old, new eventlog.Topic
	whole    bool
	read     map[string][]int64 // by key name: what its relay reads next
	moved    [][]int64          // by partition: old offsets of the copied records
}

// own are the application's own topics of a log.
func own(log eventlog.Log) []string {
	app := log.App()
	return []string{eventlog.EventsTopic(app), eventlog.RequestsTopic(app), eventlog.DefinitionsTopic(app), eventlog.DeadLetterTopic(app)}
}

// check refuses what can't be copied.
func (c *copier) check(ctx context.Context) error {
	if a, b := c.from.Partitions(), c.to.Partitions(); a != b {
		return fmt.Errorf("%w: %d in %s and %d in %s; a copy keeps the count (daggerctl export and import change it)", eventlog.ErrPartitions, a, c.from.URL(), b, c.to.URL())
	}
	c.before = map[string]eventlog.Topic{}
	for _, name := range own(c.from) {
		t, err := c.from.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		c.before[name] = t
	}
	if err := resting(ctx, c.from, c.from.App()+".owners", eventlog.RequestsTopic(c.from.App()), nil); err != nil {
		return err
	}
	for p, x := range c.before[eventlog.EventsTopic(c.from.App())].Partitions {
		if x.Start > 0 {
			return fmt.Errorf("copy partition %d: its events begin at offset %d: the older ones were trimmed, and a copy needs all of them", p, x.Start)
		}
	}
	return nil
}

// empty refuses a log that has records of its application.
func empty(ctx context.Context, log eventlog.Log) error {
	for _, name := range own(log) {
		t, err := log.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		for _, p := range t.Partitions {
			if p.End > 0 {
				return fmt.Errorf("%w: topic %s of %s has records; give a new application or an empty directory", ErrNotEmpty, name, log.URL())
			}
		}
	}
	return nil
}

// resting joins a consumer group and refuses when others are in it; f (or nil) may ask it.
func resting(ctx context.Context, log eventlog.Log, group, topic string, f func(eventlog.Member, int) error) (err error) {
	t, err := log.Topic(ctx, topic)
	if err != nil {
		return fmt.Errorf("describe topic %s: %w", topic, err)
	}
	m, err := log.Join(ctx, group, topic)
	if err != nil {
		return fmt.Errorf("join group %s: %w", group, err)
	}
	defer func() {
		if e := m.Close(); e != nil && err == nil {
			err = fmt.Errorf("leave group %s: %w", group, e)
		}
	}()
	// Who died lately still counts as a member for some seconds.
	wait, cancel := context.WithTimeoutCause(ctx, 10*time.Second, fmt.Errorf("%w: the group %s has other members; stop the engines that run on %s", ErrNotQuiet, group, log.URL()))
	defer cancel()
	for {
		assigned, err := m.Assigned(wait)
		if err != nil {
			return fmt.Errorf("assignment of group %s: %w", group, err)
		}
		if len(assigned) == len(t.Partitions) {
			break
		}
	}
	if f != nil {
		return f(m, len(t.Partitions))
	}
	return nil
}

// all gives the records of a partition, as they were when the copy began, to f.
func all(ctx context.Context, log eventlog.Log, t eventlog.Topic, partition int32, from int64, isolation eventlog.Isolation, f func([]eventlog.Record, int64) error) error {
	end := t.Partitions[partition].End
	if from >= end {
		return nil
	}
	r, err := log.Read(ctx, t.Name, partition, from, t.ID, isolation)
	if err != nil {
		return fmt.Errorf("read topic %s: %w", t.Name, err)
	}
	defer r.Close()
	for at := from; at < end; {
		records, next, err := r.Next(ctx)
		if err != nil {
			return fmt.Errorf("read topic %s: %w", t.Name, err)
		}
		for len(records) > 0 && records[len(records)-1].Offset >= end {
			records = records[:len(records)-1]
		}
		if err := f(records, min(next, end)); err != nil {
			return err
		}
		at = next
	}
	return nil
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

// messages copies what relays have not read, or whole topics.
func (c *copier) messages(ctx context.Context) error {
	add := func(name string) (*copiedTopic, error) {
		if x := c.topics[name]; x != nil {
			return x, nil
		}
		t, err := c.from.Topic(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", name, err)
		}
		x := &copiedTopic{old: t, read: map[string][]int64{}, moved: make([][]int64, len(t.Partitions))}
		c.topics[name] = x
		return x, nil
	}
	for _, name := range c.o.Topics {
		x, err := add(name)
		if err != nil {
			return err
		}
		x.whole = true
	}
	for _, d := range c.defs {
		for _, s := range d.Starts {
			x, err := add(s.Topic)
			if errors.Is(err, eventlog.ErrNoTopic) {
				continue // deleted since
			}
			if err != nil {
				return err
			}
			if x.read[s.Key] == nil {
				if x.read[s.Key], err = c.next(ctx, x.old, s.Key); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.topics)) {
		if err := c.topic(ctx, name, c.topics[name]); err != nil {
			return fmt.Errorf("copy topic %s: %w", name, err)
		}
	}
	return nil
}

// next is what a relay reads next in each partition of its topic.
func (c *copier) next(ctx context.Context, t eventlog.Topic, key string) (next []int64, err error) {
	err = resting(ctx, c.from, c.from.App()+".relay."+t.Name+"."+key, t.Name, func(m eventlog.Member, partitions int) error {
		for p := range partitions {
			at, err := m.Committed(ctx, int32(p))
			if err != nil {
				return fmt.Errorf("read the offset of the relay of topic %s, key %s: %w", t.Name, key, err)
			}
			if at < 0 {
				at = c.startOf(t, key, p)
			}
			next = append(next, max(at, t.Partitions[p].Start))
		}
		return nil
	})
	return next, err
}

// startOf is where a relay that has committed nothing starts.
func (c *copier) startOf(t eventlog.Topic, key string, partition int) int64 {
	at := int64(-1)
	for _, d := range c.defs {
		for _, s := range d.Starts {
			if s.Topic != t.Name || s.Key != key || s.TopicID != t.ID {
				continue
			}
			x := int64(0)
			if partition < len(s.Offsets) {
				x = s.Offsets[partition]
			}
			if at < 0 || x < at {
				at = x
			}
		}
	}
	return max(at, 0)
}

// topic copies a user's topic.
func (c *copier) topic(ctx context.Context, name string, x *copiedTopic) error {
	if err := c.to.EnsureTopic(ctx, name, int32(len(x.old.Partitions))); err != nil {
		return err
	}
	var err error
	if x.new, err = c.to.Topic(ctx, name); err != nil {
		return err
	}
	if x.new.ID == x.old.ID {
		return nil // both logs are on the same brokers
	}
	for p := range x.old.Partitions {
		from := x.old.Partitions[p].End
		for _, next := range x.read {
			from = min(from, next[p])
		}
		if x.whole {
			from = x.old.Partitions[p].Start
		}
		if from >= x.old.Partitions[p].End {
			continue
		}
		if len(x.new.Partitions) != len(x.old.Partitions) {
			return fmt.Errorf("%w: it has %d partitions in the target and %d in the source", eventlog.ErrPartitions, len(x.new.Partitions), len(x.old.Partitions))
		}
		if x.new.Partitions[p].End > 0 && !c.resumes {
			return fmt.Errorf("%w: it has records in the target, and %d in the source that no relay has read: let an engine read them first", ErrNotEmpty, x.old.Partitions[p].End-from)
		}
		to, err := newAppender(ctx, c.to, name, int32(p))
		if err != nil {
			return err
		}
		defer to.close()
		if err := all(ctx, c.from, x.old, int32(p), from, eventlog.ReadCommitted, func(records []eventlog.Record, _ int64) error {
			for k := range records {
				x.moved[p] = append(x.moved[p], records[k].Offset)
				records[k].Partition = int32(p)
				for i := range records[k].Headers { // of a Command task of this application
					if h := &records[k].Headers[i]; h.Key == "dagger-app" && string(h.Value) == c.from.App() {
						h.Value = []byte(c.to.App())
					}
				}
			}
			c.done.Messages[name] += int64(len(records))
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

// publish appends records in pieces.
func publish(ctx context.Context, log eventlog.Log, records []eventlog.Record) error {
	for piece := range slices.Chunk(records, 500) {
		if err := log.Publish(ctx, piece...); err != nil {
			return fmt.Errorf("append: %w", err)
		}
	}
	return nil
}

// to is where a record stands now, or where the next one that was copied does; -1 = before
// all that were copied.
func (x *copiedTopic) to(partition int32, offset int64) int64 {
	if x.new.ID == x.old.ID {
		return offset
	}
	if int(partition) >= len(x.moved) {
		return -1
	}
	k, found := slices.BinarySearch(x.moved[partition], offset)
	if !found && k == 0 {
		return -1
	}
	if !found {
		k--
	}
	return int64(k)
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

// unmoved refuses a source that was written to meanwhile.
func (c *copier) unmoved(ctx context.Context) error {
	for name, was := range c.before {
		is, err := c.from.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		if is.ID != was.ID || !slices.Equal(is.Partitions, was.Partitions) {
			return fmt.Errorf("%w: topic %s of %s has got records meanwhile: stop who writes, throw away what was made, and begin again", ErrNotQuiet, name, strings.TrimSpace(c.from.URL()))
		}
	}
	return nil
}
