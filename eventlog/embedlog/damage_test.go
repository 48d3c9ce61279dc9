package embedlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godagger/dagger/eventlog"
)

// readError reads on until an error comes.
func readError(t *testing.T, l *Log, topic string, partition int32) error {
	t.Helper()
	r, err := l.Read(t.Context(), topic, partition, 0, "", eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	end := mustTopic(t, l, topic).Partitions[partition].End
	for {
		records, next, err := r.Next(t.Context())
		if err != nil {
			return err
		}
		for i, rec := range records {
			if rec.Offset != next-int64(len(records)-i) {
				t.Fatalf("record %d of %d before %d has offset %d", i, len(records), next, rec.Offset)
			}
		}
		if next >= end {
			return nil
		}
	}
}

func mustTopic(t *testing.T, l *Log, name string) eventlog.Topic {
	t.Helper()
	d, err := l.Topic(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A damaged or missing chunk is an error that says where, and never an end of the data.
func TestDamagedChunk(t *testing.T) {
	memory := &Memory{}
	reopen := func() *Log {
		l, err := OpenMemory(Options{Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := reopen()
	if err := l.EnsureTopic(t.Context(), "orders", 3); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := l.Publish(t.Context(), eventlog.Record{Topic: "orders", Partition: 2, Value: fmt.Append(nil, "value", i)}); err != nil {
			t.Fatal(err)
		}
	}
	number := l.topics["orders"].Number
	_ = l.Close()
	key := chunkKey(number, 2, 4)
	good, err := memory.kv.get(key)
	if err != nil || good == nil {
		t.Fatal("no chunk at offset 4")
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		_ = memory.kv.apply([]op{{opSet, key, bad}}, true)
		l := reopen()
		if err := readError(t, l, "orders", 2); err == nil || !strings.Contains(err.Error(), "orders/2 at offset 4") {
			t.Fatalf("byte %d damaged: %v", i, err)
		}
		_ = l.Close()
	}
	_ = memory.kv.apply([]op{{kind: opDelete, key: key}}, true)
	l = reopen()
	defer l.Close()
	if err := readError(t, l, "orders", 2); err == nil || !strings.Contains(err.Error(), "orders/2 at offset 4") {
		t.Fatalf("chunk missing: %v", err)
	}
}

// Damaged files fail the open or the read; they neither end the process nor shorten the log.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), dir, Options{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	o, err := l.Own(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, err := o.Append(t.Context(), [][]byte{randomJSON(1000)}, make([]eventlog.Type, 1), nil); err != nil {
			t.Fatal(err)
		}
		if err := o.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.store.(*pebbleKV).db.Flush(); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	tables, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
	if len(tables) == 0 {
		t.Fatal("no tables")
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := len(b) / 4; i < len(b)/4+256; i++ {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if l, err = Open(t.Context(), dir, Options{}); err != nil {
		t.Logf("open: %v", err)
		return
	}
	defer l.Close()
	if err := readError(t, l, eventlog.EventsTopic("dagger"), 0); err == nil {
		t.Fatal("a damaged log is read without an error")
	} else {
		t.Logf("read: %v", err)
	}
}

// Damage in the middle of the write-ahead log, and an end of it that is missing although it
// was acknowledged, are refused; after that is accepted the rest is there.
func TestDamagedWAL(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte { b[80_000] ^= 0xff; return b },
		"cut":     func(b []byte) []byte { return b[:80_000] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := Open(t.Context(), dir, Options{Partitions: 1})
			if err != nil {
				t.Fatal(err)
			}
			for range 200 {
				if err := l.Publish(t.Context(), eventlog.Record{Topic: eventlog.RequestsTopic("dagger"), Value: randomJSON(1000)}); err != nil {
					t.Fatal(err)
				}
			}
			_ = l.Close()
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, name := range logs {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, damage(b), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if l, err = Open(t.Context(), dir, Options{}); err == nil {
				_ = l.Close()
				t.Fatal("a log that lost what it had acknowledged opens")
			}
			t.Log(err)
			if err := os.Remove(filepath.Join(dir, markFile)); err != nil {
				t.Fatal(err)
			}
			if l, err = Open(t.Context(), dir, Options{}); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if n := len(readAll(t, l, eventlog.RequestsTopic("dagger"), 0)); n < 50 || n >= 200 {
				t.Errorf("%d records are left", n)
			}
		})
	}
}

// TestCopiedWhileItWorks: a directory that was copied file by file under a log that works lacks
// commits of which the copy knows that they were acknowledged.
func TestCopiedWhileItWorks(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	l, err := Open(t.Context(), dir, Options{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	publish := func() {
		for range 20 {
			if err := l.Publish(t.Context(), eventlog.Record{Topic: eventlog.RequestsTopic("dagger"), Value: randomJSON(1000)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files { // by name: the write-ahead log before the number of commits
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, f.Name()), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		publish()
	}
	other, err := Open(t.Context(), copied, Options{})
	if err == nil {
		_ = other.Close()
		t.Fatal("the copy opens")
	}
	if !strings.Contains(err.Error(), "acknowledged commits are missing") {
		t.Errorf("the copy: %v", err)
	}
}

func randomJSON(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return b
}

// When the disk fails, the commit that meets it fails, and everything after it; what was
// acknowledged before is there when the disk is well again.
// So it is when only the sync fails: what a second one says of the same bytes means nothing.
func TestFailingDisk(t *testing.T) {
	for name, fails := range map[string]func(errorfs.Op) bool{
		"write": func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
		"sync": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		},
	} {
		t.Run(name, func(t *testing.T) { failingDisk(t, fails) })
	}
}

func failingDisk(t *testing.T, fails func(errorfs.Op) bool) {
	var failing atomic.Bool
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && fails(op) {
			return errors.New("disk failed")
		}
		return nil
	})
	mem := vfs.NewCrashableMem()
	l, err := Open(t.Context(), "log", Options{Partitions: 1, FS: errorfs.Wrap(mem, inject)})
	if err != nil {
		t.Fatal(err)
	}
	o, err := l.Own(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(i int) error {
		if _, err := o.Append(t.Context(), [][]byte{fmt.Append(nil, i)}, make([]eventlog.Type, 1), nil); err != nil {
			return err
		}
		return o.Commit(t.Context())
	}
	for i := range 10 {
		if err := commit(i); err != nil {
			t.Fatal(err)
		}
	}
	failing.Store(true)
	if err := commit(10); err == nil {
		t.Fatal("a commit on a failing disk succeeds")
	}
	failing.Store(false)
	if o, err = l.Own(t.Context(), 0); err == nil {
		t.Fatal("the log goes on after it lost a write")
	}
	if err := l.EnsureTopic(t.Context(), "x", 1); err == nil {
		t.Fatal("the log goes on after it lost a write")
	}
	if got := readAll(t, l, eventlog.EventsTopic("dagger"), 0); len(got) != 10 {
		t.Fatalf("%d events are visible, 10 were acknowledged", len(got))
	}
	fs := mem.CrashClone(vfs.CrashCloneCfg{})
	if err := l.Close(); err != nil {
		t.Logf("close after the failure: %v", err)
	}
	if l, err = Open(t.Context(), "log", Options{FS: fs}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := readAll(t, l, eventlog.EventsTopic("dagger"), 0); len(got) < 10 || len(got) > 11 {
		t.Fatalf("%d events are there, 10 were acknowledged and one was not", len(got))
	}
}

// OffsetAt is right for times that go back and forth.
func TestOffsetAtRandomTimes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 30 {
		l, err := OpenMemory(Options{Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.EnsureTopic(t.Context(), "x", 1); err != nil {
			t.Fatal(err)
		}
		var times []int64
		for range 1 + random.IntN(20) {
			var records []eventlog.Record
			for range 1 + random.IntN(5) {
				at := 1000 + random.Int64N(50)
				times = append(times, at)
				records = append(records, eventlog.Record{Topic: "x", Time: time.UnixMilli(at)})
			}
			if err := l.Publish(t.Context(), records...); err != nil {
				t.Fatal(err)
			}
		}
		below := random.Int64N(int64(len(times)))
		if err := l.DeleteRecords(t.Context(), "x", 0, below); err != nil {
			t.Fatal(err)
		}
		for at := int64(999); at < 1052; at++ {
			want := int64(len(times))
			for i := below; i < want; i++ {
				if times[i] >= at {
					want = i
				}
			}
			got, err := l.OffsetAt(t.Context(), "x", time.UnixMilli(at))
			if err != nil || got[0] != want {
				t.Fatalf("OffsetAt %d: %v, %v, want %d", at, got, err, want)
			}
		}
		_ = l.Close()
	}
}
