package embedlog

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

// topicInfo is the row of a topic.
type topicInfo struct {
	Number     uint32 `json:"number"`
	ID         string `json:"id"`
	Partitions int32  `json:"partitions"`
}

type topic struct {
	topicInfo
	name  string
	parts []*partition

	mu      sync.Mutex
	deleted bool
	next    uint32 // round robin
}

func (t *topic) isDeleted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deleted
}

func (t *topic) roundRobin() int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	return int32(t.next % uint32(len(t.parts)))
}

// ringBytes bounds what a partition keeps of its newest chunks for readers at its end.
const ringBytes = 512 << 10

// partition is what readers see of a partition.
type partition struct {
	topic *topic
	index int32

	mu       sync.Mutex
	start    int64
	end      int64
	latest   int64 // latest time of a record, ms
	ring     []ringChunk
	ringSize int
	changed  chan struct{} // closed at the next change; nil when nobody waits

	// Events partitions.
	epoch uint64
	owner *owner
}

type ringChunk struct {
	data        []byte
	first, last int64
}

func (p *partition) String() string { return fmt.Sprintf("%s/%d", p.topic.name, p.index) }

// publish makes a chunk visible, which begins at the partition's end.
func (p *partition) publish(chunk []byte, count int, latest int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.end
	p.end += int64(count)
	p.latest = latest
	p.ring = append(p.ring, ringChunk{chunk, first, p.end - 1})
	p.ringSize += len(chunk)
	drop := 0
	for p.ringSize > ringBytes && drop < len(p.ring)-1 {
		p.ringSize -= len(p.ring[drop].data)
		p.ring[drop].data = nil
		drop++
	}
	p.ring = p.ring[drop:]
	p.wake()
}

// wake wakes the readers that wait. Needs mu.
func (p *partition) wake() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// wait is closed at the next change. Needs mu.
func (p *partition) wait() <-chan struct{} {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

func (p *partition) state() eventlog.Partition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return eventlog.Partition{Start: p.start, End: p.end}
}

// load reads the topics and the ends of their partitions.
func (l *Log) load() error {
	v, err := l.store.get([]byte{formatRow})
	if err != nil {
		return err
	}
	switch {
	case v == nil:
		if err := l.store.apply([]op{{opSet, []byte{formatRow}, []byte(format)}}, true); err != nil {
			return err
		}
	case string(v) != format:
		return fmt.Errorf("layout %q is of a newer version; this one reads %q", v, format)
	}
	if v, err = l.store.get([]byte{nextRow}); err != nil {
		return err
	}
	l.nextTopic = uint32(readInt(v))
	var bad error
	err = l.store.scan([]byte{topicRow}, []byte{topicRow + 1}, func(key, value []byte) bool {
		t := &topic{name: string(key[1:])}
		if bad = json.Unmarshal(value, &t.topicInfo); bad != nil {
			bad = fmt.Errorf("topic %s: %w", t.name, bad)
			return false
		}
		l.topics[t.name] = t
		return true
	})
	if err == nil {
		err = bad
	}
	for _, t := range l.topics {
		for i := range t.Partitions {
			if err == nil {
				err = l.loadPartition(t, i)
			}
		}
	}
	return err
}

func (l *Log) loadPartition(t *topic, index int32) error {
	p := &partition{topic: t, index: index}
	t.parts = append(t.parts, p)
	v, err := l.store.get(partitionKey(startRow, t.Number, index))
	if err != nil {
		return err
	}
	p.start = readInt(v)
	p.end = p.start
	if v, err = l.store.get(partitionKey(epochRow, t.Number, index)); err != nil {
		return err
	}
	p.epoch = uint64(readInt(v))
	key, chunk, err := l.store.last(partitionKey(chunkRow, t.Number, index), partitionKey(chunkRow, t.Number, index+1))
	if err != nil || key == nil {
		return err
	}
	end, err := readTrailer(chunk)
	if err != nil {
		return fmt.Errorf("%s at offset %d: %w", p, chunkLast(key), err)
	}
	p.end, p.latest = max(p.start, chunkLast(key)+1), end.latest
	return nil
}

