package chaos

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/godagger/dagger/internal/kafkatest"
)

// TestKilledWorkerAndDeletedStoreEmbedded kills the worker by SIGKILL at random moments under
// load and deletes the store once: nothing acknowledged is lost, nothing happens twice.
func TestKilledWorkerAndDeletedStoreEmbedded(t *testing.T) {
	random := begin(t)
	dir := t.TempDir()
	job := task{
		Log: "file:" + filepath.Join(dir, "log"), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: pick(2000, 500), Rate: pick(33.0, 60), Serve: true, Feed: true, Shop: true,
	}
	killWorkers(t, random, job, pick(20, 5), func(int, *process) {})
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}

// TestKilledWorkerAndDeletedStoreKafka does the same on a real broker, where a killed worker
// stays a member of its group until its session ends. In the long form the broker is killed
// and started again five times between the kills of the workers.
func TestKilledWorkerAndDeletedStoreKafka(t *testing.T) {
	random := begin(t)
	t.Parallel() // it waits for sessions to end most of the time
	dir := t.TempDir()
	addr, during := "", func(int, *process) {}
	if long() {
		b := brokerOf(t, kafkatest.Options{})
		addr, during = b.Addr(), func(kill int, w *process) {
			if kill%4 != 0 {
				return
			}
			w.until(5*time.Minute, func(w *process) bool { return w.acknowledged >= 20 })
			restart(t, b)
			t.Logf("the broker was killed and is back; %d starts acknowledged in this life", w.acks())
		}
	} else {
		addr = brokers(t)
	}
	job := task{
		Log: kafkaURL(addr), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: pick(2000, 500), Rate: pick(33.0, 60), Serve: true, Feed: true, Shop: true,
	}
	killWorkers(t, random, job, pick(20, 5), during)
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}

// TestKilledBrokerKafka kills the broker by SIGKILL under load and starts it again, while the
// worker lives on.
func TestKilledBrokerKafka(t *testing.T) {
	random := begin(t)
	t.Parallel() // it waits for sessions to end most of the time
	dir := t.TempDir()
	b := brokerOf(t, kafkatest.Options{})
	job := task{
		Log: kafkaURL(b.Addr()), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: pick(2000, 300), Rate: pick(33.0, 50), Serve: true, Feed: true, Shop: true,
	}
	kills := pick(5, 2)
	w := launch(t, job)
	began := time.Now()
	for kill := range kills {
		now := (kill*job.Orders + random.IntN(job.Orders)) / kills
		w.until(5*time.Minute, func(w *process) bool { return w.acknowledged >= now })
		at := time.Since(began)
		restart(t, b)
		t.Logf("broker killed at %v with %d starts acknowledged, back at %v", at.Round(time.Millisecond), now, time.Since(began).Round(time.Millisecond))
	}
	w.wait(10 * time.Minute)
	t.Logf("all completed after %v", time.Since(began).Round(time.Millisecond))
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}

// killWorkers kills workers one after the other, and lets the last one finish. The store is
// deleted once. during is called in each life before its kill.
func killWorkers(t *testing.T, random *rand.Rand, job task, kills int, during func(kill int, w *process)) {
	t.Helper()
	began := time.Now()
	deleteAt := 1 + random.IntN(kills)
	for kill := 1; kill <= kills; kill++ {
		w := launch(t, job)
		during(kill, w)
		killAt(t, random, w, max(1, job.Orders/(2*kills)))
		if kill == deleteAt {
			if err := os.RemoveAll(filepath.Join(job.Dir, "store")); err != nil {
				t.Fatal(err)
			}
			t.Logf("kill %d at %v; the store is deleted", kill, time.Since(began).Round(time.Millisecond))
		} else {
			t.Logf("kill %d at %v, %d starts acknowledged in this life", kill, time.Since(began).Round(time.Millisecond), w.acknowledged)
		}
	}
	launch(t, job).wait(10 * time.Minute)
	t.Logf("%d kills, all completed after %v", kills, time.Since(began).Round(time.Millisecond))
}

// killAt kills a worker: once in four at any moment of its start, else after a random number
// of acknowledged starts and a random while more.
func killAt(t *testing.T, random *rand.Rand, w *process, most int) {
	t.Helper()
	after := 0
	if random.IntN(4) > 0 {
		after = 1 + random.IntN(most)
	}
	if after > 0 {
		w.until(5*time.Minute, func(w *process) bool { return w.acknowledged >= after })
	}
	w.until(time.Duration(random.IntN(pick(2000, 500)))*time.Millisecond, func(*process) bool { return false })
	w.kill()
	if w.err == nil {
		t.Fatal("a worker ended before it was killed")
	}
}
