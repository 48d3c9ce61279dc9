package chaos

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

// check looks at what a run has left behind: every order completed and on the orders topic
// exactly once, a log that keeps its promises, stores that equal a fold of it, and a rebuild
// into an empty store equal to the union of the stores byte for byte. It returns the audit.
func check(t *testing.T, logURL string, orders int, storeURLs ...string) audit.Report {
	t.Helper()
	log, err := openLog(t.Context(), logURL)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	completed := map[string]int{}
	report, err := audit.Log(t.Context(), log, audit.Options{Topics: []string{orderTopic(log)}, Settled: true, Each: func(_ int32, _ int64, e *eventlog.Event) {
		if e.Type == eventlog.InstanceCompleted {
			completed[e.ID]++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	want := map[string]int{}
	for n := range orders {
		want[instanceID(orderID(n))] = 1
	}
	if diff := cmp.Diff(want, completed); diff != "" {
		t.Errorf("completed instances (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, messages(t, log)); diff != "" {
		t.Errorf("messages on %s (-want +got):\n%s", orderTopic(log), diff)
	}
	checkStores(t, log, storeURLs)
	return report
}

// messages counts the committed records of the orders topic by instance.
func messages(t *testing.T, log eventlog.Log) map[string]int {
	t.Helper()
	topic, err := log.Topic(t.Context(), orderTopic(log))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for p, part := range topic.Partitions {
		r, err := log.Read(t.Context(), orderTopic(log), int32(p), part.Start, topic.ID, eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		for next := part.Start; next < part.End; {
			var records []eventlog.Record
			if records, next, err = r.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, rec := range records {
				var o placed
				if err := json.Unmarshal(rec.Value, &o); err != nil {
					t.Fatal(err)
				}
				found[instanceID(o.OrderID)]++
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// checkStores compares stores with folds of the log. One of them must have folded all of it;
// that is compared with a store that is rebuilt.
func checkStores(t *testing.T, log eventlog.Log, urls []string) {
	t.Helper()
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	stands := map[int32]uint64{}
	best := map[int32]projection.Store{}
	for _, url := range urls {
		live, err := projection.Open(t.Context(), url, id)
		if err != nil {
			t.Fatal(err)
		}
		defer live.Close()
		verified, err := engine.Verify(t.Context(), log, live, nil)
		if err != nil {
			t.Fatalf("verify %s: %v", url, err)
		}
		if verified.Differences > 0 {
			t.Errorf("%s differs from a fold of the log in %d rows: %q", url, verified.Differences, verified.First)
		}
		for p, n := range verified.AsOf {
			if best[p] == nil || n > stands[p] {
				stands[p], best[p] = n, live
			}
		}
	}
	empty, err := projection.Open(t.Context(), "pebble:"+filepath.Join(t.TempDir(), "rebuilt"), id)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	all, err := engine.Rebuild(t.Context(), log, empty, engine.RebuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for p, rebuilt := range all {
		p := int32(p)
		if stands[p] != rebuilt.AsOf {
			t.Errorf("partition %d: the store stands at event %d, the log ends with %d", p, stands[p], rebuilt.AsOf)
			continue
		}
		if diff := cmp.Diff(dump(t, best[p], p), dump(t, empty, p)); diff != "" {
			t.Errorf("partition %d: a rebuilt store is another one (-live +rebuilt):\n%s", p, diff)
		}
	}
}

func dump(t *testing.T, store projection.Store, partition int32) []string {
	t.Helper()
	view, err := store.View(t.Context(), partition)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var rows []string
	if err := view.Dump(t.Context(), func(r projection.Row) error {
		rows = append(rows, fmt.Sprintf("%#x %q %q", byte(r.Kind), r.Key, r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}
