package engine

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if flag.Parse(); flag.Lookup("test.bench").Value.String() == "" {
		blockEvents, shortBlocks = 16, 4 // small logs have many
	}
	goleak.VerifyTestMain(m)
}
