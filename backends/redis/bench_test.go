package redis

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
)

// BenchmarkBlocked applies batches of transitions one after the other and says how much time of
// its only core the server needs for one of them (server-ms), and how long Apply takes.
func BenchmarkBlocked(b *testing.B) {
	for _, size := range []int{1, 100, 256, 1000, 5000} {
		for _, buckets := range []int{16, 64} {
			b.Run(fmt.Sprintf("transitions=%d/buckets=%d", size, buckets), func(b *testing.B) {
				server := startServer(b)
				s, err := Open(b.Context(), Options{Addrs: []string{server.addr}, Buckets: buckets}, identity)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				p, err := s.Acquire(b.Context(), 0, 1)
				if err != nil {
					b.Fatal(err)
				}
				rnd := rand.New(rand.NewPCG(1, 1))
				var took []time.Duration
				n := uint64(0)
				step := func() {
					n++
					batch := transitions(n, size, rnd)
					began := time.Now()
					if err := p.Apply(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				step()
				cpu := server.cpu(b)
				took = nil
				b.ResetTimer()
				for range b.N {
					step()
				}
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
				b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
				b.ReportMetric((server.cpu(b)-cpu)*1000/float64(b.N), "server-ms")
			})
		}
	}
}

// cpu is how many seconds of the processor the server's main thread has used.
func (s *server) cpu(tb testing.TB) (seconds float64) {
	for _, f := range regexp.MustCompile(`used_cpu_(?:sys|user)_main_thread:([0-9.]+)`).FindAllStringSubmatch(s.do("INFO", "cpu").(string), -1) {
		n, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			tb.Fatal(err)
		}
		seconds += n
	}
	return seconds
}

// transitions is batch n: so many instances, out of ten times as many, take a step.
func transitions(n uint64, size int, rnd *rand.Rand) projection.Batch {
	b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1, LogID: "log", Sum: n}}
	first := rnd.IntN(9*size + 1)
	for i := range size {
		id := fmt.Sprintf("order-%08d", first+i)
		value := fmt.Appendf(nil, `{"id":%q,"definition":"PizzaWorkflow","run":"%016x","seq":%d,"status":"EXECUTING","params":{"order_id":"%d","customer_id":"%d","pizza_type":"margherita","status":"READY"},`+
			`"tasks":[{"path":"Order/place","status":"COMPLETED","activation":%d,"attempt":1},{"path":"Order/ready","status":"EXECUTING","activation":%d,"attempt":1,"waits":"for a message of order_status_topic"},{"path":"Delivery/deliver","status":"NOT_STARTED"}]}`,
			id, rnd.Uint64(), n, first+i, rnd.IntN(10000), rnd.IntN(1000), rnd.IntN(1000))
		key := func(n uint64) []byte { return append(projection.AppendUint64([]byte{byte(n % 4)}, n), id...) }
		b.Put = append(b.Put,
			projection.Row{Kind: projection.KindInstance, Key: []byte(id), Value: value},
			projection.Row{Kind: projection.KindList, Key: key(n)},
			projection.Row{Kind: projection.KindDue, Key: key(n)})
		b.Del = append(b.Del,
			projection.Row{Kind: projection.KindList, Key: key(n - 1)},
			projection.Row{Kind: projection.KindDue, Key: key(n - 1)})
	}
	b.Add = []projection.Delta{{Key: []byte("running"), N: 1}}
	return b
}

// BenchmarkPartition says what a partition of 100,000 waiting instances costs: memory, and how
// much time of its only core the server needs to dump, claim and drop it.
func BenchmarkPartition(b *testing.B) {
	const instances = 100_000
	server := startServer(b)
	s := server.open(b, identity)
	p, err := s.Acquire(b.Context(), 0, 1)
	if err != nil {
		b.Fatal(err)
	}
	used := func() float64 {
		found := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(server.do("INFO", "memory").(string))
		n, _ := strconv.ParseFloat(found[1], 64)
		return n
	}
	before := used()
	rnd := rand.New(rand.NewPCG(1, 1))
	for n := uint64(1); n <= instances/1000; n++ {
		batch := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1, LogID: "log", Sum: n}}
		for i := range 1000 {
			one := transitions(n, 1, rnd)
			id := fmt.Sprintf("order-%08d", int(n)*1000+i)
			for _, r := range one.Put {
				r.Key = append(slices.Clone(r.Key[:len(r.Key)-len(id)]), id...)
				batch.Put = append(batch.Put, r)
			}
		}
		if err := p.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	memory := (used() - before) / instances
	var dump, acquire, drop float64
	for range b.N {
		count := 0
		cpu := server.cpu(b)
		if err := p.Dump(b.Context(), func(projection.Row) error { count++; return nil }); err != nil || count != 3*instances {
			b.Fatal(count, err)
		}
		dump += server.cpu(b) - cpu
		cpu = server.cpu(b)
		if _, err := s.Acquire(b.Context(), 0, 1); err != nil {
			b.Fatal(err)
		}
		acquire += server.cpu(b) - cpu
	}
	cpu := server.cpu(b)
	if err := s.Drop(b.Context(), 0, 1); err != nil {
		b.Fatal(err)
	}
	drop = server.cpu(b) - cpu
	b.ReportMetric(dump*1000/float64(b.N), "dump-ms")
	b.ReportMetric(acquire*1000/float64(b.N), "acquire-ms")
	b.ReportMetric(drop*1000, "drop-ms")
	b.ReportMetric(memory, "bytes/instance")
}
