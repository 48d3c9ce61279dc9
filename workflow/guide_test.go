package workflow_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuide compiles every program of README.md and docs/workflows.md, and runs those that are tests.
func TestGuide(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, page := range []string{"README.md", "docs/workflows.md"} {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n```go\n")[1:] {
			program, _, _ := strings.Cut(block, "\n```\n")
			blocks = append(blocks, program)
		}
	}
	if len(blocks) == 0 {
		t.Fatal("no page has a program")
	}
	tmp := t.TempDir()
	replace := map[string]string{}
	// The packages exist in an overlay only, so nothing can be run in their directories.
	build := []string{"build", "-o", tmp + "/", "-overlay", filepath.Join(tmp, "overlay.json")}
	test := []string{"test", "-c", "-vet=off", "-o", tmp + "/", "-overlay", filepath.Join(tmp, "overlay.json")}
	var binaries []string
	for n, program := range blocks {
		file, name := filepath.Join(tmp, fmt.Sprintf("%d.go", n)), "p.go"
		dir := fmt.Sprintf("guidetest%d", n)
		if strings.Contains(program, `"testing"`) {
			name = "p_test.go"
			test = append(test, "./internal/"+dir)
			binaries = append(binaries, filepath.Join(tmp, dir+".test"))
		} else {
			build = append(build, "./internal/"+dir)
		}
		if err := os.WriteFile(file, []byte(program+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, "internal", dir, name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{build, test} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, binary := range binaries {
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(binary), err, out)
		}
	}
}
