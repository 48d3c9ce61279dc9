// Command testreport reads the output of go test -json and prints a line for each package,
// what failed with its output, and at the end what was skipped and why. It passes on no
// judgement: run it in a pipe whose status is that of go test.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := report(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

// event is a line of go test -json.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// name of what an event is about: a test, or the package as a whole.
func (e event) name() string { return e.Package + " " + e.Test }

func report(in io.Reader, out io.Writer) error {
	output := map[string]*strings.Builder{} // of what has not ended yet
	skipped := map[string][]string{}        // reason to tests
	w := bufio.NewWriter(out)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(w, "%s\n", strings.TrimRight(string(line), "\n"))
			} else {
				e.note(w, output, skipped)
			}
			if e.Action != "output" && w.Flush() != nil {
				return errors.New("write the report")
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read test results: %w", err)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "skipped %d: %s (%s)\n", len(skipped[reason]), reason, strings.Join(some(skipped[reason]), ", "))
	}
	return w.Flush()
}

// note adds an event to the report.
func (e event) note(w io.Writer, output map[string]*strings.Builder, skipped map[string][]string) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(w, e.Output)
	case "output":
		b := output[e.name()]
		if b == nil {
			b = &strings.Builder{}
			output[e.name()] = b
		}
		b.WriteString(e.Output)
	case "pass", "fail", "skip":
		text := ""
		if b := output[e.name()]; b != nil {
			text = b.String()
		}
		delete(output, e.name())
		switch {
		case e.Test == "" && e.Action == "fail":
			// What a package that died was doing is in the tests that never ended.
			for _, name := range slices.Sorted(maps.Keys(output)) {
				if strings.HasPrefix(name, e.Package+" ") {
					fmt.Fprint(w, output[name].String())
					delete(output, name)
				}
			}
			fmt.Fprint(w, text)
			fmt.Fprintf(w, "FAIL %s %.1fs\n", e.Package, e.Elapsed)
		case e.Test == "" && e.Action == "pass":
			fmt.Fprintf(w, "ok   %s %.1fs\n", e.Package, e.Elapsed)
		case e.Action == "fail":
			fmt.Fprint(w, text)
		case e.Action == "skip" && e.Test != "":
			why := reason(text)
			skipped[why] = append(skipped[why], e.Test)
		}
	}
}

// reason is what the test said when it skipped, without the place in the source.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if file, text, ok := strings.Cut(line, ": "); ok && strings.Contains(file, ".go:") {
			return text
		}
	}
	return "no reason given"
}

func some(names []string) []string {
	if len(names) > 3 {
		return append(slices.Clone(names[:3]), "…")
	}
	return names
}
