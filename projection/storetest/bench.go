package storetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/godagger/dagger/projection"
)

// benchIdentity has as many partitions as a worker usually owns.
var benchIdentity = projection.Identity{App: "storetest", Partitions: 16}

// Benchmark measures what the engine asks of a store; the lines have the same names for every
// backend. One operation of Apply is one transition of an instance: its row of 700 bytes, a
// move in the list of a status, a due entry that comes or goes, and two counters.
func Benchmark(b *testing.B, h Harness) {
	for _, x := range benchmarks {
		b.Run(x.name, func(b *testing.B) { x.run(b, h) })
	}
}

var benchmarks = []struct {
	name string
	run  func(*testing.B, Harness)
}{
	{"Apply/transitions=100", func(b *testing.B, h Harness) { benchApply(b, h, 100) }},
	{"Apply/transitions=500", func(b *testing.B, h Harness) { benchApply(b, h, 500) }},
	{"Get/hit", func(b *testing.B, h Harness) { benchGet(b, h, "i-%08d") }},
	{"Get/miss", func(b *testing.B, h Harness) { benchGet(b, h, "none-%08d") }},
	{"Scan/100", benchScan},
	{"Scan/one", func(b *testing.B, h Harness) { benchWaiters(b, h, 0) }},
	{"Scan/none", func(b *testing.B, h Harness) { benchWaiters(b, h, benchRows) }},
}

// Named is a backend in a Table.
type Named struct {
	Name    string
	Harness Harness
}

// Table runs the benchmarks of every backend, and returns one table for all: microseconds for
// one operation. A benchmark that fails, or whose backend is not there, has no number.
func Table(backends ...Named) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "µs/op\t")
	for _, x := range backends {
		fmt.Fprint(w, x.Name, "\t")
	}
	fmt.Fprintln(w)
	for _, bench := range benchmarks {
		fmt.Fprint(w, bench.name, "\t")
		for _, x := range backends {
			r := testing.Benchmark(func(b *testing.B) { bench.run(b, x.Harness) })
			if r.N == 0 {
				fmt.Fprint(w, "-\t")
				continue
			}
			fmt.Fprintf(w, "%.3g\t", float64(r.T.Nanoseconds())/float64(r.N)/1000)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	return text.String()
}

// transition appends to a batch what one step of an instance changes; step 0 starts it.
func transition(b *projection.Batch, rnd *rand.Rand, instance, step int) {
	id := fmt.Sprintf("i-%08d", instance)
	value := make([]byte, 700)
	for i := 0; i < len(value); i += 100 { // compresses about as JSON does
		copy(value[i:], fmt.Sprintf(`{"path":"Order/pizza/%d","status":"EXECUTING","activation":%d,"n":%d,"seq":%d,"attempt":1}`, i, rnd.Uint64(), instance, step))
	}
	b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: []byte(id), Value: value})
	list := func(step int) []byte {
		key := projection.AppendString([]byte{byte(step % 4)}, "pizza")
		return append(projection.AppendInt64(key, int64(instance)), id...)
	}
	due := func(step int) []byte {
		return append(projection.AppendInt64(nil, int64(instance*10+step)), id...)
	}
	b.Put = append(b.Put, projection.Row{Kind: projection.KindList, Key: list(step)})
	b.Add = append(b.Add, projection.Delta{Key: []byte{byte(step % 4)}, N: 1})
	if step > 0 {
		b.Del = append(b.Del, projection.Row{Kind: projection.KindList, Key: list(step - 1)})
		b.Add = append(b.Add, projection.Delta{Key: []byte{byte((step - 1) % 4)}, N: -1})
	}
	if step%2 == 1 {
		b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: due(step)})
	} else if step > 0 {
		b.Del = append(b.Del, projection.Row{Kind: projection.KindDue, Key: due(step - 1)})
	}
}

