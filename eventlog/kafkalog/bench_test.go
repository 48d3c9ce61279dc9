package kafkalog

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// The benchmarks want a real broker: a fake one shares the process.
func benchLog(b *testing.B, partitions int) *kafkaLog {
	b.Helper()
	addrs := os.Getenv("KAFKA_BROKERS")
	if addrs == "" {
		b.Skip("KAFKA_BROKERS names no broker")
	}
	return openLog(b, addrs, newApp(), fmt.Sprintf("partitions=%d", partitions))
}

var benchEvent = []byte(`{"v":1,"n":90317,"type":"TaskCompleted","id":"order-42","seq":17,"at":1764000000000,"path":"Order/ready","attempt":1,"starts":[{"path":"Delivery/deliver","kind":"execute"}],"pos":{"offset":4711}}`)

// BenchmarkTransaction: one operation is one transaction of an owner.
func BenchmarkTransaction(b *testing.B) {
	for _, owners := range []int{1, 16} {
		for _, events := range []int{1, 100} {
			b.Run(fmt.Sprintf("owners=%d/events=%d", owners, events), func(b *testing.B) {
				l := benchLog(b, owners)
				var all []eventlog.Owner
				for p := range owners {
					o := own(b, l, int32(p))
					add(b, o, "warm")
					commit(b, o)
					all = append(all, o)
				}
				batch, types := slices.Repeat([][]byte{benchEvent}, events), slices.Repeat([]eventlog.Type{"TaskCompleted"}, events)
				took := make([]time.Duration, b.N)
				b.ResetTimer()
				start := time.Now()
				var wg sync.WaitGroup
				for i, o := range all {
					wg.Go(func() {
						for n := i; n < b.N; n += owners {
							begin := time.Now()
							if _, err := o.Append(b.Context(), batch, types, nil); err != nil {
								b.Error(err)
								return
							}
							if err := o.Commit(b.Context()); err != nil {
								b.Error(err)
								return
							}
							took[n] = time.Since(begin)
						}
					})
				}
				wg.Wait()
				report(b, took, time.Since(start))
			})
		}
	}
}

// BenchmarkPublishRead: one operation is a record published and read by one that waits.
func BenchmarkPublishRead(b *testing.B) {
	l := benchLog(b, 1)
	topic := eventlog.RequestsTopic(l.App())
	r, err := l.Read(b.Context(), topic, 0, 0, "", eventlog.ReadUncommitted)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	took := make([]time.Duration, 0, b.N)
	start := time.Now()
	for b.Loop() {
		begin := time.Now()
		if err := l.Publish(b.Context(), eventlog.Record{Topic: topic, Value: benchEvent}); err != nil {
			b.Fatal(err)
		}
		if _, _, err := r.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	report(b, took, time.Since(start))
}

// BenchmarkCommitRead: one operation is an event committed and read, committed only.
func BenchmarkCommitRead(b *testing.B) {
	l := benchLog(b, 1)
	r, err := l.Read(b.Context(), eventlog.EventsTopic(l.App()), 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	o := own(b, l, 0)
	took := make([]time.Duration, 0, b.N)
	start := time.Now()
	for b.Loop() {
		begin := time.Now()
		add(b, o, string(benchEvent))
		commit(b, o)
		for got := 0; got == 0; {
			records, _, err := r.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			got = len(records)
		}
		took = append(took, time.Since(begin))
	}
	report(b, took, time.Since(start))
}

// BenchmarkPublish: one operation is one record, from 64 concurrent callers.
func BenchmarkPublish(b *testing.B) {
	l := benchLog(b, 16)
	topic := eventlog.RequestsTopic(l.App())
	b.SetParallelism(32)
	start := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Publish(b.Context(), eventlog.Record{Topic: topic, Partition: -1, Value: benchEvent}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "records/s")
}

// BenchmarkOwn: one operation is the fencing of an idle partition.
func BenchmarkOwn(b *testing.B) {
	l := benchLog(b, 1)
	for b.Loop() {
		o, err := l.Own(b.Context(), 0)
		if err != nil {
			b.Fatal(err)
		}
		_ = o.Close()
	}
}

// BenchmarkRead: one operation is a reader opened, its first record read, and closed.
func BenchmarkRead(b *testing.B) {
	l := benchLog(b, 1)
	topic := eventlog.RequestsTopic(l.App())
	if err := l.Publish(b.Context(), eventlog.Record{Topic: topic, Value: benchEvent}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := l.Read(b.Context(), topic, 0, 0, "", eventlog.ReadCommitted)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := r.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		_ = r.Close()
	}
}

// BenchmarkReplay: one operation is a million committed events read.
func BenchmarkReplay(b *testing.B) {
	l := benchLog(b, 1)
	o := own(b, l, 0)
	const events, together = 1_000_000, 1000
	batch, types := slices.Repeat([][]byte{benchEvent}, together), slices.Repeat([]eventlog.Type{"TaskCompleted"}, together)
	for range events / together {
		if _, err := o.Append(b.Context(), batch, types, nil); err != nil {
			b.Fatal(err)
		}
		commit(b, o)
	}
	for b.Loop() {
		r, err := l.Read(b.Context(), eventlog.EventsTopic(l.App()), 0, 0, "", eventlog.ReadCommitted)
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; n < events; {
			records, _, err := r.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			n += len(records)
		}
		_ = r.Close()
	}
	b.ReportMetric(float64(b.N)*events/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkIdle: how much 16 owners and 32 readers cost that have nothing to do.
func BenchmarkIdle(b *testing.B) {
	l := benchLog(b, 16)
	before, cpu := runtime.NumGoroutine(), cpuTime(b)
	for p := range int32(16) {
		own(b, l, p)
		for _, topic := range []string{eventlog.RequestsTopic(l.App()), eventlog.EventsTopic(l.App())} {
			r, err := l.Read(b.Context(), topic, p, 0, "", eventlog.ReadUncommitted)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = r.Close() })
		}
	}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Second)
	defer cancel()
	opened := cpuTime(b)
	<-ctx.Done()
	b.ReportMetric(float64(runtime.NumGoroutine()-before), "goroutines")
	b.ReportMetric((opened-cpu).Seconds()*1000, "open-cpu-ms")
	b.ReportMetric((cpuTime(b)-opened).Seconds()/2*100, "idle-cpu-%")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(b *testing.B, took []time.Duration, elapsed time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/elapsed.Seconds(), "op/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
