package redis

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// startReplica starts a replica of master and waits until it has all of it.
func startReplica(t *testing.T, master *server) *server {
	t.Helper()
	replica := startServer(t, "--replicaof", "127.0.0.1", strconv.Itoa(master.port()), "--repl-diskless-sync-delay", "0")
	replica.until("the replica is linked", func() bool {
		return strings.Contains(replica.do("INFO", "replication").(string), "master_link_status:up")
	})
	return replica
}

// TestReplicaPromoted kills the master in the middle of applies and promotes the replica: it
// stands at an event that the master had come to, with exactly its rows.
func TestReplicaPromoted(t *testing.T) {
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			master := startServer(t, "--repl-diskless-sync-delay", "0")
			replica := startReplica(t, master)
			w := storetest.NewOwner(t, master.open(t, identity))
			w.Run()
			master.until("the writer is on its way", func() bool { return w.N.Load() >= 100 })
			master.kill()
			w.Halt()
			acknowledged := w.N.Load()
			replica.do("REPLICAOF", "NO", "ONE")
			next := storetest.NewOwner(t, replica.open(t, identity))
			next.Epoch = w.Epoch
			at := next.Check()
			if at > acknowledged+1 {
				t.Errorf("the replica stands at event %d, the writer had come to %d", at, acknowledged)
			}
			for range 20 {
				if err := next.Step(); err != nil {
					t.Fatal(err)
				}
			}
			if got := next.Check(); got != at+20 {
				t.Errorf("after 20 events the replica stands at %d, it began at %d", got, at)
			}
			t.Logf("acknowledged %d, on the replica %d", acknowledged, at)
		})
	}
}

// TestDemoted: a master that becomes a replica while it is in use refuses writes, and reads
// that would be of another's rows are those of the new master's partition.
func TestDemoted(t *testing.T) {
	master := startServer(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	w := storetest.NewOwner(t, master.open(t, identity))
	if err := w.Step(); err != nil {
		t.Fatal(err)
	}
	replica.do("REPLICAOF", "NO", "ONE")
	master.do("REPLICAOF", "127.0.0.1", strconv.Itoa(replica.port()))
	if err := w.Step(); err == nil || !strings.Contains(err.Error(), "READONLY") && !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("apply to what is a replica now: %v", err)
	}
}

// TestSentinel lets Sentinel replace a killed master under a working writer.
func TestSentinel(t *testing.T) {
	master := startServer(t, "--repl-diskless-sync-delay", "0")
	startReplica(t, master)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n", master.port())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sentinel := &server{tb: t, dir: t.TempDir(), addr: freeAddr(t), first: config, args: []string{"--sentinel"}}
	sentinel.start()
	t.Cleanup(sentinel.kill)
	sentinel.until("the Sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.do("INFO", "sentinel").(string), "slaves=1")
	})

	s, err := projection.Open(t.Context(), "redis+sentinel://"+sentinel.addr+"/0?master=main&timeout=2s", identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	w.Run()
	master.until("the writer is on its way", func() bool { return w.N.Load() >= 100 })
	master.kill()
	acknowledged := w.N.Load()
	master.until("the writer goes on at the new master", func() bool { return w.N.Load() >= acknowledged+100 })
	w.Halt()
	w.Check()
	t.Log(w.Said())

	_, err = projection.Open(t.Context(), "redis+sentinel://"+sentinel.addr+"/0?master=other&timeout=2s", identity)
	if err == nil {
		t.Error("a master that the Sentinel doesn't know was opened")
	}
}
