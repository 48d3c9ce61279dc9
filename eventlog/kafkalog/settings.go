package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/godagger/dagger/eventlog"
)

// appTopic is one of the application's own topics: how it is created, and which settings an
// existing one must have so that nothing of it gets lost.
type appTopic struct {
	name       string
	partitions int32
	create     map[string]string
	must       []setting
}

// setting is a topic setting that must have a value, and what happens with another one.
type setting struct{ key, want, otherwise string }

func (c *config) appTopics() []appTopic {
	const (
		compacts = "compaction drops records that are still needed"
		expires  = "records would be dropped before they are used"
		unclean  = "a replica that lags behind may become leader and drop acknowledged records"
	)
	keep := []setting{
		{"cleanup.policy", "delete", compacts},
		{"retention.ms", "-1", expires},
		{"retention.bytes", "-1", expires},
		{"unclean.leader.election.enable", "false", unclean},
	}
	forever := func(segment string) map[string]string {
		return map[string]string{
			"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1",
			"segment.bytes": segment, "compression.type": "producer", "message.timestamp.type": "CreateTime",
			"unclean.leader.election.enable": "false",
		}
	}
	requests := forever(strconv.Itoa(256 << 20))
	requests["segment.ms"] = strconv.FormatInt((24 * time.Hour).Milliseconds(), 10) // consumed ones can be deleted by the day
	definitions := map[string]string{
		"cleanup.policy": "compact", "segment.bytes": strconv.Itoa(64 << 20), "min.cleanable.dirty.ratio": "0.1",
		"max.compaction.lag.ms":          strconv.FormatInt(time.Hour.Milliseconds(), 10),
		"unclean.leader.election.enable": "false",
	}
	return []appTopic{
		{eventlog.RequestsTopic(c.app), c.partitions, requests, keep},
		{eventlog.EventsTopic(c.app), c.partitions, forever(strconv.Itoa(512 << 20)), keep},
		{eventlog.DefinitionsTopic(c.app), 1, definitions, []setting{
			{"cleanup.policy", "compact", "definitions would be dropped by age"},
			{"unclean.leader.election.enable", "false", unclean},
		}},
		{eventlog.DeadLetterTopic(c.app), 1, map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"}, nil},
	}
}

// createAppTopics creates what is missing.
func (l *kafkaLog) createAppTopics(ctx context.Context) error {
	all := l.cfg.appTopics()
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.name
	}
	meta, err := l.adm.Metadata(ctx, names...)
	if err != nil {
		return fmt.Errorf("list topics: %w", denied(l.because(ctx, err), "Describe", "the topics", strings.Join(names, ", ")))
	}
	for _, t := range all {
		d := meta.Topics[t.name]
		if d.Err == nil && len(d.Partitions) > 0 {
			continue
		}
		if !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("look up topic %s: %w", t.name, denied(d.Err, "Describe", "topic", t.name))
		}
		if err := l.createTopic(ctx, t.name, t.partitions, t.create); err != nil {
			return err
		}
	}
	return nil
}

// findAppTopics creates nothing: what is missing is ErrNoTopic. The count of partitions is
// that of the events, where the URL names none.
func (l *kafkaLog) findAppTopics(ctx context.Context) error {
	all := l.cfg.appTopics()
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.name
	}
	meta, err := l.adm.Metadata(ctx, names...)
	if err != nil {
		return fmt.Errorf("list topics: %w", denied(l.because(ctx, err), "Describe", "the topics", strings.Join(names, ", ")))
	}
	var missing []string
	for _, t := range all {
		d := meta.Topics[t.name]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition), d.Err == nil && len(d.Partitions) == 0:
			missing = append(missing, t.name)
		case d.Err != nil:
			return fmt.Errorf("look up topic %s: %w", t.name, denied(d.Err, "Describe", "topic", t.name))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s; is there no application %s, or is the name in the URL wrong?", eventlog.ErrNoTopic, strings.Join(missing, ", "), l.cfg.app)
	}
	if !l.cfg.counted {
		l.cfg.partitions = int32(len(meta.Topics[eventlog.EventsTopic(l.cfg.app)].Partitions))
	}
	return nil
}

