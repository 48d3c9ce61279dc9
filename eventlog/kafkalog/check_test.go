package kafkalog

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
)

// TestCheck looks at brokers that nobody has used, at a sound log, and at one whose settings
// were spoilt; and that looking changes nothing.
func TestCheck(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3))
	addrs, app := strings.Join(c.ListenAddrs(), ","), newApp()
	adm := admin(t, addrs)
	u := appURL(addrs, app, "partitions=2")
	check := func() []eventlog.Finding {
		t.Helper()
		found, err := eventlog.Check(t.Context(), u.String())
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	want := func(found []eventlog.Finding, level eventlog.Level, subject, says string) {
		t.Helper()
		if !slices.ContainsFunc(found, func(f eventlog.Finding) bool {
			return f.Level == level && strings.Contains(f.Subject, subject) && strings.Contains(f.Text, says)
		}) {
			t.Errorf("there is no %s of %s that says %q in %+v", level, subject, says, found)
		}
	}
	want(check(), eventlog.LevelWrong, app+".events", "does not exist")
	topics, err := adm.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name := range topics {
		if strings.HasPrefix(name, app) {
			t.Errorf("looking made the topic %s", name)
		}
	}

	l, err := Open(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	found := check()
	want(found, eventlog.LevelUnknown, "clocks", "no events yet")
	for _, name := range []string{eventlog.EventsTopic(app), eventlog.RequestsTopic(app), eventlog.DefinitionsTopic(app), eventlog.DeadLetterTopic(app)} {
		want(found, eventlog.LevelOK, name, "3 replicas")
	}
	for _, f := range found {
		if f.Level.Bad() {
			t.Errorf("a sound log: %+v", f)
		}
	}
	o, err := l.Own(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Append(t.Context(), [][]byte{eventlog.Barrier}, []eventlog.Type{eventlog.BarrierType}, nil); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = o.Close()
	for _, f := range check() {
		if f.Subject == "clocks" && f.Level.Bad() {
			t.Errorf("the clocks: %+v", f)
		}
	}

	for topic, settings := range map[string]map[string]string{
		".events":      {"retention.ms": "60000", "min.insync.replicas": "1", "max.message.bytes": "1000"},
		".requests":    {"cleanup.policy": "compact", "min.insync.replicas": "3", "compression.type": "gzip"},
		".definitions": {"cleanup.policy": "delete", "unclean.leader.election.enable": "true"},
		".deadletter":  {"retention.ms": "60000"},
	} {
		var changes []kadm.AlterConfig
		for k, v := range settings {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
		}
		if _, err := adm.AlterTopicConfigs(t.Context(), changes, app+topic); err != nil {
			t.Fatal(err)
		}
	}
	found = check()
	want(found, eventlog.LevelWrong, app+".events", "retention.ms=60000")
	want(found, eventlog.LevelRisk, app+".events", "min.insync.replicas=1")
	want(found, eventlog.LevelRisk, app+".events", "max.message.bytes=1000")
	want(found, eventlog.LevelWrong, app+".requests", "cleanup.policy=compact")
	want(found, eventlog.LevelRisk, app+".requests", "min.insync.replicas=3 of 3")
	want(found, eventlog.LevelSlow, app+".requests", "compression.type=gzip")
	want(found, eventlog.LevelWrong, app+".definitions", "cleanup.policy=delete")
	want(found, eventlog.LevelWrong, app+".definitions", "unclean.leader.election.enable=true")
	want(found, eventlog.LevelRisk, app+".deadletter", "dropped after 1m0s")
	u.RawQuery = "partitions=5"
	want(check(), eventlog.LevelWrong, app+".events", "2 partitions, not 5")

	u.Host = "127.0.0.1:1"
	if _, err := eventlog.Check(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("brokers that are away: %v", err)
	}
}
