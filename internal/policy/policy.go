// Package policy says who may import whom, and checks it. The table in rules.go is the
// design of the tree: changing it is a design change. It reads the sources alone, so that
// files for other systems are checked too.
package policy

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// module is the path of our only module.
const module = "github.com/godagger/dagger"

// file is a Go file and what it imports.
type file struct {
	name    string // relative to the root, with slashes
	imports []string
}

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// Check reads every Go file below root, the module's directory, and returns one line for
// each import that the table does not allow and for each package that it does not list.
func Check(root string) ([]string, error) {
	files, err := read(root)
	if err != nil {
		return nil, err
	}
	var wrong []string
	unlisted := map[string]bool{}
	for _, f := range files {
		dir := path.Dir(f.name)
		r, ok := rules[dir]
		if !ok {
			if !unlisted[dir] {
				wrong = append(wrong, fmt.Sprintf("%s: package %s is not in the table of internal/policy/rules.go", f.name, dir))
			}
			unlisted[dir] = true
			continue
		}
		for _, imp := range f.imports {
			if why := r.refuses(dir, imp, f.isTest()); why != "" {
				wrong = append(wrong, fmt.Sprintf("%s: imports %s: %s", f.name, imp, why))
			}
		}
	}
	return wrong, nil
}

// refuses says why a file of package dir may not import imp; "" when it may.
func (r rule) refuses(dir, imp string, isTest bool) string {
	if rest, ours := strings.CutPrefix(imp, module+"/"); ours {
		if rest == dir && isTest || matches(r.ours, rest) || isTest && matches(kits, rest) {
			return ""
		}
		return dir + " may import of ours " + list(r.ours)
	}
	if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
		if matches(r.theirs, imp) || isTest && (matches(testModules, imp) || matches(r.tests, imp)) {
			return ""
		}
		return dir + " may import of others " + list(r.theirs)
	}
	if imp == "testing" || strings.HasPrefix(imp, "testing/") {
		if isTest || r.kit {
			return ""
		}
		return "production code never imports testing"
	}
	if matches(r.never, imp) && !isTest {
		return dir + " is pure"
	}
	return ""
}

// matches: a pattern is a path, or with /... at its end the path and all below it.
func matches(patterns []string, imp string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, wide := strings.CutSuffix(p, "/...")
		return imp == below || wide && strings.HasPrefix(imp, below+"/")
	})
}

func list(s []string) string {
	if len(s) == 0 {
		return "nothing"
	}
	return "only " + strings.Join(s, ", ")
}

// read parses the imports of all Go files that belong to packages of the module.
func read(root string) ([]file, error) {
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return nil, fmt.Errorf("check imports: %s is not the module's directory: %w", root, err)
	}
	var files []file
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != root && (base == "testdata" || base == "dagger-data" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if filepath.Ext(base) != ".go" || strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f := file{name: filepath.ToSlash(rel)}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, s := range parsed.Imports {
			imp, err := strconv.Unquote(s.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imp)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("check imports: %w", err)
	}
	return files, nil
}

// Root finds the module's directory, from the working directory upwards.
func Root() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		b, readErr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if readErr == nil && strings.HasPrefix(string(b), "module "+module+"\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find module %s: not in or above the working directory", module)
		}
		dir = parent
	}
	return "", fmt.Errorf("find module %s: %w", module, err)
}
