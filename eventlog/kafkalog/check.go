package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

func init() { eventlog.RegisterChecker("kafka", Check) }

const (
	// slowAnswer is an answer time of a broker that makes a commit slow: it takes several.
	slowAnswer = 5 * time.Millisecond
	// stockBackoff is the brokers' default of backoffSetting, in milliseconds.
	stockBackoff   = 20
	backoffSetting = "add.partitions.to.txn.retry.backoff.ms"
)

// Check looks at the brokers and the application's topics. It creates and changes nothing.
func Check(ctx context.Context, u *url.URL) ([]eventlog.Finding, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("the brokers did not answer in time"))
	defer cancel()
	cfg, err := parse(u)
	if err != nil {
		return nil, err
	}
	l, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	x := &exam{log: l}
	err = errors.Join(x.run(ctx), l.Close())
	return merged(x.found), err
}

// exam collects findings.
type exam struct {
	log     *kafkaLog
	brokers kadm.BrokerDetails
	found   []eventlog.Finding
}

// merged has findings that say the same of several topics as one.
func merged(found []eventlog.Finding) (out []eventlog.Finding) {
	for _, f := range found {
		at := slices.IndexFunc(out, func(o eventlog.Finding) bool {
			return o.Level == f.Level && o.Text == f.Text && o.Do == f.Do
		})
		if at < 0 {
			out = append(out, f)
		} else {
			out[at].Subject += ", " + strings.TrimPrefix(f.Subject, "topic ")
		}
	}
	return out
}

func (x *exam) add(level eventlog.Level, subject, text, do string) {
	x.found = append(x.found, eventlog.Finding{Level: level, Subject: subject, Text: text, Do: do})
}

// ok is a finding without anything to do.
func (x *exam) ok(subject, format string, args ...any) {
	x.add(eventlog.LevelOK, subject, fmt.Sprintf(format, args...), "")
}

func (x *exam) run(ctx context.Context) error {
	meta, err := x.log.adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("list brokers: %w", x.log.because(ctx, err))
	}
	x.brokers = meta.Brokers
	if err := x.versions(ctx); err != nil {
		return err
	}
	if err := x.answers(ctx); err != nil {
		return err
	}
	x.settings(ctx)
	if err := x.topics(ctx); err != nil {
		return err
	}
	x.relays(ctx)
	return nil
}

// openLong is how old a transaction is that readers are told of.
const openLong = time.Minute

// relays looks for transactions that keep the relays' topics from being read.
func (x *exam) relays(ctx context.Context) {
	groups, err := x.log.adm.ListGroups(ctx)
	if err != nil {
		x.add(eventlog.LevelUnknown, "relays", "their groups can't be listed: "+err.Error(), "")
		return
	}
	seen := map[string]bool{}
	for _, g := range groups.Sorted() {
		if !strings.HasPrefix(g.Group, x.log.cfg.app+".relay.") {
			continue
		}
		offsets, err := x.log.adm.FetchOffsets(ctx, g.Group)
		if err != nil {
			x.add(eventlog.LevelUnknown, "group "+g.Group, "its offsets can't be read: "+err.Error(), "")
			continue
		}
		for _, o := range offsets.Sorted() {
			subject := fmt.Sprintf("topic %s, partition %d", o.Topic, o.Partition)
			if seen[subject] {
				continue
			}
			seen[subject] = true
			upto, since, err := x.log.Stable(ctx, o.Topic, o.Partition)
			switch {
			case err != nil:
				x.add(eventlog.LevelUnknown, subject, err.Error(), "")
			case !since.IsZero() && time.Since(since) >= openLong:
				x.add(eventlog.LevelWrong, subject, fmt.Sprintf("a transaction is open since %s: messages from offset %d on are not delivered", since.UTC().Format(time.RFC3339), upto),
					"find it with kafka-transactions.sh find-hanging, and abort it")
			}
		}
	}
}

