package workflow_test

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/internal/kafkatest"
	"github.com/godagger/dagger/workflow"
)

// TestReadyOnKafka takes rights away from a running engine: it is no longer ready and says
// what is missing, and is ready again when they are back. Only make it has real brokers.
func TestReadyOnKafka(t *testing.T) {
	if os.Getenv("KAFKA_BROKERS") == "" {
		t.Skip("KAFKA_BROKERS names no broker: only make it runs real ones")
	}
	const password = "s3same-0pen"
	b, err := kafkatest.Start(t.Context(), kafkatest.Options{Authorize: true, Users: map[string]string{"pizza": password}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	}()
	acls, err := kafkatest.DocumentedACLs("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := eventlog.Open(t.Context(), "kafka://"+b.Addr()+"/other?partitions=1")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.EnsureTopic(t.Context(), "order_status_topic", 2); err != nil {
		t.Fatal(err)
	}
	allow := func(acls []kafkatest.ACL) {
		t.Helper()
		if err := b.SetACLs(t.Context(), "pizza", acls); err != nil {
			t.Fatal(err)
		}
	}
	allow(acls)

	eng, err := workflow.Open(t.Context(), workflow.Config{
		Log: "kafka://pizza:" + password + "@" + b.SecureAddr() + "/pizza?partitions=2&tls=true&sasl=scram-sha-256&ca=" +
			url.QueryEscape(b.Authority().File()),
		Store: "mem:", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	type order struct {
		ID string `json:"id"`
	}
	def := workflow.New("Pizza", workflow.Process("Order", workflow.Listen("ready", "order_status_topic",
		workflow.By("id", func(o *order) string { return o.ID }, func(m *order) string { return m.ID }),
		func(context.Context, *order, order) (bool, error) { return true, nil })))
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer func() {
		stop()
		running.Wait()
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	}()
	ready := func(says string) { // "" = it is
		t.Helper()
		var err error
		for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); {
			err = eng.Ready(ctx)
			if says == "" && err == nil && len(eng.Partitions()) == 2 || says != "" && err != nil && strings.Contains(err.Error(), says) {
				if err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("the password stands in the reasons: %v", err)
				}
				return
			}
			<-time.After(50 * time.Millisecond)
		}
		t.Fatalf("wanted %q, ready says %v", says, err)
	}
	ready("")
	for _, missing := range []struct{ acl, says string }{
		{"WRITE on transactional id pizza/*", "the user needs Write on transactional id pizza/"},
		{"READ on group pizza.*", "the user needs Read on group pizza."},
		{"READ on topic order_status_topic", "the user needs Read on topic order_status_topic"},
	} {
		rest := slices.DeleteFunc(slices.Clone(acls), func(a kafkatest.ACL) bool { return a.String() == missing.acl })
		if len(rest) != len(acls)-1 {
			t.Fatalf("%s is not among %v", missing.acl, acls)
		}
		allow(rest)
		// Work finds out: the right to write is asked for at the next transaction.
		starting, cancel := context.WithTimeout(ctx, 2*time.Second)
		for _, id := range []string{"a", "b", "c", "d"} {
			_, _ = def.Start(starting, eng, id+"-"+missing.says, order{ID: id})
		}
		cancel()
		start := time.Now()
		ready(missing.says)
		allow(acls)
		gone := time.Since(start)
		ready("")
		t.Logf("%s: said after %v, ready again %v later", missing.says, gone, time.Since(start)-gone)
	}
}
