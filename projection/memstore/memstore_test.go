package memstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var harness = storetest.Harness{New: func(testing.TB) *storetest.Place {
	return &storetest.Place{
		Volatile: true,
		Open:     func(id projection.Identity) (projection.Store, error) { return memstore.New(id), nil },
	}
}}

func TestContract(t *testing.T) { storetest.Run(t, harness) }

func BenchmarkStore(b *testing.B) { storetest.Benchmark(b, harness) }
