package kafkatest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

// buildPizza is the example as a program.
func buildPizza(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "pizza")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/pizza").CombinedOutput(); err != nil {
		t.Fatalf("build the example: %v\n%s", err, out)
	}
	return program
}

// shopper runs the example.
type shopper struct {
	program, log string
	made         int // orders so far
}

// order has the example take n new orders. It ends when they are done, when its output has
// wanted in it, or after a minute; ok says that all were completed.
func (s *shopper) order(t *testing.T, n int, wanted string) (output string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, "-orders", "-", "-log", s.log, "-store", "mem:")
	var orders strings.Builder
	for range n {
		s.made++
		fmt.Fprintf(&orders, `{"order_id":"%d","customer_id":"1","pizza_type":"funghi"}`+"\n", s.made)
	}
	cmd.Stdin = strings.NewReader(orders.String())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = 20 * time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the program has its own
	var reading sync.WaitGroup
	reading.Go(func() {
		var all strings.Builder
		for lines := bufio.NewScanner(io.TeeReader(r, &all)); lines.Scan(); {
			if wanted != "" && strings.Contains(lines.Text(), wanted) {
				cancel()
			}
		}
		output = all.String()
	})
	err = cmd.Wait()
	reading.Wait()
	_ = r.Close()
	return output, err == nil
}

// TestACLs runs the example as a user with exactly the rights that docs/operations.md gives,
// and with each of them taken away: it then says which is missing.
func TestACLs(t *testing.T) {
	realOnly(t)
	acls, err := DocumentedACLs("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, Options{Authorize: true, Users: map[string]string{"pizza": password}})
	raw := "kafka://pizza:" + password + "@" + b.SecureAddr() + "/pizza?partitions=2&tls=true&sasl=scram-sha-512&ca=" + url.QueryEscape(b.Authority().File())
	s := &shopper{program: buildPizza(t), log: raw}
	without := func(a ACL) {
		t.Helper()
		rest := slices.DeleteFunc(slices.Clone(acls), func(o ACL) bool { return o == a })
		if err := b.SetACLs(t.Context(), "pizza", rest); err != nil {
			t.Fatal(err)
		}
	}
	check := func(t *testing.T, a ACL, output string) {
		t.Helper()
		says := "the user needs " + a.words()
		if !strings.Contains(output, says) {
			t.Errorf("without %s the output does not say %q:\n%s", a, says, output)
		}
		if strings.Contains(output, password) {
			t.Errorf("without %s the password is in the output:\n%s", a, output)
		}
	}
	create := slices.IndexFunc(acls, func(a ACL) bool { return a.Operation == kmsg.ACLOperationCreate })
	without(acls[create]) // first, as long as there are no topics
	output, ok := s.order(t, 1, "")
	if check(t, acls[create], output); ok {
		t.Error("without Create topics were created")
	}

	ordered, err := eventlog.Open(t.Context(), "kafka://"+b.Addr()+"/other?partitions=1")
	if err != nil {
		t.Fatal(err)
	}
	defer ordered.Close()
	for _, topic := range []string{"pizza_order_topic", "order_status_topic"} {
		if err := ordered.EnsureTopic(t.Context(), topic, 2); err != nil {
			t.Fatal(err)
		}
	}
	without(ACL{})
	start := time.Now()
	if output, ok := s.order(t, 20, ""); !ok {
		t.Fatalf("with the documented rights:\n%s", output)
	}
	t.Logf("with the documented rights: 20 orders in %v", time.Since(start))

	// The doctor may not look at the brokers' settings, and says so.
	found, err := eventlog.Check(t.Context(), raw)
	if err != nil || !slices.ContainsFunc(found, func(f eventlog.Finding) bool {
		return f.Level == eventlog.LevelUnknown && f.Subject == "broker settings"
	}) || slices.ContainsFunc(found, func(f eventlog.Finding) bool { return f.Level == eventlog.LevelWrong }) {
		t.Errorf("checked with the documented rights: %v, %+v", err, found)
	}

	for _, a := range acls {
		t.Run(a.String(), func(t *testing.T) {
			without(a)
			switch a.Operation {
			case kmsg.ACLOperationCreate: // tried above
			case kmsg.ACLOperationDelete: // needed after an hour
				l, err := eventlog.Open(t.Context(), raw)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				if err := l.DeleteRecords(t.Context(), eventlog.RequestsTopic("pizza"), 0, 1); err == nil {
					t.Error("records were deleted")
				} else {
					check(t, a, err.Error())
				}
			default:
				start := time.Now()
				output, ok := s.order(t, 2, "the user needs "+a.words())
				if check(t, a, output); ok {
					t.Errorf("without it all goes well:\n%s", output)
				}
				t.Logf("said after %v", time.Since(start).Round(10*time.Millisecond))
			}
		})
	}
	without(ACL{})
	start = time.Now()
	if output, ok := s.order(t, 1, ""); !ok {
		t.Errorf("with all rights again:\n%s", output)
	}
	t.Logf("with all rights again: an order in %v", time.Since(start))
}

// words is how an error begins to name the right.
func (a ACL) words() string {
	kind := map[kmsg.ACLResourceType]string{
		kmsg.ACLResourceTypeTopic: "topic", kmsg.ACLResourceTypeGroup: "group", kmsg.ACLResourceTypeTransactionalId: "transactional id",
	}[a.Resource]
	operation := map[kmsg.ACLOperation]string{
		kmsg.ACLOperationRead: "Read", kmsg.ACLOperationWrite: "Write", kmsg.ACLOperationCreate: "Create",
		kmsg.ACLOperationDelete: "Delete", kmsg.ACLOperationDescribeConfigs: "DescribeConfigs",
	}[a.Operation]
	return operation + " on " + kind + " " + a.Name
}
