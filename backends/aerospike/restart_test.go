package aerospike

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// until polls for at most five minutes.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(5 * time.Minute)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("waited five minutes until %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

var restarts atomic.Int64

// needRestarts is a server that the test may restart. Its set is one that nobody has used: in one
// that was emptied, everything may come back.
func needRestarts(t *testing.T) *realServer {
	t.Helper()
	s := needServer(t)
	if os.Getenv("AEROSPIKE_RESTART") == "" {
		t.Skip("AEROSPIKE_RESTART has no command that restarts the server")
	}
	s.set = fmt.Sprintf("%s-restart-%d", process, restarts.Add(1))
	t.Cleanup(func() { s.empty() })
	return s
}

// restart stops the server in one of two ways, and starts it.
func (s *realServer) restart(t *testing.T, how string) {
	t.Helper()
	sets.Lock()
	sets.free = nil // they may have everything back
	sets.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "sh", "-c", os.Getenv("AEROSPIKE_RESTART")+" "+how).CombinedOutput(); err != nil {
		t.Fatalf("restart the server: %v\n%s", err, out)
	}
	until(t, "the server takes clients", func() bool {
		c, err := s.dial()
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// answers waits until the server answers a store that was connected before.
func answers(t *testing.T, v projection.View) (err error) {
	t.Helper()
	until(t, "the server answers", func() bool {
		_, err = v.Watermark(t.Context())
		return !errors.Is(err, errPasses)
	})
	return err
}

// isFile says whether the namespace is in a file.
func (s *realServer) isFile(t *testing.T) bool {
	t.Helper()
	nodes, err := s.cluster(t, s.addr).settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return nodes[0].values["storage-engine"] != "memory"
}

// ghosts writes records, twice, and removes them. It returns a func that counts those that are
// there again.
func (s *realServer) ghosts(t *testing.T) func() int {
	c := s.cluster(t, s.addr)
	var reads []read
	for version := range int64(3) {
		var changes []change
		for i := range 500 {
			x := change{key: fmt.Sprintf("ghost/%d", i), put: []bin{{binN, version}}}
			if version == 2 {
				x = change{key: x.key, mode: remove}
			}
			changes = append(changes, x)
		}
		c.codes(t, changes...)
	}
	for i := range 500 {
		reads = append(reads, read{key: fmt.Sprintf("ghost/%d", i)})
	}
	return func() int {
		n := 0
		have, err := c.read(t.Context(), reads)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range have {
			if r != nil {
				n++
			}
		}
		return n
	}
}

// TestRealServerRestart restarts the server: nothing that it says afterwards is believed until the partition
// was dropped, and nothing of what came back is in it then, although it is built up to an
// earlier event.
func TestRealServerRestart(t *testing.T) {
	for _, how := range []string{"stop", "kill"} {
		t.Run(how, func(t *testing.T) {
			server := needRestarts(t)
			isFile := server.isFile(t)
			ghosts := server.ghosts(t)
			w := storetest.NewOwner(t, server.open(t, server.options(server.addr)))
			other := server.open(t, server.options(server.addr))
			for round, events := range []int{60, 10, 30} {
				w.Steps(events)
				if at := w.Check(); at != uint64(events) {
					t.Fatalf("round %d: the store stands at event %d, want %d", round, at, events)
				}
				v, err := other.View(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				if at := check(t, v); at != uint64(events) {
					t.Fatalf("round %d: for another process the store stands at event %d, want %d", round, at, events)
				}
				server.restart(t, how)
				answers(t, w.Part)
				answers(t, v)
				saysLost(t, w, v)
				fresh := server.open(t, server.options(server.addr))
				p, err := fresh.Acquire(t.Context(), 0, w.Epoch)
				switch {
				case err == nil && (!isFile || how == "kill"): // it has forgotten that there was one
					if at := check(t, p); at != 0 {
						t.Fatalf("round %d: for a new process the store stands at event %d", round, at)
					}
				case !errors.Is(err, projection.ErrStateLost):
					t.Fatalf("round %d: a new process acquires the partition: %v, want ErrStateLost", round, err)
				}
				t.Logf("round %d: %d of 500 removed records are there again", round, ghosts())
				w.Part = nil
				if err := w.Acquire(); err != nil {
					t.Fatal(err)
				}
				if at := w.Check(); at != 0 {
					t.Fatalf("round %d: a partition that was dropped stands at event %d", round, at)
				}
			}
			w.Steps(40)
			w.Check()
			t.Log(w.Said())
		})
	}
}

// saysLost makes every call of who knew the partition.
func saysLost(t *testing.T, w *storetest.Owner, v projection.View) {
	t.Helper()
	lost := map[string]error{"Apply": w.Part.Apply(t.Context(), batch(w.N.Load()+1, w.Epoch))}
	for who, v := range map[string]projection.View{"the owner's ": w.Part, "a reader's ": v} {
		_, _, lost[who+"Get"] = v.Get(t.Context(), projection.KindInstance, [][]byte{[]byte("001")})
		_, _, lost[who+"Scan"] = v.Scan(t.Context(), projection.KindDue, nil, nil, 0)
		_, lost[who+"Watermark"] = v.Watermark(t.Context())
		lost[who+"Dump"] = v.Dump(t.Context(), func(projection.Row) error { return nil })
	}
	for call, err := range lost {
		if !errors.Is(err, projection.ErrStateLost) {
			t.Errorf("%s after a restart: %v, want ErrStateLost", call, err)
		}
	}
}

// flushed is after how long a server has written down what it has acknowledged.
const flushed = 1500 * time.Millisecond

// TestRealServerKilled kills the server in the middle of applies, when it has written down nothing, or
// all but the last second: what it has forgotten is noticed, and built again.
func TestRealServerKilled(t *testing.T) {
	server := needRestarts(t)
	w := storetest.NewOwner(t, server.open(t, server.options(server.addr)))
	for _, after := range []time.Duration{0, flushed, 2 * flushed} {
		began, before := time.Now(), w.N.Load()
		w.Run()
		until(t, "the worker is on its way", func() bool { return w.N.Load() > before+40 && time.Since(began) > after })
		noticed := w.Lost.Load() + w.Rewound.Load()
		server.restart(t, "kill")
		until(t, "the loss is noticed", func() bool { return w.Lost.Load()+w.Rewound.Load() > noticed })
		until(t, "the partition is built again", func() bool { return w.N.Load() > 20 })
		w.Halt()
		if w.Part == nil {
			w.Steps(1)
		}
		if at := w.Check(); at != w.N.Load() {
			t.Fatalf("the store stands at event %d, the worker at %d", at, w.N.Load())
		}
		t.Log(w.Said())
	}
}

// TestRealServerRestartWhileStaged restarts the server while a partition is built beside the one in use:
// what was built until then is not gone on with.
func TestRealServerRestartWhileStaged(t *testing.T) {
	for _, how := range []string{"stop", "kill"} {
		t.Run(how, func(t *testing.T) {
			server := needRestarts(t)
			s := server.open(t, server.options(server.addr))
			w := storetest.NewOwner(t, s)
			w.Steps(50)
			g := stage(t, s, 30)
			server.restart(t, how)
			if err := answers(t, g); !errors.Is(err, projection.ErrStateLost) {
				t.Errorf("what was built before a restart: %v, want ErrStateLost", err)
			}
			if err := g.Apply(t.Context(), batch(31, 0)); !errors.Is(err, projection.ErrStateLost) {
				t.Errorf("it is gone on with: %v, want ErrStateLost", err)
			}
			if err := g.Replace(t.Context()); !errors.Is(err, projection.ErrStateLost) {
				t.Errorf("it takes the place of the partition: %v, want ErrStateLost", err)
			}
			g.Close()
			g = stage(t, s, 5)
			if err := g.Replace(t.Context()); err != nil {
				t.Fatal(err)
			}
			if at := w.Check(); at != 5 {
				t.Fatalf("the store stands at event %d, want 5", at)
			}
			w.Part = nil
			w.Steps(10)
			if at := w.Check(); at != 15 || w.Lost.Load() > 0 {
				t.Errorf("the store stands at event %d after %d losses, want 15 without any", at, w.Lost.Load())
			}
			server.restart(t, how)
			w.Part = nil
			until(t, "the server answers", func() bool { return w.Step() == nil })
			w.Steps(2)
			if at := w.Check(); at != 3 {
				t.Errorf("the store stands at event %d, want 3", at)
			}
		})
	}
}

// stage begins to build partition 0 anew, up to an event.
func stage(t *testing.T, s *Store, to uint64) projection.Staged {
	t.Helper()
	g, err := s.Stage(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	if w, err := g.Watermark(t.Context()); err != nil || w.N != 0 {
		t.Fatalf("what is begun anew stands at event %d, %v", w.N, err)
	}
	for n := uint64(1); n <= to; n++ {
		if err := g.Apply(t.Context(), batch(n, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// TestRealServerHeldOverRestart holds the commands of an apply until the server was restarted and the
// partition built anew.
func TestRealServerHeldOverRestart(t *testing.T) {
	rnd := seeded(t)
	server := needRestarts(t)
	proxy := startProxy(t, server.addr)
	old := storetest.NewOwner(t, server.open(t, server.options(proxy.addr())))
	old.Store.(*Store).firstWait = time.Millisecond
	next := storetest.NewOwner(t, server.open(t, server.options(server.addr)))
	for k := range 3 { // what an apply writes, the mark, what it changes
		old.Part, old.Epoch = nil, next.Epoch
		until(t, "the server answers", func() bool { return old.Step() == nil })
		old.Steps(20)
		old.Store.(*Store).server.(*cluster).timeout = shortTimeout
		proxy.decide(from(k, hold))
		if old.Step() == nil {
			t.Fatal("an apply succeeded although nothing arrived")
		}
		server.restart(t, []string{"stop", "kill"}[k%2])
		next.Part, next.Epoch = nil, old.Epoch
		until(t, "the server answers", func() bool { return next.Step() == nil })
		next.Steps(4)
		proxy.decide(nil)
		t.Logf("%d commands arrive late", proxy.release(rnd.Shuffle))
		if at := next.Check(); at != 5 {
			t.Fatalf("the store stands at event %d, want 5", at)
		}
		next.Steps(3)
		if at := next.Check(); at != 8 {
			t.Fatalf("the store stands at event %d, want 8", at)
		}
		old.Store.(*Store).server.(*cluster).timeout = defaultTimeout
	}
}
