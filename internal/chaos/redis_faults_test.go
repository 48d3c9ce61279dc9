package chaos

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/internal/kafkatest"
)

// TestRedisKilledEmbedded kills the server under load with each way to persist.
func TestRedisKilledEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	for name, args := range map[string][]string{
		"nothing":      nil,
		"rdb":          {"--save", "1 10"},
		"aof-everysec": {"--appendonly", "yes", "--appendfsync", "everysec"},
		"aof-always":   {"--appendonly", "yes", "--appendfsync", "always"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t, args...)
			w := newStoreWorld(t, server.url())
			w.feed(pick(2000, 300), 60)
			for range pick(10, 3) {
				w.awaitAcked(40)
				if name == "rdb" {
					server.do("BGSAVE")
					w.awaitAcked(10)
				}
				server.kill()
				server.start()
			}
			w.finish()
			older := strings.Contains(w.said.String(), "projection: store stands at event")
			empty := strings.Contains(w.said.String(), "the store's partition is rebuilt")
			t.Logf("it had to go back: %v, it had to begin anew: %v", older, empty)
			switch name {
			case "nothing":
				if !empty {
					t.Error("a server that keeps nothing had everything")
				}
			case "aof-always":
				if older || empty {
					t.Error("something was lost although every write was synced")
				}
			}
		})
	}
}

// TestRedisTruncatedFileEmbedded kills the server and cuts its append-only file anywhere.
func TestRedisTruncatedFileEmbedded(t *testing.T) {
	random := begin(t)
	t.Parallel()
	server := startRedis(t, "--appendonly", "yes", "--appendfsync", "no")
	w := newStoreWorld(t, server.url())
	w.feed(pick(2000, 300), 60)
	for range pick(10, 3) {
		w.awaitAcked(50)
		server.kill()
		files, err := filepath.Glob(filepath.Join(server.dir, "appendonlydir", "*.incr.aof"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no append-only file: %v", err)
		}
		name := files[len(files)-1]
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		at := random.Int64N(info.Size())
		if err := os.Truncate(name, at); err != nil {
			t.Fatal(err)
		}
		t.Logf("the file was cut at %d of %d bytes", at, info.Size())
		server.start()
	}
	w.finish()
}

// TestRedisScriptsForgottenEmbedded: the server forgets the scripts again and again.
func TestRedisScriptsForgottenEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t)
	w := newStoreWorld(t, server.url())
	w.feed(pick(2000, 200), 60)
	for w.acked.Load() < int64(w.orders) {
		server.do("SCRIPT", "FLUSH")
		pause(t.Context(), 20*time.Millisecond)
	}
	w.finish()
	if strings.Contains(w.said.String(), "partition is taken again") {
		t.Errorf("an owner began anew:\n%s", w.tail())
	}
}

// TestRedisMemoryIsFullEmbedded: maxmemory is reached under load, and raised later.
func TestRedisMemoryIsFullEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t, "--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
	w := newStoreWorld(t, server.url())
	w.feed(pick(2000, 300), 60)
	for range pick(5, 2) {
		w.awaitAcked(40)
		server.do("CONFIG", "SET", "maxmemory", "1mb")
		w.awaitNotReady("OOM")
		server.do("CONFIG", "SET", "maxmemory", "100mb")
		w.awaitReady()
	}
	w.finish()
	if strings.Contains(w.said.String(), "the store's partition is rebuilt") {
		t.Errorf("a full memory was taken for a loss:\n%s", w.tail())
	}
}

// TestRedisReplicaPromotedEmbedded: Sentinel puts a replica in the place of a master that is
// killed under load.
func TestRedisReplicaPromotedEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	master := startRedis(t, "--repl-diskless-sync-delay", "0")
	_, port, _ := net.SplitHostPort(master.addr)
	replica := startRedis(t, "--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", port)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %s 1\nsentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n", port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startRedisFrom(t, config, freePort(t), "--sentinel")
	sentinel.until("the Sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.ask("INFO", "sentinel").(string), "slaves=1")
	})
	replica.until("the replica is linked", func() bool {
		return strings.Contains(replica.ask("INFO", "replication").(string), "master_link_status:up")
	})
	w := newStoreWorld(t, "redis+sentinel://"+sentinel.addr+"/0?master=main&timeout=2s")
	w.feed(pick(2000, 300), 60)
	w.awaitAcked(100)
	master.kill()
	w.awaitAcked(100)
	w.finish()
	if role := replica.ask("INFO", "replication").(string); !strings.Contains(role, "role:master") {
		t.Errorf("the replica was not promoted: %s", role)
	}
}

// TestRedisClusterEmbedded: three nodes share the partitions. Under load a partition's slot
// moves to another node, and then each node is killed and comes back with nothing.
func TestRedisClusterEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	var nodes []*redisServer
	for range 3 {
		nodes = append(nodes, startRedisFrom(t, "", freePort(t), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"))
	}
	for i, n := range nodes {
		n.do("CLUSTER", "ADDSLOTSRANGE", i*16384/3, (i+1)*16384/3-1)
		n.do("CLUSTER", "MEET", "127.0.0.1", nodes[0].port())
	}
	for _, n := range nodes {
		n.until("the cluster is whole", func() bool {
			info := n.ask("CLUSTER", "INFO").(string)
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	w := newStoreWorld(t, "redis+cluster://"+nodes[0].addr+","+nodes[1].addr+"?timeout=2s")
	w.feed(pick(2000, 400), 60)
	w.awaitAcked(60)
	slot := nodes[0].ask("CLUSTER", "KEYSLOT", "dagger:{"+w.log.App()+":0}:w").(int64)
	from, to := nodes[slot*3/16384], nodes[(slot*3/16384+1)%3]
	moveSlot(slot, from, to)
	if keys := to.ask("CLUSTER", "COUNTKEYSINSLOT", slot).(int64); keys == 0 {
		t.Error("the slot moved without keys")
	}
	for _, n := range nodes {
		w.awaitAcked(40)
		n.kill()
		pause(t.Context(), 3*time.Second) // until the others have noticed
		n.start()
	}
	w.awaitReady()
	w.finish()
}

// moveSlot moves a slot with all its keys while it is in use.
func moveSlot(slot int64, from, to *redisServer) {
	fromID, toID := from.ask("CLUSTER", "MYID"), to.ask("CLUSTER", "MYID")
	to.do("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.do("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	for {
		keys := from.ask("CLUSTER", "GETKEYSINSLOT", slot, 10).([]any)
		if len(keys) == 0 {
			break
		}
		from.do(append([]any{"MIGRATE", "127.0.0.1", to.port(), "", 0, 5000, "KEYS"}, keys...)...)
	}
	for _, n := range []*redisServer{to, from} {
		n.do("CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
}

// ask runs a command behind the stores' backs, and returns its reply.
func (s *redisServer) ask(args ...any) any {
	s.t.Helper()
	c := client.NewClient(&client.Options{Addr: s.addr, DisableIdentity: true, MaxRetries: -1, Protocol: 2})
	defer c.Close()
	v, err := c.Do(context.WithoutCancel(s.t.Context()), args...).Result()
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// until polls for at most 20 s.
func (s *redisServer) until(what string, holds func() bool) {
	s.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !holds(); pause(s.t.Context(), 20*time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited 20 s until %s; the server says:\n%s", what, s.log.String())
		}
	}
}

func (s *redisServer) port() int {
	_, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port)
	return n
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := kafkatest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
