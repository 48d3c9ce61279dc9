package workflow_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrongWiringDoesNotCompile builds the programs of testdata/compile, all at once: each
// must be refused with the texts that its want lines name, and one without them must build.
func TestWrongWiringDoesNotCompile(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/compile/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no programs", err)
	}
	tmp := t.TempDir()
	replace := map[string]string{}
	wants := map[string][]string{}
	args := []string{"build"}
	var packages []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		source := string(data)
		wants[name] = nil
		for strings.HasPrefix(source, "want: ") {
			line, rest, _ := strings.Cut(source, "\n")
			wants[name] = append(wants[name], strings.TrimPrefix(line, "want: "))
			source = rest
		}
		program := filepath.Join(tmp, name+".go")
		if err := os.WriteFile(program, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, "internal", "compiletest", name, "p.go")] = program
		packages = append(packages, "./internal/compiletest/"+name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(append(args, "-gcflags=-e", "-overlay", overlayFile), packages...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("everything compiles")
	}
	said := map[string]string{}
	for _, part := range strings.Split("\n"+string(out), "\n# ")[1:] {
		head, body, _ := strings.Cut(part, "\n")
		said[filepath.Base(strings.Fields(head)[0])] = body
	}
	for name, want := range wants {
		if len(want) == 0 && said[name] != "" {
			t.Errorf("%s must compile, but:\n%s", name, said[name])
		}
		for _, w := range want {
			if !strings.Contains(said[name], w) {
				t.Errorf("%s: the compiler says\n%s\nwant in it: %s", name, said[name], w)
			}
		}
	}
	if t.Failed() {
		t.Logf("all that go build says:\n%s", out)
	}
}
