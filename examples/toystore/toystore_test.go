package toystore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// TestContract is all that a backend's tests need at first.
func TestContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		dir := filepath.Join(tb.TempDir(), "store")
		files := func(f func(name string, size int64)) {
			names, _ := filepath.Glob(filepath.Join(dir, "p-*"))
			for _, name := range names {
				if info, err := os.Stat(name); err == nil {
					f(name, info.Size())
				}
			}
		}
		kept := map[string]int64{}
		return &storetest.Place{
			Open: func(id projection.Identity) (projection.Store, error) {
				clear(kept)
				files(func(name string, size int64) { kept[name] = size })
				return Open(dir, id)
			},
			// A crash of the machine loses what was not synced since, torn anywhere.
			Crash: func(s projection.Store) {
				_ = s.Close() // what the process knew is gone
				files(func(name string, size int64) {
					if more := size - kept[name]; more > 0 {
						_ = os.Truncate(name, size-rand.Int64N(more+1))
					}
				})
			},
			Damage: func(partition int32) {
				name := filepath.Join(dir, fmt.Sprintf("p-%d", partition))
				raw, err := os.ReadFile(name)
				if err == nil {
					raw[len(raw)/2] ^= 1
					err = os.WriteFile(name, raw, 0o644)
				}
				if err != nil {
					tb.Fatal(err)
				}
			},
		}
	}})
}
