package stores

import (
	"flag"
	"testing"

	"github.com/godagger/dagger/projection/storetest"
)

var table = flag.Bool("table", false, "run the benchmarks of all backends and print one table")

func TestBenchmarkTable(t *testing.T) {
	if !*table {
		t.Skip("only with -table")
	}
	var all []storetest.Named
	for _, b := range backends {
		all = append(all, storetest.Named{Name: b.name, Harness: storetest.Harness{New: b.place}})
	}
	t.Log("one operation is what storetest.Benchmark says\n" + storetest.Table(all...))
}