// versions looks at what the brokers are.
func (x *exam) versions(ctx context.Context) error {
	all, err := x.log.adm.ApiVersions(ctx)
	if err != nil && len(all) == 0 {
		return fmt.Errorf("ask for the brokers' versions: %w", x.log.because(ctx, err))
	}
	var versions []string
	for _, v := range all.Sorted() {
		if v.Err != nil {
			x.add(eventlog.LevelRisk, "brokers", fmt.Sprintf("broker %d does not answer: %v", v.NodeID, v.Err), "start it")
		} else if guess := v.VersionGuess(); !slices.Contains(versions, guess) {
			versions = append(versions, guess)
		}
	}
	x.ok("brokers", "%d: Kafka %s", len(x.brokers), strings.Join(versions, ", "))
	if err := x.log.checkVersion(ctx); err != nil {
		x.add(eventlog.LevelWrong, "transaction.version", err.Error(), "upgrade the brokers, then the feature")
	} else {
		x.ok("transaction.version", "2")
	}
	return nil
}

// answers measures how long a broker takes to answer.
func (x *exam) answers(ctx context.Context) error {
	var took []time.Duration
	for range 9 {
		start := time.Now()
		if _, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, x.log.cl); err != nil {
			return fmt.Errorf("ask a broker: %w", x.log.because(ctx, err))
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	text := fmt.Sprintf("a broker answers within %v", median.Round(10*time.Microsecond))
	if median > slowAnswer {
		x.add(eventlog.LevelSlow, "network", text+"; every commit waits for three answers", "run the workers nearer to the brokers")
	} else {
		x.ok("network", "%s", text)
	}
	return nil
}

// settings looks at the brokers' own settings, which not every user may read.
func (x *exam) settings(ctx context.Context) {
	configs, err := x.log.adm.DescribeBrokerConfigs(ctx, x.brokers.NodeIDs()...)
	if err == nil {
		for _, c := range configs {
			err = errors.Join(err, c.Err)
		}
	}
	if err != nil {
		do := ""
		if errors.Is(err, kerr.ClusterAuthorizationFailed) {
			do = "let the user DescribeConfigs on the cluster, or ask who runs it"
		}
		x.add(eventlog.LevelUnknown, "broker settings", "they can't be read: "+err.Error(), do)
		return
	}
	var seen []map[string]string // brokers mostly have all the same
	for _, c := range configs {
		have := valuesOf(c)
		if slices.ContainsFunc(seen, func(other map[string]string) bool { return maps.Equal(other, have) }) {
			continue
		}
		where := ""
		if len(seen) > 0 {
			where = " of broker " + c.Name
		}
		seen = append(seen, have)
		x.backoff(have[backoffSetting], where)
		x.limit(have, "transaction.max.timeout.ms", where, transactionTimeout, true, "no partition can be owned")
		x.limit(have, "group.min.session.timeout.ms", where, sessionTimeout, false, "no worker can join its group")
		x.limit(have, "group.max.session.timeout.ms", where, sessionTimeout, true, "no worker can join its group")
		if have["auto.create.topics.enable"] == "true" {
			x.ok("auto.create.topics"+where, "true: a mistyped topic is made with the brokers' defaults, by clients that ask for it; Dagger does not")
		}
		if have["unclean.leader.election.enable"] == "true" {
			x.add(eventlog.LevelRisk, "unclean.leader.election"+where, "true for topics that do not say otherwise: acknowledged messages of your own topics can be lost", "set unclean.leader.election.enable=false")
		}
	}
}

// backoff tells what the setting costs: little, as owners wait for the end of a transaction
// themselves (settle).
func (x *exam) backoff(value, where string) {
	ms, err := strconv.Atoi(value)
	switch {
	case err != nil:
		x.add(eventlog.LevelUnknown, backoffSetting+where, "the broker does not tell it", "")
	case ms > stockBackoff:
		x.add(eventlog.LevelSlow, backoffSetting+where, value+": a transaction that comes before the end of the last one is written waits so many ms", "set it to 20, the default, or less")
	case ms == stockBackoff:
		x.ok(backoffSetting+where, "20, the default: owners wait for the end of their transactions, which costs them little; your own transactional clients make some 80 transactions a second with one id, and many who run Kafka for others do not let you change it")
	default:
		x.ok(backoffSetting+where, "%s", value)
	}
}

// limit looks at a setting that must not be less (or more) than what Dagger uses.
func (x *exam) limit(have map[string]string, key, where string, ours time.Duration, atLeast bool, otherwise string) {
	ms, err := strconv.ParseInt(have[key], 10, 64)
	if err != nil {
		return // older or newer brokers do without it
	}
	theirs := time.Duration(ms) * time.Millisecond
	if atLeast && theirs < ours || !atLeast && theirs > ours {
		word := "most"
		if atLeast {
			word = "least"
		}
		x.add(eventlog.LevelWrong, key+where, fmt.Sprintf("%d: %s", ms, otherwise), fmt.Sprintf("set it to %d at %s", ours.Milliseconds(), word))
	}
}

// examinedSettings are those of the brokers that are looked at.
var examinedSettings = []string{
	backoffSetting, "transaction.max.timeout.ms", "group.min.session.timeout.ms", "group.max.session.timeout.ms",
	"auto.create.topics.enable", "unclean.leader.election.enable",
}

func valuesOf(r kadm.ResourceConfig) map[string]string {
	have := map[string]string{}
	for _, c := range r.Configs {
		if c.Value != nil && slices.Contains(examinedSettings, c.Key) {
			have[c.Key] = *c.Value
		}
	}
	return have
}

// topics looks at the application's topics.
func (x *exam) topics(ctx context.Context) error {
	own := x.log.cfg.appTopics()
	var names []string
	for _, t := range own {
		names = append(names, t.name)
	}
	meta, err := x.log.adm.Metadata(ctx, names...)
	if err != nil {
		return fmt.Errorf("look up topics: %w", denied(x.log.because(ctx, err), "Describe", "the topics", strings.Join(names, ", ")))
	}
	configs, configErr := x.log.adm.DescribeTopicConfigs(ctx, names...)
	for _, t := range own {
		d := meta.Topics[t.name]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			x.add(eventlog.LevelWrong, "topic "+t.name, "it does not exist", "start a worker, which creates it, or create it yourself (docs/operations.md)")
			continue
		case d.Err != nil:
			x.add(eventlog.LevelWrong, "topic "+t.name, denied(d.Err, "Describe", "topic", t.name).Error(), "")
			continue
		}
		have, err := map[string]string(nil), configErr
		if err == nil {
			have, err = settingsOf(configs, t.name)
		}
		if err != nil {
			x.add(eventlog.LevelWrong, "topic "+t.name, "its settings can't be read: "+denied(err, "DescribeConfigs", "topic", t.name).Error(), "")
			continue
		}
		x.topic(t, d, have)
	}
	x.internal(ctx, "__transaction_state")
	x.internal(ctx, "__consumer_offsets")
	if d := meta.Topics[eventlog.EventsTopic(x.log.cfg.app)]; d.Err == nil {
		x.clock(ctx, int32(len(d.Partitions)))
	}
	return nil
}

