package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/godagger/dagger/eventlog"
)

const (
	// defaultMaxBatch is assumed where a topic's max.message.bytes is not known.
	defaultMaxBatch = 1_000_012
	// mostBatch keeps a batch below what a client sends in one request.
	mostBatch = 64 << 20
	// batchOverhead is more than a batch's header and a record's own lengths take.
	batchOverhead = 1 << 10
	// topicAge is how long a topic's partition count and size limit are taken for granted.
	topicAge = time.Minute
)

// topicInfo is what producers and readers must know of a topic.
type topicInfo struct {
	id         kadm.TopicID
	partitions int32
	leaders    []leader // of the partitions, as last seen
	maxBatch   int32    // bytes
	read       time.Time
}

// leader is a broker, -1 where the partition has none, since an epoch.
type leader struct{ node, epoch int32 }

// has says that a topic is the one with an id, if one is named, and has a partition.
func (t topicInfo) has(partition int32, topicID string) error {
	if topicID != "" && topicID != t.id.String() {
		return fmt.Errorf("%w: its id is %s, not %s", eventlog.ErrTopicChanged, t.id, topicID)
	}
	if partition < 0 || partition >= t.partitions {
		return fmt.Errorf("%w: it has %d partitions", eventlog.ErrNoTopic, t.partitions)
	}
	return nil
}

func (t topicInfo) maxRecord() int { return int(t.maxBatch) - batchOverhead }

// topicCache remembers topics between produces.
type topicCache struct {
	log   *kafkaLog
	mu    sync.Mutex
	known map[string]topicInfo
	ids   map[string]kadm.TopicID // as last seen
	// changes counts topics that were found to be created again. A producer holds on to the
	// old topic, and must be replaced.
	changes int
}

// get is the topic, or ErrNoTopic. It asks the brokers at most once a minute for a topic
// that exists.
func (c *topicCache) get(ctx context.Context, name string) (topicInfo, error) {
	c.mu.Lock()
	t, ok := c.known[name]
	c.mu.Unlock()
	if ok && time.Since(t.read) < topicAge {
		return t, nil
	}
	return c.read(ctx, name)
}

func (c *topicCache) read(ctx context.Context, name string) (topicInfo, error) {
	meta, err := c.log.metadata(ctx, name)
	if err != nil {
		return topicInfo{}, fmt.Errorf("look up topic %s: %w", name, denied(c.log.because(ctx, err), "Describe", "topic", name))
	}
	d := meta.Topics[name]
	if noTopic(d.Err) || d.Err == nil && len(d.Partitions) == 0 {
		c.forget(name)
		return topicInfo{}, fmt.Errorf("%w: %s", eventlog.ErrNoTopic, name)
	}
	if d.Err != nil {
		return topicInfo{}, fmt.Errorf("look up topic %s: %w", name, denied(d.Err, "Describe", "topic", name))
	}
	if n, want := len(d.Partitions), c.log.cfg.partitions; n < int(want) && c.log.partitioned(name) {
		c.forget(name)
		return topicInfo{}, fmt.Errorf("%w: topic %s has %d, not %d: it was created again, and what it held is lost", eventlog.ErrPartitions, name, n, want)
	}
	t := topicInfo{id: d.ID, partitions: int32(len(d.Partitions)), maxBatch: defaultMaxBatch, read: time.Now()}
	for p := range t.partitions {
		at := leader{-1, -1}
		if d, there := d.Partitions[p]; there {
			at = leader{d.Leader, d.LeaderEpoch}
		}
		t.leaders = append(t.leaders, at)
	}
	configs, err := c.log.adm.DescribeTopicConfigs(ctx, name)
	if err == nil {
		var have map[string]string
		if have, err = settingsOf(configs, name); err == nil {
			if n, err := strconv.Atoi(have["max.message.bytes"]); err == nil {
				t.maxBatch = int32(min(n, mostBatch))
			}
		}
	}
	if noTopic(err) { // it was deleted meanwhile
		c.forget(name)
		return topicInfo{}, fmt.Errorf("%w: %s", eventlog.ErrNoTopic, name)
	}
	// Who may write a topic may not always read its settings.
	if err != nil && !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return topicInfo{}, fmt.Errorf("read the settings of topic %s: %w", name, c.log.because(ctx, err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known, c.ids = map[string]topicInfo{}, map[string]kadm.TopicID{}
	}
	if id, seen := c.ids[name]; seen && id != t.id {
		c.changes++
	}
	c.known[name], c.ids[name] = t, t.id
	return t, nil
}

// partitioned tells whether a topic has the application's count of partitions, which no call
// may find to be less: who knows the count counts on it.
func (l *kafkaLog) partitioned(name string) bool {
	return name == eventlog.EventsTopic(l.cfg.app) || name == eventlog.RequestsTopic(l.cfg.app)
}

func (c *topicCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, name)
}