// topic finds a topic, or fails with ErrNoTopic.
func (l *Log) topic(name string) (*topic, error) {
	l.topicsMu.RLock()
	defer l.topicsMu.RUnlock()
	if t := l.topics[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: %s", eventlog.ErrNoTopic, name)
}

// whole is topic, but for one of the application's own that was created again with fewer
// partitions: who knows their count counts on it.
func (l *Log) whole(name string) (*topic, error) {
	t, err := l.topic(name)
	if err == nil && t.Partitions < l.parts && (name == eventlog.EventsTopic(l.app) || name == eventlog.RequestsTopic(l.app)) {
		return nil, fmt.Errorf("%w: topic %s has %d, not %d: it was created again, and what it held is lost", eventlog.ErrPartitions, name, t.Partitions, l.parts)
	}
	return t, err
}

func (t *topic) partition(i int32) (*partition, error) {
	if i < 0 || int(i) >= len(t.parts) {
		return nil, fmt.Errorf("topic %s has no partition %d; it has %d", t.name, i, len(t.parts))
	}
	return t.parts[i], nil
}

// Topic describes a topic.
func (l *Log) Topic(ctx context.Context, name string) (eventlog.Topic, error) {
	if err := l.check(ctx); err != nil {
		return eventlog.Topic{}, err
	}
	t, err := l.whole(name)
	if err != nil {
		return eventlog.Topic{}, err
	}
	d := eventlog.Topic{Name: name, ID: t.ID, MaxRecord: l.maxRecord}
	for _, p := range t.parts {
		d.Partitions = append(d.Partitions, p.state())
	}
	return d, nil
}

// check refuses a call with an ended context or on a closed log.
func (l *Log) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-l.closing:
		return eventlog.ErrClosed
	default:
		return nil
	}
}

// turn waits for the turn to create or delete topics.
func (l *Log) turn(ctx context.Context) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	select {
	case l.creating <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closing:
		return eventlog.ErrClosed
	}
}

// EnsureTopic creates a topic unless it exists, and returns when it is durable.
func (l *Log) EnsureTopic(ctx context.Context, name string, partitions int32) error {
	if name == "" || partitions < 1 {
		return fmt.Errorf("create topic %q: a name and at least one partition are needed", name)
	}
	if err := l.turn(ctx); err != nil {
		return err
	}
	defer func() { <-l.creating }()
	if _, err := l.topic(name); err == nil {
		return nil
	}
	t := &topic{name: name, topicInfo: topicInfo{Number: l.nextTopic, ID: l.newID(), Partitions: partitions}}
	for i := range partitions {
		t.parts = append(t.parts, &partition{topic: t, index: i})
	}
	row, err := json.Marshal(t.topicInfo)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	l.nextTopic++ // never used twice, whatever becomes of this one
	err = l.commits.submit(ctx, &txn{ops: []op{
		{opSet, topicKey(name), row},
		{opSet, []byte{nextRow}, appendInt(int64(l.nextTopic))},
	}, then: func() {
		l.topicsMu.Lock()
		defer l.topicsMu.Unlock()
		l.topics[name] = t
	}})
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// DeleteTopic deletes a user's topic with its records and committed offsets. A topic that
// is created under the same name later has another id. ErrNoTopic when there is none.
func (l *Log) DeleteTopic(ctx context.Context, name string) error {
	if err := l.turn(ctx); err != nil {
		return err
	}
	defer func() { <-l.creating }()
	t, err := l.topic(name)
	if err != nil {
		return err
	}
	ops := []op{{kind: opDelete, key: topicKey(name)}}
	for i := range t.Partitions {
		for _, kind := range []byte{chunkRow, groupRow, startRow, epochRow} {
			ops = append(ops, op{opDeleteRange, partitionKey(kind, t.Number, i), partitionKey(kind, t.Number, i+1)})
		}
	}
	err = l.commits.submit(ctx, &txn{ops: ops, check: func() error {
		t.mu.Lock() // from here on nothing is appended
		defer t.mu.Unlock()
		t.deleted = true
		return nil
	}, then: func() {
		l.topicsMu.Lock()
		delete(l.topics, name)
		l.topicsMu.Unlock()
		for _, p := range t.parts {
			p.mu.Lock()
			p.wake()
			p.mu.Unlock()
		}
		l.groups.topicGone(t)
	}})
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", name, err)
	}
	return nil
}

// DeleteRecords drops the records of a partition below an offset, at most up to its end.
func (l *Log) DeleteRecords(ctx context.Context, name string, partition int32, below int64) error {
	t, err := l.topic(name)
	if err != nil {
		return err
	}
	p, err := t.partition(partition)
	if err != nil {
		return err
	}
	n := &txn{}
	n.check = func() error {
		if t.isDeleted() {
			return fmt.Errorf("%w: %s", eventlog.ErrNoTopic, name)
		}
		have := p.state()
		if below = min(below, have.End); below <= have.Start {
			below = have.Start
			return nil
		}
		n.ops = []op{
			{opSet, partitionKey(startRow, t.Number, partition), appendInt(below)},
			{opDeleteRange, partitionKey(chunkRow, t.Number, partition), chunkKey(t.Number, partition, below)},
		}
		return nil
	}
	n.then = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.start = max(p.start, below)
	}
	if err := l.commits.submit(ctx, n); err != nil {
		return fmt.Errorf("delete records of %s/%d: %w", name, partition, err)
	}
	return nil
}
