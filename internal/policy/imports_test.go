package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImports(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range wrong {
		t.Error(line)
	}
}

// TestCheckNotices shows that each kind of mistake is found.
func TestCheckNotices(t *testing.T) {
	for _, c := range []struct{ name, file, imports, want string }{
		{"nothing wrong", "internal/engine/a.go", "github.com/godagger/dagger/projection", ""},
		{"the standard library", "eventlog/a.go", "net/http", ""},
		{"upwards", "eventlog/a.go", "github.com/godagger/dagger/projection", "eventlog may import of ours only internal/driver"},
		{"machine knows events only", "internal/machine/a.go", "github.com/godagger/dagger/projection", "only eventlog"},
		{"machine is pure", "internal/machine/a.go", "math/rand/v2", "is pure"},
		{"a driver in the engine", "internal/engine/a.go", "github.com/twmb/franz-go/pkg/kgo", "may import of others only"},
		{"one backend in another", "backends/redis/a.go", "github.com/godagger/dagger/backends/pebble", "only projection"},
		{"its own client", "backends/pebble/a.go", "github.com/cockroachdb/pebble/v2/vfs", ""},
		{"a module with a longer name", "backends/pebble/a.go", "github.com/cockroachdb/pebble/v2x", "may import of others"},
		{"testing in production code", "workflow/a.go", "testing", "never imports testing"},
		{"testing in a kit", "workflowtest/a.go", "testing/synctest", ""},
		{"a test", "workflow/a_test.go", "github.com/google/go-cmp/cmp", ""},
		{"an external test", "workflow/a_test.go", "github.com/godagger/dagger/workflow", ""},
		{"not even in a test", "workflow/a_test.go", "github.com/stretchr/testify/require", "may import of others nothing"},
		{"an unlisted package", "util/a.go", "fmt", "package util is not in the table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "go.mod"), "module "+module+"\n")
			write(t, filepath.Join(root, filepath.FromSlash(c.file)), "package p\n\nimport _ \""+c.imports+"\"\n")
			got, err := Check(root)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == "" && len(got) > 0, c.want != "" && len(got) != 1:
				t.Errorf("Check says %q, want %q", got, c.want)
			case c.want != "" && !strings.Contains(got[0], c.want):
				t.Errorf("Check says %q, want %q in it", got[0], c.want)
			}
		})
	}
}

// TestRules finds a table that contradicts itself: every package named in it is listed.
func TestRules(t *testing.T) {
	var unknown []string
	known := func(names []string) {
		for _, n := range names {
			if _, ok := rules[n]; !ok && !strings.HasSuffix(n, "/...") {
				unknown = append(unknown, n)
			}
		}
	}
	known(kits)
	for _, r := range rules {
		known(r.ours)
	}
	if diff := cmp.Diff([]string(nil), unknown); diff != "" {
		t.Errorf("the table names packages that it does not list:\n%s", diff)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
