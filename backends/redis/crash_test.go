package redis

import (
	"github.com/godagger/dagger/projection/storetest"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestKillServer kills the server in the middle of applies, with every way to persist: the
// store stands at an event with exactly its rows, and the writer goes on from there.
func TestKillServer(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":       nil,
		"rdb":           {"--save", "1 10"},
		"aof-no":        {"--appendonly", "yes", "--appendfsync", "no"},
		"aof-everysec":  {"--appendonly", "yes", "--appendfsync", "everysec"},
		"aof-always":    {"--appendonly", "yes", "--appendfsync", "always"},
		"aof-rewriting": {"--appendonly", "yes", "--auto-aof-rewrite-percentage", "10", "--auto-aof-rewrite-min-size", "64kb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startServer(t, args...)
			w := storetest.NewOwner(t, server.open(t, identity))
			for range 4 {
				before := w.N.Load()
				w.Run()
				server.until("the writer is on its way", func() bool { return w.N.Load() >= before+30+rand.Uint64N(200) })
				if name == "rdb" {
					server.do("BGSAVE")
				}
				server.kill()
				acknowledged := w.N.Load()
				server.start()
				server.until("the writer is back", func() bool { return w.Failed.Load() > 0 || w.N.Load() > acknowledged })
				w.Halt()
				w.Check()
			}
			t.Log(w.Said())
			if name == "aof-always" && w.Rewound.Load() > 0 {
				t.Error("events were lost although every write was synced")
			}
			if name == "nothing" && w.Lost.Load()+w.Rewound.Load() == 0 {
				t.Error("nothing was lost by a server that keeps nothing")
			}
		})
	}
}

// TestTruncatedAppendOnlyFile cuts the append-only file anywhere: scripts come back whole or
// not at all.
func TestTruncatedAppendOnlyFile(t *testing.T) {
	server := startServer(t, "--appendonly", "yes", "--appendfsync", "no")
	w := storetest.NewOwner(t, server.open(t, identity))
	for range 150 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	server.kill()
	whole, err := os.ReadFile(server.aof())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for range 15 {
		at := rand.IntN(len(whole))
		if err := os.WriteFile(server.aof(), whole[:at], 0o644); err != nil {
			t.Fatal(err)
		}
		server.start()
		again := storetest.NewOwner(t, server.open(t, identity))
		again.Epoch = w.Epoch
		seen[again.Check()] = true
		for range 20 {
			if err := again.Step(); err != nil {
				t.Fatalf("cut at %d of %d: %v", at, len(whole), err)
			}
		}
		again.Check()
		server.kill()
	}
	if len(seen) < 3 {
		t.Errorf("the cuts gave only the events %v", seen)
	}
}

// TestFrozenServer: a server that doesn't answer is waited for, up to the time-out.
func TestFrozenServer(t *testing.T) {
	server := startServer(t)
	w := storetest.NewOwner(t, server.open(t, identity))
	if err := w.Step(); err != nil {
		t.Fatal(err)
	}
	thaw := server.freeze()
	timer := time.AfterFunc(500*time.Millisecond, thaw)
	defer timer.Stop()
	if err := w.Step(); err != nil {
		t.Error(err)
	}
	if at := w.Check(); at != 2 {
		t.Errorf("the store stands at event %d, want 2", at)
	}
}