// createTopic creates a topic and waits until all its partitions have a leader. That it
// exists already is no error.
func (l *kafkaLog) createTopic(ctx context.Context, name string, partitions int32, settings map[string]string) error {
	meta, err := l.adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, l.because(ctx, err))
	}
	replication := l.cfg.replication
	if replication == 0 {
		replication = int16(min(3, max(1, len(meta.Brokers))))
	}
	configs := map[string]*string{}
	for k, v := range settings {
		configs[k] = &v
	}
	if replication >= 3 {
		two := "2"
		configs["min.insync.replicas"] = &two
	}
	resp, err := l.adm.CreateTopics(ctx, partitions, replication, configs, name)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, l.because(ctx, err))
	}
	if r := resp[name]; r.Err != nil && !errors.Is(r.Err, kerr.TopicAlreadyExists) {
		if r.ErrMessage != "" {
			return fmt.Errorf("create topic %s: %w: %s", name, denied(r.Err, "Create", "topic", name), r.ErrMessage)
		}
		return fmt.Errorf("create topic %s: %w", name, denied(r.Err, "Create", "topic", name))
	}
	return l.awaitLeaders(ctx, name)
}

func (l *kafkaLog) awaitLeaders(ctx context.Context, name string) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		meta, err := l.adm.Metadata(ctx, name)
		if err == nil {
			t := meta.Topics[name]
			ready := t.Err == nil && len(t.Partitions) > 0
			for _, p := range t.Partitions {
				ready = ready && p.Err == nil && p.Leader >= 0
			}
			if ready {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for topic %s: %w", name, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// checkAppTopics refuses topics with which events would be lost, or with another count of
// partitions. It reports every such topic.
func (l *kafkaLog) checkAppTopics(ctx context.Context) error {
	all := l.cfg.appTopics()
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.name
	}
	// They exist, or were created just now: of several brokers the one that is asked may not
	// have heard of it yet.
	var meta kadm.Metadata
	var err error
	l.persist(ctx, func() bool {
		meta, err = l.adm.Metadata(ctx, names...)
		return err != nil && !brokerAway(err) || err == nil && !slices.ContainsFunc(names, func(name string) bool {
			return len(meta.Topics[name].Partitions) == 0
		})
	})
	if err != nil {
		return fmt.Errorf("look up topics: %w", l.because(ctx, err))
	}
	configs, err := l.adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("read topic settings: %w", denied(l.because(ctx, err), "DescribeConfigs", "topic", strings.Join(names, ", ")))
	}
	var errs []error
	for _, t := range all {
		if n := int32(len(meta.Topics[t.name].Partitions)); n != t.partitions {
			hint := ""
			if t.partitions == l.cfg.partitions && n > 0 && t.must != nil {
				hint = fmt.Sprintf(" (open it with partitions=%d; the count can't be changed)", n)
			}
			errs = append(errs, fmt.Errorf("%w: topic %s has %d partitions, not %d%s", eventlog.ErrPartitions, t.name, n, t.partitions, hint))
		}
		have, err := settingsOf(configs, t.name)
		if err != nil {
			return fmt.Errorf("read the settings of topic %s: %w", t.name, denied(err, "DescribeConfigs", "topic", t.name))
		}
		for _, s := range t.must {
			if v, known := have[s.key]; known && v != s.want {
				errs = append(errs, fmt.Errorf("%w: topic %s has %s=%s: %s; set %s=%s", eventlog.ErrSettings, t.name, s.key, v, s.otherwise, s.key, s.want))
			}
		}
	}
	return errors.Join(errs...)
}

func settingsOf(configs kadm.ResourceConfigs, topic string) (map[string]string, error) {
	r, err := configs.On(topic, nil)
	if err != nil {
		return nil, err
	}
	if r.Err != nil {
		return nil, r.Err
	}
	have := map[string]string{}
	for _, c := range r.Configs {
		if c.Value != nil {
			have[c.Key] = *c.Value
		}
	}
	return have, nil
}
