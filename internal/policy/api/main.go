// Command api keeps the list of the names that our packages export: testdata/api.txt beside
// each. With -check it prints what differs and ends with status 1; with -w it writes the
// lists. A change of a list is a change of the API, to be weighed and told in CHANGELOG.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/godagger/dagger/internal/policy"
)

// packages are those whose surface is kept.
var packages = []string{"workflow", "workflowtest"}

func main() {
	root, err := policy.Root()
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(2)
	}
	os.Exit(run(root, packages, os.Args[1:], os.Stdout, os.Stderr))
}

func run(root string, packages, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("api", flag.ContinueOnError)
	flags.SetOutput(stderr)
	write := flags.Bool("w", false, "write the lists")
	check := flags.Bool("check", false, "compare with the lists")
	if err := flags.Parse(args); err != nil || *write == *check {
		fmt.Fprintln(stderr, "usage: api -check | -w")
		return 2
	}
	status := 0
	for _, p := range packages {
		lines, err := surface(filepath.Join(root, p))
		if err != nil {
			fmt.Fprintf(stderr, "api: list %s: %v\n", p, err)
			return 2
		}
		name := filepath.Join(root, p, "testdata", "api.txt")
		if *write {
			text := strings.Join(lines, "\n") + "\n"
			err := os.MkdirAll(filepath.Dir(name), 0o755)
			if err == nil {
				err = os.WriteFile(name, []byte(text), 0o644)
			}
			if err != nil {
				fmt.Fprintf(stderr, "api: write %s: %v\n", name, err)
				return 2
			}
			fmt.Fprintf(stdout, "%s: %d lines\n", p, len(lines))
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			fmt.Fprintf(stderr, "api: read %s: %v\n", name, err)
			return 2
		}
		if compare(p, strings.Split(strings.TrimSuffix(string(data), "\n"), "\n"), lines, stdout) {
			status = 1
		}
	}
	if status != 0 {
		fmt.Fprintln(stdout, "the exported names differ from testdata/api.txt; if that is wanted: go run ./internal/policy/api -w")
	}
	return status
}

// compare prints what one list has and the other has not.
func compare(p string, want, got []string, w io.Writer) (differ bool) {
	for _, l := range want {
		if l != "" && !slices.Contains(got, l) {
			fmt.Fprintf(w, "%s: - %s\n", p, l)
			differ = true
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			fmt.Fprintf(w, "%s: + %s\n", p, l)
			differ = true
		}
	}
	return differ
}
