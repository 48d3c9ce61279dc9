package chaos

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/godagger/dagger/internal/kafkatest"
)

// TestLostRepliesKafka loses replies to Produce and EndTxn on the wire: the broker did what it
// was asked, and the client can't know. Nothing is lost by that, and nothing happens twice.
func TestLostRepliesKafka(t *testing.T) {
	random := begin(t)
	t.Parallel()
	dir := t.TempDir()
	x := newProxy(t, random, map[int16]float64{produceKey: 0.02, endTxnKey: 0.05})
	_, port, err := net.SplitHostPort(x.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b := brokerOf(t, kafkatest.Options{Settings: map[string]string{"advertised.listeners": "PLAINTEXT://127.0.0.1:" + port}})
	x.serve(t, b.Addr())
	job := task{
		Log: kafkaURL(net.JoinHostPort("127.0.0.1", port)), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: pick(2000, 300), Rate: pick(33.0, 30), Serve: true, Feed: true, Shop: true,
	}
	began := time.Now()
	launch(t, job).wait(10 * time.Minute)
	t.Logf("all completed after %v; lost %d replies to Produce and %d to EndTxn", time.Since(began).Round(time.Millisecond), x.count(produceKey), x.count(endTxnKey))
	for _, key := range []int16{produceKey, endTxnKey} {
		if x.count(key) < 5 {
			t.Errorf("only %d replies to requests of key %s got lost", x.count(key), strconv.Itoa(int(key)))
		}
	}
	x.mu.Lock()
	x.share = nil
	x.mu.Unlock()
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}
