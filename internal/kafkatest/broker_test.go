package kafkatest

import (
	"context"
	"net"
	"os"
	"testing"
	"time"
)

// TestBroker starts, kills and restarts a broker. Only make it has real ones.
func TestBroker(t *testing.T) {
	if os.Getenv("KAFKA_BROKERS") == "" {
		t.Skip("KAFKA_BROKERS names no broker: only make it runs real ones")
	}
	b, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(b.dir); err == nil {
			t.Errorf("%s is left behind", b.dir)
		}
	}()
	if !listens(t, b) {
		t.Error("a started broker does not listen")
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if listens(t, b) {
		t.Error("a killed broker listens")
	}
	start := time.Now()
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("restarted in %v", time.Since(start))
	if !listens(t, b) {
		t.Error("a restarted broker does not listen")
	}
}

func listens(t *testing.T, b *Broker) bool {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", b.Addr())
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
