package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
)

// TestIndexDiff: what the batch takes away and adds leads from the old entries to the new ones,
// and is in their order, whether they are few or many.
func TestIndexDiff(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	some := func(most int) (l []projection.Row) {
		for k := range most {
			if r.IntN(3) > 0 {
				l = append(l, projection.Row{Kind: projection.Kind(1 + k%2), Key: fmt.Appendf(nil, "%d", k/2)})
			}
		}
		return l
	}
	lack := func(entries, others []projection.Row) []projection.Row {
		return slices.DeleteFunc(slices.Clone(entries), func(x projection.Row) bool {
			return slices.ContainsFunc(others, func(y projection.Row) bool { return cmp.Equal(x, y) })
		})
	}
	for range 300 {
		old, now := indexed{entries: some(r.IntN(60))}, indexed{entries: some(r.IntN(60))}
		var b projection.Batch
		now.diff(old, &b)
		if want := lack(old.entries, now.entries); !slices.EqualFunc(b.Del, want, func(a, b projection.Row) bool { return cmp.Equal(a, b) }) {
			t.Fatalf("deleted %v, want %v", b.Del, want)
		}
		if want := lack(now.entries, old.entries); !slices.EqualFunc(b.Put, want, func(a, b projection.Row) bool { return cmp.Equal(a, b) }) {
			t.Fatalf("put %v, want %v", b.Put, want)
		}
	}
}