// internal looks at a topic in which the brokers keep transactions or positions, if they let
// this user.
func (x *exam) internal(ctx context.Context, name string) {
	meta, err := x.log.adm.Metadata(ctx, name)
	d := meta.Topics[name]
	if err == nil {
		err = d.Err
	}
	subject := "topic " + name
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return // made at first use
	case err != nil:
		x.add(eventlog.LevelUnknown, subject, "it can't be looked at: "+err.Error(), "let the user Describe and DescribeConfigs it, or ask who runs the brokers")
		return
	}
	have := map[string]string{}
	if configs, err := x.log.adm.DescribeTopicConfigs(ctx, name); err == nil {
		have, _ = settingsOf(configs, name) // who may not read them may not mend them
	}
	before := len(x.found)
	if x.replicas(subject, d, have); len(x.found) == before {
		x.ok(subject, "%d replicas", d.Partitions.NumReplicas())
	}
}

// topic looks at one of the application's own.
func (x *exam) topic(t appTopic, d kadm.TopicDetail, have map[string]string) {
	subject, before := "topic "+t.name, len(x.found)
	if n := int32(len(d.Partitions)); n != t.partitions {
		x.add(eventlog.LevelWrong, subject, fmt.Sprintf("%d partitions, not %d: it is refused", n, t.partitions), "name the right count in the URL (partitions=); that of a topic can't be changed")
	}
	for _, s := range t.must {
		if v, known := have[s.key]; known && v != s.want {
			x.add(eventlog.LevelWrong, subject, fmt.Sprintf("%s=%s: %s; it is refused", s.key, v, s.otherwise), fmt.Sprintf("set %s=%s", s.key, s.want))
		}
	}
	x.replicas(subject, d, have)
	if n, err := strconv.Atoi(have["max.message.bytes"]); err == nil && n < defaultMaxBatch {
		x.add(eventlog.LevelRisk, subject, fmt.Sprintf("max.message.bytes=%d: events with larger parameters are refused", n), fmt.Sprintf("set max.message.bytes=%d or more", defaultMaxBatch))
	}
	if c := have["compression.type"]; c != "" && c != "producer" {
		x.add(eventlog.LevelSlow, subject, "compression.type="+c+": the brokers compress everything again", "set compression.type=producer")
	}
	if ms, err := strconv.ParseInt(have["retention.ms"], 10, 64); err == nil && ms >= 0 && t.must == nil {
		x.add(eventlog.LevelRisk, subject, fmt.Sprintf("retention.ms=%d: dead letters are dropped after %v", ms, time.Duration(ms)*time.Millisecond), "set retention.ms=-1, or take them out in time")
	}
	if len(x.found) == before {
		x.ok(subject, "%d partitions, %d replicas, records up to %s bytes", len(d.Partitions), d.Partitions.NumReplicas(), have["max.message.bytes"])
	}
}

