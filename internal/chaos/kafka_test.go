package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/google/uuid"

	"github.com/godagger/dagger/internal/kafkatest"
)

// brokerOf is a broker of the test's own, which may be killed.
func brokerOf(t *testing.T, o kafkatest.Options) *kafkatest.Broker {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("there is no java here, and so no broker that may be killed")
	}
	b, err := kafkatest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if text, err := os.ReadFile(b.LogFile()); err == nil {
				t.Logf("the broker's log ends with\n%s", text[max(0, len(text)-3000):])
			}
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// brokers is the address of a broker that nobody kills: the one of KAFKA_BROKERS, else one
// of the test's own.
func brokers(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("KAFKA_BROKERS"); addr != "" {
		return addr
	}
	return brokerOf(t, kafkatest.Options{}).Addr()
}

// kafkaURL is a new application's log.
func kafkaURL(addr string) string {
	return fmt.Sprintf("kafka://%s/chaos-%s?partitions=4&replication=1", addr, uuid.NewString()[:8])
}

// restart kills the broker by SIGKILL and starts it again.
func restart(t *testing.T, b *kafkatest.Broker) {
	t.Helper()
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}
