package embedlog

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// BenchmarkCommit is b.N transactions of 10 events of 250 bytes each, fsynced.
func BenchmarkCommit(b *testing.B) {
	for _, owners := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("owners=%d", owners), func(b *testing.B) {
			l, err := Open(b.Context(), b.TempDir(), Options{Partitions: int32(owners)})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			const events = 10
			fill(b, l, owners, b.N, events)
			b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkReplay reads back 250-byte events from the directory, after reopening.
func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	l, err := Open(b.Context(), dir, Options{Partitions: 4})
	if err != nil {
		b.Fatal(err)
	}
	const txns, events = 8000, 25
	fill(b, l, 4, txns, events)
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	if l, err = Open(b.Context(), dir, Options{}); err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	read := 0
	b.ResetTimer()
	for range b.N {
		for p := range l.Partitions() {
			read += len(readAll(b, l, eventlog.EventsTopic("dagger"), p))
		}
	}
	if read != b.N*txns*events {
		b.Fatalf("read %d records, want %d", read, b.N*txns*events)
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
}

// fill commits n transactions, shared out among owners that work at the same time.
func fill(b *testing.B, l *Log, owners, n, events int) {
	b.Helper()
	value := bytes.Repeat([]byte("v"), 250)
	batch, types := make([][]byte, events), make([]eventlog.Type, events)
	for i := range batch {
		batch[i], types[i] = value, eventlog.TaskCompleted
	}
	var all []eventlog.Owner
	for p := range owners {
		o, err := l.Own(b.Context(), int32(p))
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, o)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, o := range all {
		wg.Go(func() {
			for range n/owners + min(1, max(0, n%owners-i)) {
				if _, err := o.Append(b.Context(), batch, types, nil); err != nil {
					b.Error(err)
					return
				}
				if err := o.Commit(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	for _, o := range all {
		_ = o.Close()
	}
	b.StartTimer()
}

// readAll reads a partition from its start to its present end.
func readAll(t testing.TB, l *Log, topic string, partition int32) []eventlog.Record {
	t.Helper()
	d, err := l.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	p := d.Partitions[partition]
	if p.Start == p.End {
		return nil
	}
	r, err := l.Read(t.Context(), topic, partition, p.Start, d.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []eventlog.Record
	for {
		records, next, err := r.Next(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, records...)
		if next >= p.End {
			return all
		}
	}
}