// benchApply: all partitions at once, each one with a window of instances that take 8 steps.
func benchApply(b *testing.B, h Harness, size int) {
	s, err := h.New(b).Open(benchIdentity)
	must(b, "open", err)
	defer func() { must(b, "close", s.Close()) }()
	parts := make([]projection.Partition, benchIdentity.Partitions)
	batches := make([][]projection.Batch, len(parts))
	perPartition := b.N/len(parts) + 1
	for i := range parts {
		parts[i] = acquire(b, s, int32(i), 1)
		rnd := rand.New(rand.NewPCG(uint64(i), 0))
		var n uint64
		for done := 0; done < perPartition; {
			batch := projection.Batch{Expected: n}
			k := min(size, perPartition-done)
			for j := range k {
				// Round after round, the same `size` instances take a step; then the next ones.
				round := done / size
				transition(&batch, rnd, round/8*size+j, round%8)
			}
			done += k
			n++
			batch.New = mark(n, 1)
			batches[i] = append(batches[i], batch)
		}
	}
	b.ResetTimer()
	cpu := processCPU()
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() {
			for _, batch := range batches[i] {
				if err := p.Apply(b.Context(), batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processCPU()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

const benchRows = 50_000

func benchStore(b *testing.B, h Harness) projection.Partition {
	s, err := h.New(b).Open(benchIdentity)
	must(b, "open", err)
	b.Cleanup(func() { must(b, "close", s.Close()) })
	p := acquire(b, s, 0, 1)
	rnd := rand.New(rand.NewPCG(1, 0))
	for n := range uint64(100) {
		batch := projection.Batch{Expected: n, New: mark(n+1, 1)}
		for i := range benchRows / 100 {
			transition(&batch, rnd, int(n)*benchRows/100+i, 0)
		}
		apply(b, p, batch)
	}
	return p
}

// benchGet: one operation is one key of a call with 200.
func benchGet(b *testing.B, h Harness, format string) {
	p := benchStore(b, h)
	rnd := rand.New(rand.NewPCG(2, 0))
	calls := make([][][]byte, 256)
	for i := range calls {
		for range 200 {
			calls[i] = append(calls[i], fmt.Appendf(nil, format, rnd.IntN(benchRows)))
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n*200 < b.N; n++ {
		if _, _, err := p.Get(b.Context(), projection.KindInstance, calls[n%len(calls)]); err != nil {
			b.Fatal(err)
		}
	}
}

// benchScan: one operation is a page of 100 entries from a random place on.
func benchScan(b *testing.B, h Harness) {
	p := benchStore(b, h)
	rnd := rand.New(rand.NewPCG(3, 0))
	b.ResetTimer()
	for range b.N {
		from := projection.AppendInt64(projection.AppendString([]byte{0}, "pizza"), rnd.Int64N(benchRows-200))
		rows, _, err := p.Scan(b.Context(), projection.KindList, from, nil, 100)
		if err != nil || len(rows) != 100 {
			b.Fatalf("%d rows, %v", len(rows), err)
		}
	}
}

// benchWaiters: one operation asks who waits for a correlation key; one instance does, or
// none.
func benchWaiters(b *testing.B, h Harness, first int) {
	p := benchStore(b, h)
	prefix := func(i int) []byte {
		return projection.AppendString(projection.AppendString(nil, "orders"), fmt.Sprintf("order-%08d", i))
	}
	for n := range uint64(100) {
		batch := projection.Batch{Expected: 100 + n, New: mark(101+n, 1)}
		for i := range benchRows / 100 {
			key := projection.AppendUint64(prefix(i*100+int(n)), n)
			batch.Put = append(batch.Put, projection.Row{Kind: projection.KindSubscription, Key: key, Value: []byte(`{"id":"i-00000000","run":1,"act":17}`)})
		}
		apply(b, p, batch)
	}
	rnd := rand.New(rand.NewPCG(4, 0))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		from := prefix(first + rnd.IntN(benchRows))
		rows, _, err := p.Scan(b.Context(), projection.KindSubscription, from, projection.PrefixEnd(from), 10_000)
		if err != nil || len(rows) > 1 || len(rows) == 0 && first == 0 {
			b.Fatalf("%d rows, %v", len(rows), err)
		}
	}
}
