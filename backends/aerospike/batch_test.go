package aerospike

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
)

// batch is event n of the tests' log: what is in the store at event n is known from n alone.
func batch(n, epoch uint64) projection.Batch {
	b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: epoch, Offset: int64(n), LogID: "log", Sum: n}}
	for i := range uint64(20) {
		r := projection.Row{Kind: projection.KindDue, Key: fmt.Appendf(nil, "%03d", (n*7+i)%200)}
		switch i % 3 {
		case 0:
			r.Kind = projection.KindInstance
		case 1:
			r.Kind = projection.KindKept
		}
		if (n+i)%5 == 0 {
			b.Del = append(b.Del, r)
			continue
		}
		if r.Kind != projection.KindDue || n%2 == 0 {
			r.Value = fmt.Appendf(nil, "%d %0*d", n, 50+700*(i%2), i)
		}
		b.Put = append(b.Put, r)
	}
	b.Add = []projection.Delta{{Key: []byte("batches"), N: 1}}
	return b
}

// check compares a partition with what its events up to its watermark give.
func check(t *testing.T, v projection.View) uint64 {
	t.Helper()
	at, err := differs(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// errDiffers: the rows of a partition are not those of its watermark.
var errDiffers = errors.New("the rows are not those of the event")

// differs reads a partition whole and compares it with what its events give.
func differs(ctx context.Context, v projection.View) (at uint64, err error) {
	have := map[rowName]string{}
	w, err := projection.DumpAt(ctx, v, func(r projection.Row) error {
		have[rowName{r.Kind, string(r.Key)}] = string(r.Value)
		return nil
	})
	if err != nil {
		return 0, err
	}
	want := map[rowName]string{}
	for n := uint64(1); n <= w.N; n++ {
		b := batch(n, 0)
		for _, r := range b.Put {
			want[rowName{r.Kind, string(r.Key)}] = string(r.Value)
		}
		for _, r := range b.Del {
			delete(want, rowName{r.Kind, string(r.Key)})
		}
	}
	if w.N > 0 {
		want[rowName{projection.KindCount, "batches"}] = strconv.FormatUint(w.N, 10)
	}
	if !maps.Equal(have, want) {
		return w.N, fmt.Errorf("%w %d:\n%.2000s", errDiffers, w.N, cmp.Diff(want, have))
	}
	return w.N, nil
}

type rowName struct {
	Kind projection.Kind
	Key  string
}
