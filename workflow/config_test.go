package workflow_test

import (
	"strings"
	"testing"

	"github.com/godagger/dagger/workflow"
)

// TestAddress refuses what nobody could ask at, and what would tell everybody a secret.
func TestAddress(t *testing.T) {
	for address, says := range map[string]string{
		"localhost:6066":             "must be like http://host:port",
		"127.0.0.1:6066":             "is no URL",
		"http://:6066":               "must be like",
		"ftp://host":                 "must be like",
		"http://host?x=1":            "must be like",
		"http://me:s3same@host:6066": "has a user or a password",
		"http://host:6066":           "",
		"https://host/dagger":        "",
	} {
		eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:", Address: address})
		switch {
		case err == nil:
			eng.Close()
			if says != "" {
				t.Errorf("%q is taken", address)
			}
		case says == "" || !strings.Contains(err.Error(), "open engine: Address "+says) && !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3same"):
			t.Errorf("%q: %v", address, err)
		}
	}
}
