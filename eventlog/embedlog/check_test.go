package embedlog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestCheck looks at no log, at a sound one, one that is held, and one that is asked for as
// another.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	check := func(params string) ([]eventlog.Finding, error) {
		return eventlog.Check(t.Context(), "file:"+dir+params)
	}
	if _, err := check(""); err == nil || !strings.Contains(err.Error(), "no log in the directory") {
		t.Errorf("an empty directory: %v", err)
	}
	l, err := Open(t.Context(), dir, Options{App: "pizza", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := l.Publish(t.Context(), eventlog.Record{Topic: eventlog.RequestsTopic("pizza"), Value: randomJSON(1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := check("?app=pizza"); !errors.Is(err, eventlog.ErrInUse) {
		t.Errorf("a log that is held: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wrong := func(params, says string) {
		t.Helper()
		found, err := check(params)
		if err != nil || !slices.ContainsFunc(found, func(f eventlog.Finding) bool {
			return f.Level == eventlog.LevelWrong && strings.Contains(f.Text, says) && f.Do != ""
		}) {
			t.Errorf("nothing wrong says %q: %v %+v", says, err, found)
		}
	}
	wrong("", "application dagger; the log has pizza")
	wrong("?app=pizza&partitions=3", "partition count differs")
	found, err := check("?app=pizza")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(found, func(f eventlog.Finding) bool {
		return f.Subject == "log" && strings.Contains(f.Text, "2 partitions; the last records of each can be read, 200 in all")
	}) {
		t.Errorf("a sound log: %+v", found)
	}
	for _, f := range found {
		if f.Level == eventlog.LevelWrong {
			t.Errorf("a sound log: %+v", f)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, checkFile)); err == nil {
		t.Error("looking left a file")
	}
}