// replicas looks at how many copies there are, and how many must have a record before it is
// acknowledged.
func (x *exam) replicas(subject string, d kadm.TopicDetail, have map[string]string) {
	replicas := d.Partitions.NumReplicas()
	insync, err := strconv.Atoi(have["min.insync.replicas"])
	switch {
	case replicas == 1:
		x.add(eventlog.LevelRisk, subject, "1 replica: with the disk of its broker everything is lost", "use three brokers and three replicas (kafka-reassign-partitions.sh)")
	case replicas == 2:
		x.add(eventlog.LevelRisk, subject, "2 replicas: either it stops with one broker, or one broker's copy is enough for an acknowledgement", "use three replicas")
	case err == nil && insync < 2:
		x.add(eventlog.LevelRisk, subject, "min.insync.replicas=1: what one broker alone has is acknowledged, and lost with it", "set min.insync.replicas=2")
	case err == nil && insync >= replicas:
		x.add(eventlog.LevelRisk, subject, fmt.Sprintf("min.insync.replicas=%d of %d replicas: it stops with any one broker", insync, replicas), "set min.insync.replicas=2")
	}
	var leaderless, behind []string
	for _, p := range slices.Sorted(maps.Keys(d.Partitions)) {
		part := d.Partitions[p]
		if part.Leader < 0 {
			leaderless = append(leaderless, strconv.Itoa(int(p)))
		} else if len(part.ISR) < len(part.Replicas) {
			behind = append(behind, strconv.Itoa(int(p)))
		}
	}
	if len(leaderless) > 0 {
		x.add(eventlog.LevelWrong, subject, "no leader for partition "+strings.Join(leaderless, ", "), "start the brokers that have it")
	}
	if len(behind) > 0 {
		x.add(eventlog.LevelRisk, subject, "replicas are missing or lag behind, of partition "+strings.Join(behind, ", "), "look at the brokers")
	}
}
