package chaos

import (
	"path/filepath"
	"testing"
	"time"
)

// TestKilledWorkerWithoutStoreLog kills workers whose store keeps no write-ahead log: what a
// kill takes from the store is healed by the events, and nothing else is lost.
func TestKilledWorkerWithoutStoreLog(t *testing.T) {
	random := begin(t)
	dir := t.TempDir()
	job := task{
		Log: "file:" + filepath.Join(dir, "log"), Store: "pebble:" + filepath.Join(dir, "store") + "?wal=off&memtables=1MiB", Dir: dir, Name: "w",
		Orders: pick(2000, 200), Rate: pick(33.0, 100), Serve: true, Feed: true, Shop: true,
	}
	for range pick(10, 3) {
		killAt(t, random, launch(t, job), max(1, job.Orders/8))
	}
	launch(t, job).wait(10 * time.Minute)
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}
