package chaos

import (
	"path/filepath"
	"testing"
	"time"
)

// TestWorkerJoinsAndLeavesKafka has a second worker join and leave every few seconds, once in
// three by SIGKILL. Each worker has a store of its own and finds it behind when it comes back.
func TestWorkerJoinsAndLeavesKafka(t *testing.T) {
	random := begin(t)
	t.Parallel()
	dir := t.TempDir()
	url := kafkaURL(brokers(t))
	log := openedLog(t, url)
	rounds := pick(20, 4)
	job := task{
		Log: url, Store: "pebble:" + filepath.Join(dir, "store-1"), Dir: dir, Name: "w1",
		Orders: pick(2000, 300), Rate: pick(20.0, 15), Serve: true, Feed: true, Shop: true, Stay: true,
	}
	steady := launch(t, job)
	other := task{Log: url, Store: "pebble:" + filepath.Join(dir, "store-2"), Dir: dir, Name: "w2", Serve: true, Stay: true}
	killed := 0
	for range rounds {
		w := launch(t, other)
		w.until(2*time.Second+time.Duration(random.IntN(4000))*time.Millisecond, func(*process) bool { return false })
		if w.ended() {
			t.Fatalf("the second worker ended: %v\n%s", w.err, w.tail())
		}
		if random.IntN(3) == 0 {
			w.kill()
			killed++
		} else {
			w.leave(5 * time.Minute)
		}
	}
	awaitCompleted(t, log, job.Orders, 10*time.Minute)
	steady.leave(5 * time.Minute)
	report := check(t, url, job.Orders, job.Store, other.Store)
	t.Logf("joined %d times, killed %d times; %d events, %d violations", rounds, killed, report.Events, report.Violations)
}
