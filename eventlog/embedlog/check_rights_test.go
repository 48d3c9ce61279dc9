package embedlog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestCheckWithoutRights: who may not open the log is not told to restore it.
func TestCheckWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("this user may do everything")
	}
	dir := t.TempDir()
	l, err := Open(t.Context(), dir, Options{App: "pizza", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "dagger.lock"), 0); err != nil {
		t.Fatal(err)
	}
	found, err := eventlog.Check(t.Context(), "file:"+dir+"?app=pizza")
	if err != nil || !slices.ContainsFunc(found, func(f eventlog.Finding) bool {
		return f.Level == eventlog.LevelWrong && strings.Contains(f.Text, "permission denied") && strings.Contains(f.Do, "rights")
	}) {
		t.Errorf("a log that may not be opened: %v %+v", err, found)
	}
}
