package aerospike

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	identity = storetest.Identity
	batch    = storetest.EventBatch
	check    = storetest.CheckEvents
)

// options are those of a store on a fake.
var options = Options{Addrs: []string{"fake:3000"}, Namespace: "test", firstWait: time.Microsecond}

// openFake opens a store on a fake.
func openFake(tb testing.TB, f *fake, id projection.Identity) (*Store, error) {
	o := options
	if err := o.complete(); err != nil {
		tb.Fatal(err)
	}
	return open(tb.Context(), o, id, f.connect())
}

// place is a store on a fake. A crash cuts its connection: changes that are under way may be
// made late.
func place(tb testing.TB, f *fake) *storetest.Place {
	return &storetest.Place{
		Open: func(id projection.Identity) (projection.Store, error) {
			s, err := openFake(tb, f, id)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		Crash: func(s projection.Store) {
			close(s.(*Store).server.(*connection).cut)
			s.Close()
		},
		Damage: func(partition int32) {
			f.remove(partition, "/p/", 2)
			f.remove(partition, "/b/", 1) // the redo would mend it
		},
		MaxValue: maxValue,
	}
}

// remove removes every nth record of a partition with such a key, behind the store's back.
func (f *fake) remove(partition int32, part string, nth int) {
	keys := slices.DeleteFunc(f.with(fmt.Sprintf("%d/", partition)), func(key string) bool { return !strings.Contains(key, part) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; i < len(keys); i += nth {
		delete(f.records, keys[i])
	}
}

func TestContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: func(tb testing.TB) *storetest.Place { return place(tb, newFake()) }})
}

// TestContractWithFaults is the suite over a server that is busy, loses requests and replies, and
// makes changes late.
func TestContractWithFaults(t *testing.T) {
	rnd := seeded(t)
	storetest.Run(t, storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		f := newFake()
		f.faults = &faults{rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0)), drop: 5, reply: 5, delay: 5, busy: 5, read: 5, unstable: 5, max: 30}
		return place(tb, f)
	}})
}
