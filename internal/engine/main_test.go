package engine

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if flag.Parse(); flag.Lookup("test.bench").Value.String() == "" {
		blockEvents = 16 // small logs have many
	}
	goleak.VerifyTestMain(m)
}
