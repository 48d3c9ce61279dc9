// Command imports prints every import that the table of internal/policy does not allow, and
// ends with status 1 if there is one.
package main

import (
	"fmt"
	"os"

	"github.com/godagger/dagger/internal/policy"
)

func main() {
	root, err := policy.Root()
	var wrong []string
	if err == nil {
		wrong, err = policy.Check(root)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imports:", err)
		os.Exit(2)
	}
	for _, line := range wrong {
		fmt.Println(line)
	}
	if len(wrong) > 0 {
		os.Exit(1)
	}
}