func (c *topicCache) changed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// maxBatch is for the client, which asks when it fills a batch.
func (c *topicCache) maxBatch(name string) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.known[name]; ok {
		return t.maxBatch
	}
	return defaultMaxBatch
}

// EnsureTopic creates a topic with the brokers' default settings.
func (l *kafkaLog) EnsureTopic(ctx context.Context, name string, partitions int32) error {
	if _, err := l.topics.read(ctx, name); err == nil || !errors.Is(err, eventlog.ErrNoTopic) {
		return err
	}
	return l.createTopic(ctx, name, partitions, nil)
}

func (l *kafkaLog) Topic(ctx context.Context, name string) (eventlog.Topic, error) {
	t, err := l.topics.read(ctx, name)
	if err != nil {
		return eventlog.Topic{}, err
	}
	starts, err := l.offsets(ctx, name, l.adm.ListStartOffsets)
	if err != nil {
		return eventlog.Topic{}, fmt.Errorf("list start offsets of %s: %w", name, l.because(ctx, err))
	}
	ends, err := l.offsets(ctx, name, l.adm.ListEndOffsets)
	if err != nil {
		return eventlog.Topic{}, fmt.Errorf("list end offsets of %s: %w", name, l.because(ctx, err))
	}
	out := eventlog.Topic{Name: name, ID: t.id.String(), MaxRecord: t.maxRecord()}
	for p := range t.partitions {
		start, err := listed(starts, name, p)
		if err != nil {
			return eventlog.Topic{}, err
		}
		end, err := listed(ends, name, p)
		if err != nil {
			return eventlog.Topic{}, err
		}
		out.Partitions = append(out.Partitions, eventlog.Partition{Start: start, End: end})
	}
	return out, nil
}

func (l *kafkaLog) OffsetAt(ctx context.Context, name string, at time.Time) ([]int64, error) {
	t, err := l.topics.read(ctx, name)
	if err != nil {
		return nil, err
	}
	// Kafka has milliseconds; a record is not older than t when its time is at or after
	// the next whole one.
	ms := at.Add(time.Millisecond - 1).UnixMilli()
	found, err := l.offsets(ctx, name, func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
		return l.adm.ListOffsetsAfterMilli(ctx, max(ms, 0), names...)
	})
	if err != nil {
		return nil, fmt.Errorf("list offsets of %s by time: %w", name, l.because(ctx, err))
	}
	ends, err := l.offsets(ctx, name, l.adm.ListEndOffsets)
	if err != nil {
		return nil, fmt.Errorf("list end offsets of %s: %w", name, l.because(ctx, err))
	}
	offsets := make([]int64, t.partitions)
	for p := range t.partitions {
		if offsets[p], err = listed(found, name, p); err == nil && offsets[p] < 0 {
			offsets[p], err = listed(ends, name, p)
		}
		if err != nil {
			return nil, err
		}
	}
	return offsets, nil
}

func listed(all kadm.ListedOffsets, topic string, partition int32) (int64, error) {
	o, ok := all.Lookup(topic, partition)
	if !ok {
		return 0, fmt.Errorf("list offsets of %s: the brokers left out partition %d", topic, partition)
	}
	if noTopic(o.Err) {
		return 0, fmt.Errorf("%w: %s", eventlog.ErrNoTopic, topic)
	}
	if o.Err != nil {
		return 0, fmt.Errorf("list offsets of %s, partition %d: %w", topic, partition, denied(o.Err, "Describe", "topic", topic))
	}
	return o.Offset, nil
}

func (l *kafkaLog) DeleteRecords(ctx context.Context, name string, partition int32, below int64) error {
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: name, Partition: partition, At: below, LeaderEpoch: -1})
	resp, err := l.adm.DeleteRecords(ctx, offsets)
	if err == nil {
		err = resp.Error()
	}
	switch {
	case noTopic(err):
		return fmt.Errorf("%w: %s, partition %d", eventlog.ErrNoTopic, name, partition)
	case errors.Is(err, kerr.OffsetOutOfRange):
		// Below the start there is nothing to delete.
		starts, listErr := l.offsets(ctx, name, l.adm.ListStartOffsets)
		if start, e := listed(starts, name, partition); listErr == nil && e == nil && below <= start {
			return nil
		}
		fallthrough
	case err != nil:
		return fmt.Errorf("delete records of %s, partition %d: %w", name, partition, denied(l.because(ctx, err), "Delete", "topic", name))
	}
	return nil
}
