package chaos

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// passages is how often a point is passed soon after a start, at the least.
var passages = map[string]int{
	"own": 4, "append": 30, "commit": 30, "acquire": 4, "read": 8, "handler": 30, "publish": 6, "position": 4, "store": 8,
}

// TestKilledAtEachStepEmbedded kills the worker exactly before and after each step of the
// owner's loop, of the relays, of the projection and of user code.
func TestKilledAtEachStepEmbedded(t *testing.T) {
	random := begin(t)
	dir := t.TempDir()
	rounds := pick(5, 1)
	job := task{
		Log: "file:" + filepath.Join(dir, "log"), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: rounds * 600, Rate: 200, Serve: true, Feed: true, Shop: true,
	}
	var points []string
	for range rounds {
		points = append(points, failpoints...)
	}
	killAtPoints(t, random, job, points)
}

// TestKilledAtEachStepKafka does the same on a real broker; in the short form at the steps
// around the transaction only.
func TestKilledAtEachStepKafka(t *testing.T) {
	random := begin(t)
	t.Parallel() // it waits for sessions to end most of the time
	dir := t.TempDir()
	job := task{
		Log: kafkaURL(brokers(t)), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: pick(900, 200), Rate: 100, Serve: true, Feed: true, Shop: true,
	}
	killAtPoints(t, random, job, pick(failpoints, []string{"append.after", "commit.after"}))
}

// killAtPoints lets one worker after the other be killed at its point, in random order, and
// the last one finish.
func killAtPoints(t *testing.T, random *rand.Rand, job task, points []string) {
	t.Helper()
	points = slices.Clone(points)
	random.Shuffle(len(points), func(i, k int) { points[i], points[k] = points[k], points[i] })
	for _, point := range points {
		step, _, _ := strings.Cut(point, ".")
		job.Fail = fmt.Sprintf("%s:%d", point, 1+random.IntN(passages[step]))
		w := launch(t, job)
		if w.until(5*time.Minute, func(*process) bool { return false }); !w.ended() {
			t.Fatalf("failpoint %s was not reached; %d starts acknowledged\n%s", job.Fail, w.acknowledged, w.tail())
		}
		if !strings.Contains(w.said(), "failpoint "+point+" kills") {
			t.Fatalf("failpoint %s: the worker ended otherwise: %v\n%s", job.Fail, w.err, w.tail())
		}
	}
	job.Fail = ""
	launch(t, job).wait(10 * time.Minute)
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("killed at %d points; %d events, %d violations", len(points), report.Events, report.Violations)
}
