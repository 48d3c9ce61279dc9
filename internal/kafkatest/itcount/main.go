// Command itcount reads the output of go test -json, prints that of the tests that failed,
// and closes with one line that counts the tests:
//
//	IT suite=eventlog against=kafka-4.4.0 (jars) pass=41 fail=0 skip=2
//
// Only tests without subtests count. The exit status is 1 when one failed or none passed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	suite := flag.String("suite", "", "`name` of the suite")
	against := flag.String("against", "", "what it ran against")
	verbose := flag.Bool("v", false, "print the output of all tests")
	flag.Parse()
	c, err := count(os.Stdin, os.Stdout, *verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "itcount:", err)
		os.Exit(1)
	}
	fmt.Printf("IT suite=%s against=%s pass=%d fail=%d skip=%d\n", *suite, *against, c.pass, c.fail, c.skip)
	if c.fail > 0 || c.pass == 0 {
		os.Exit(1)
	}
}

type event struct{ Action, Package, Test, Output, ImportPath string }

type counts struct{ pass, fail, skip int }

type key struct{ pkg, test string }

// count reads events until the end. A package that failed without a failed test (it did not
// build, or it panicked) counts as one failure, and so does a test that failed beside its
// subtests.
func count(in io.Reader, out io.Writer, verbose bool) (counts, error) {
	results := map[key]string{}
	var order []key
	output := map[key][]string{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // go's own complaints
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "output", "build-output":
			if verbose || e.Action == "build-output" {
				fmt.Fprint(out, e.Output)
			} else {
				output[k] = append(output[k], e.Output)
			}
		case "pass", "fail", "skip":
			if _, twice := results[k]; !twice {
				order = append(order, k)
			}
			results[k] = e.Action
		}
	}
	var c counts
	for _, k := range order {
		if results[k] == "fail" {
			fmt.Fprint(out, strings.Join(output[k], ""))
		}
		below := func(result string) bool {
			return slices.ContainsFunc(order, func(o key) bool {
				return o.pkg == k.pkg && o != k && (k.test == "" || strings.HasPrefix(o.test, k.test+"/")) &&
					(result == "" || results[o] == result)
			})
		}
		switch results[k] {
		case "fail":
			if !below("fail") {
				c.fail++
			}
		case "pass":
			if k.test != "" && !below("") {
				c.pass++
			}
		case "skip":
			if k.test != "" {
				c.skip++
			}
		}
	}
	return c, lines.Err()
}
