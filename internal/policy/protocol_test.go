package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the files that name a rule into docs/protocol.md")

const (
	lastRule = 27
	seeded   = "TestWithoutRule" // runs the seeded driver with one rule switched off
)

// TestProtocol holds docs/protocol.md against the tree: the rules are there, in order, each
// with files that keep it and tests that show it, which exist. Where comments name a rule,
// those files keep it; -rewrite writes them there.
func TestProtocol(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(root, "docs", "protocol.md")
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rules, _ := strings.Cut(string(page), "\n### ")
	sections := strings.Split(rules, "\n### ")
	if len(sections) != lastRule {
		t.Fatalf("docs/protocol.md has %d rules, want %d", len(sections), lastRule)
	}
	naming := filesByRule(t, root)
	for i, section := range sections {
		if !strings.HasPrefix(section, fmt.Sprintf("%d. ", i+1)) {
			t.Fatalf("rule %d of docs/protocol.md begins with %.20q", i+1, section)
		}
		sections[i] = checkRule(t, root, i+1, section, naming[i+1])
	}
	if *rewrite {
		write(t, name, head+"\n### "+strings.Join(sections, "\n### "))
	}
}

var (
	quoted = regexp.MustCompile("`([^`]+)`")
	shown  = regexp.MustCompile("(?m)^- Shown by: `([^`]+)` (\\S.*)$")
	keptBy = regexp.MustCompile("(?m)^- Kept by: (.*)$")
)

// checkRule returns the section with the naming files.
func checkRule(t *testing.T, root string, n int, section string, naming []string) string {
	t.Helper()
	kept := line(section, "- Kept by: ")
	if kept == "" && line(section, "- Not reached yet: ") == "" {
		t.Errorf("rule %d says neither what keeps it nor that it is not reached", n)
	}
	if kept != "" && line(section, "- Shown by: ") == "" {
		t.Errorf("rule %d does not say what shows it", n)
	}
	files := slices.Clone(naming)
	for _, m := range quoted.FindAllStringSubmatch(kept, -1) {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(m[1]))); err != nil {
			t.Errorf("rule %d is kept by %s: %v", n, m[1], err)
			continue
		}
		if len(naming) == 0 {
			files = append(files, m[1])
		} else if !slices.Contains(naming, m[1]) {
			t.Errorf("rule %d is kept by %s, which does not name it", n, m[1])
		}
	}
	for _, m := range shown.FindAllStringSubmatch(section, -1) {
		tests := sources(t, filepath.Join(root, filepath.FromSlash(m[1])))
		tests += sources(t, filepath.Join(root, "internal", "machine")) // Rules names the parts
		for name := range strings.SplitSeq(m[2], ", ") {
			function, part, _ := strings.Cut(name, "/")
			if function == seeded && !strings.Contains(tests, "func "+seeded+"(") {
				t.Logf("rule %d: the seeded driver is not there yet", n)
				continue
			}
			if !strings.Contains(tests, "func "+function+"(") || part != "" && !regexp.MustCompile(`\b`+part+`\b`).MatchString(tests) {
				t.Errorf("rule %d is shown by %s in %s, which is not there", n, name, m[1])
			}
		}
	}
	if kept == "" || len(files) == 0 {
		return section
	}
	slices.Sort(files)
	return keptBy.ReplaceAllString(section, "- Kept by: `"+strings.Join(files, "`, `")+"`")
}

// filesByRule are the files whose comments name a rule: "protocol rule 7", "protocol rules
// 5 and 7".
func filesByRule(t *testing.T, root string) [lastRule + 1][]string {
	t.Helper()
	all, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	comment := regexp.MustCompile(`\n\s*// `)
	named := regexp.MustCompile(`(?i)protocol rules? (\d+(?:(?:, | and | to )\d+)*)`)
	var files [lastRule + 1][]string
	for _, f := range all {
		if f.isTest() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(f.name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(comment.ReplaceAllString(string(text), " "), -1) {
			for _, digits := range regexp.MustCompile(`\d+`).FindAllString(m[1], -1) {
				n, err := strconv.Atoi(digits)
				if err != nil || n < 1 || n > lastRule {
					t.Errorf("%s names protocol rule %s, which is not there", f.name, digits)
				} else if !slices.Contains(files[n], f.name) {
					files[n] = append(files[n], f.name)
				}
			}
		}
	}
	return files
}

func line(text, prefix string) string {
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// sources is the text of all Go files of a directory.
func sources(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
