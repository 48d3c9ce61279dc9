package policy

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/internal/kafkatest"
)

// TestACLs uses a log with the rights that docs/operations.md gives and no other.
func TestACLs(t *testing.T) {
	acls := documented(t)
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "admin", "sesame"), kfake.User("PLAIN", "pizza", "sesame", acls...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	open := func(user, app string) eventlog.Log {
		l, err := eventlog.Open(ctx, fmt.Sprintf("kafka://%s:sesame@%s/%s?partitions=2&sasl=plain&allow-plaintext=true", user, strings.Join(c.ListenAddrs(), ","), app))
		if err != nil {
			t.Fatalf("open as %s: %v", user, err)
		}
		return l
	}
	no := func(err error, what string) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	admin := open("admin", "other")
	defer admin.Close()
	for _, topic := range []string{"order_status_topic", "pizza_order_topic", "others_topic"} {
		no(admin.EnsureTopic(ctx, topic, 1), "create a topic")
	}
	no(admin.Publish(ctx, eventlog.Record{Topic: "order_status_topic", Value: []byte("{}")}), "publish")

	l := open("pizza", "pizza")
	defer l.Close()
	no(l.EnsureTopic(ctx, "order_status_topic", 1), "look for a topic that exists")

	m, err := l.Join(ctx, "pizza.owners", eventlog.RequestsTopic("pizza"))
	if err != nil {
		t.Fatalf("join: %v", err)
	}
	assigned, err := m.Assigned(ctx)
	no(err, "assigned")
	if len(assigned) > 0 {
		no(m.Commit(ctx, assigned[0], 0), "commit an offset")
	}
	no(m.Close(), "leave")

	o, err := l.Own(ctx, 0)
	if err != nil {
		t.Fatalf("own: %v", err)
	}
	defer o.Close()
	_, err = o.Append(ctx, [][]byte{eventlog.Barrier}, []eventlog.Type{eventlog.BarrierType},
		[]eventlog.Record{{Topic: "pizza_order_topic", Partition: -1, Value: []byte("{}")}, {Topic: eventlog.DeadLetterTopic("pizza"), Value: []byte("{}")}})
	no(err, "append")
	no(o.Commit(ctx), "commit")

	p, err := l.Publisher(ctx)
	if err != nil {
		t.Fatalf("publisher: %v", err)
	}
	no(p.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic("pizza"), Value: []byte("{}")}), "forward")
	no(p.Close(), "close the publisher")
	no(l.DeleteRecords(ctx, eventlog.RequestsTopic("pizza"), 0, 1), "delete consumed requests")
	no(l.Publish(ctx, eventlog.Record{Topic: eventlog.DefinitionsTopic("pizza"), Key: []byte("k"), Value: []byte("{}")}), "record a definition")

	for _, topic := range []string{"order_status_topic", eventlog.EventsTopic("pizza")} {
		info, err := l.Topic(ctx, topic)
		no(err, "describe "+topic)
		_, err = l.OffsetAt(ctx, topic, time.Now())
		no(err, "find offsets of "+topic)
		r, err := l.Read(ctx, topic, 0, 0, info.ID, eventlog.ReadCommitted)
		if err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		records, _, err := r.Next(ctx)
		no(err, "read "+topic)
		if len(records) == 0 {
			t.Errorf("nothing was read of %s", topic)
		}
		no(r.Close(), "close a reader")
	}

	if err := l.Publish(ctx, eventlog.Record{Topic: "others_topic", Value: []byte("{}")}); err == nil {
		t.Error("the rights allow more than they should")
	}
}

// documented are the rights of docs/operations.md.
func documented(t *testing.T) []kfake.ACL {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	found, err := kafkatest.DocumentedACLs(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	var acls []kfake.ACL
	for _, f := range found {
		a := kfake.ACL{Resource: f.Resource, Name: f.Name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: f.Operation, Allow: true}
		if f.Prefixed {
			a.Pattern = kmsg.ACLResourcePatternTypePrefixed
		}
		acls = append(acls, a)
	}
	return acls
}
