//go:build unix

package embedlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// A directory that holds something else is refused, and left as it was; a disk's own directory
// does not count.
func TestDirectoryOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.Open(t.Context(), "file:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "note"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err = eventlog.Open(t.Context(), "file:"+dir); err != nil {
		t.Fatalf("a file beside a log: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Open(t.Context(), "file:"+other); !errors.Is(err, eventlog.ErrURL) || !strings.Contains(err.Error(), "holds thesis.tex; name an empty directory") {
		t.Errorf("Open: %v", err)
	}
	if names, err := os.ReadDir(other); err != nil || len(names) != 1 {
		t.Errorf("it holds %v now, %v", names, err)
	}
}
