package pebble

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
)

// A directory that holds something else is refused: a store is deleted as a whole.
func TestDirectoryOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := projection.Open(t.Context(), "pebble:"+dir, projection.Identity{App: "a", Partitions: 1})
	if !errors.Is(err, projection.ErrForeign) || !strings.Contains(err.Error(), "holds thesis.tex; name an empty directory") {
		t.Errorf("Open: %v", err)
	}
}
