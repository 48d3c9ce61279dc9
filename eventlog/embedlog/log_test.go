package embedlog

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// A bubble rests while a reader and a member of a log in memory wait, and ends after Close.
func TestMemoryLogInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := OpenMemory(Options{Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Read(t.Context(), eventlog.EventsTopic("dagger"), 1, 0, "", eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		m, err := l.Join(t.Context(), "g", eventlog.RequestsTopic("dagger"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Assigned(t.Context()); err != nil || len(got) != 2 {
			t.Fatalf("assigned %v, %v", got, err)
		}
		results := make(chan error, 2)
		go func() { _, _, err := r.Next(t.Context()); results <- err }()
		go func() { _, err := m.Assigned(t.Context()); results <- err }()
		start := time.Now()
		time.Sleep(24 * time.Hour)
		if d := time.Since(start); d != 24*time.Hour {
			t.Fatalf("slept %v", d)
		}
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, eventlog.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

func TestDirectoryInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Announce("http://localhost:7070"); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), dir, Options{})
	if !errors.Is(err, eventlog.ErrInUse) || !strings.Contains(err.Error(), "(http://localhost:7070)") {
		t.Fatalf("second open: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(t.Context(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestURLs(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, url := range []string{"file:data?app=a&partitions=3", "file:" + dir + "/abs", "file://" + dir + "/abs2?max-record=2048", "mem:", "mem:?app=x&partitions=1"} {
		l, err := eventlog.Open(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if l.URL() != url {
			t.Errorf("URL is %s, opened %s", l.URL(), url)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{"file:", "file://host/x", "mem:x", "mem:?size=1", "file:x?partitions=0", "file:x?max-record=1", "mem:?partitions=x"} {
		if l, err := eventlog.Open(t.Context(), url); err == nil {
			t.Errorf("%s: opened %v", url, l.URL())
		}
	}
}

// Events can be published (by a copy of a log) only while the partition has no owner, whose
// offsets would be wrong otherwise.
func TestPublishEvents(t *testing.T) {
	l, err := OpenMemory(Options{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o, err := l.Own(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	record := eventlog.Record{Topic: eventlog.EventsTopic("dagger"), Value: []byte("{}")}
	if err := l.Publish(t.Context(), record); err == nil {
		t.Error("published to a partition that has an owner")
	}
	record.Partition = 1
	if err := l.Publish(t.Context(), record); err != nil {
		t.Error(err)
	}
	_ = o.Close()
	record.Partition = 0
	if err := l.Publish(t.Context(), record); err != nil {
		t.Error(err)
	}
}

// Runs with a given clock and given ids are alike, byte for byte.
func TestRepeatable(t *testing.T) {
	run := func() map[string][]pair {
		memory, n := &Memory{}, 0
		l, err := OpenMemory(Options{Partitions: 2, Memory: memory,
			Now:   func() time.Time { return time.UnixMilli(1_700_000_000_000) },
			NewID: func() string { n++; return string(rune('a' + n)) }})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := l.Publish(t.Context(), eventlog.Record{Topic: eventlog.RequestsTopic("dagger"), Partition: -1, Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		return memory.kv.groups
	}
	if d := cmp.Diff(run(), run(), cmp.AllowUnexported(pair{})); d != "" {
		t.Error(d)
	}
}
