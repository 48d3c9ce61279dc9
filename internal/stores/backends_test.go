package stores

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/godagger/dagger/backends/aerospike"
	"github.com/godagger/dagger/backends/pebble"
	"github.com/godagger/dagger/backends/redis"
	"github.com/godagger/dagger/internal/kafkatest"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/storetest"
)

// backend is one of those that are compared.
type backend struct {
	name string
	on   string // what it ran on
	// place makes a new and empty place for a store; it skips where there is no server.
	place func(tb testing.TB) *storetest.Place
}

// backends are all of them, the reference first.
var backends = []backend{
	{"mem", "memory", memPlace},
	{"pebble", "a directory", pebblePlace(pebble.Options{})},
	{"pebble wal=off", "a directory", pebblePlace(pebble.Options{NoWAL: true})},
	{"redis fake", "miniredis", fakeRedisPlace},
	{"redis", "redis-server, killed and started again", redisPlace},
	{"aerospike", "the server of AEROSPIKE_ADDR", aerospikePlace},
}

func memPlace(testing.TB) *storetest.Place {
	return &storetest.Place{Volatile: true, Open: func(id projection.Identity) (projection.Store, error) { return memstore.New(id), nil }}
}

func pebblePlace(options pebble.Options) func(testing.TB) *storetest.Place {
	return func(tb testing.TB) *storetest.Place {
		dir := filepath.Join(tb.TempDir(), "store")
		return &storetest.Place{Open: func(id projection.Identity) (projection.Store, error) {
			return pebble.Open(tb.Context(), dir, id, options)
		}}
	}
}

func fakeRedisPlace(tb testing.TB) *storetest.Place {
	return redisAt(tb, miniredis.RunT(tb).Addr(), true)
}

func redisAt(tb testing.TB, addr string, noCheck bool) *storetest.Place {
	return &storetest.Place{Open: func(id projection.Identity) (projection.Store, error) {
		return redis.Open(tb.Context(), redis.Options{Addrs: []string{addr}, NoCheck: noCheck}, id)
	}}
}

// aerospikePlace is a set of its own on a running server.
func aerospikePlace(tb testing.TB) *storetest.Place {
	addr := os.Getenv("AEROSPIKE_ADDR")
	if addr == "" {
		tb.Skip("AEROSPIKE_ADDR names no server")
	}
	options := aerospike.Options{Addrs: []string{addr}, Namespace: cmp.Or(os.Getenv("AEROSPIKE_NAMESPACE"), "test"), Set: fmt.Sprintf("stores-%d", time.Now().UnixNano())}
	return &storetest.Place{Open: func(id projection.Identity) (projection.Store, error) {
		return aerospike.Open(tb.Context(), options, id)
	}}
}

// redisPlace starts a redis-server with an append-only file, which a crash kills and starts again.
func redisPlace(tb testing.TB) *storetest.Place {
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Skip("no redis-server on this machine")
	}
	free, err := kafkatest.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	port := strconv.Itoa(free)
	addr := net.JoinHostPort("127.0.0.1", port)
	dir := tb.TempDir()
	var server *exec.Cmd
	kill := func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	start := func() {
		server = exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes")
		if err := server.Start(); err != nil {
			tb.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Minute); ; <-time.After(20 * time.Millisecond) {
			if answers(addr) {
				return
			}
			if time.Now().After(deadline) {
				kill()
				tb.Fatal("redis-server does not answer")
			}
		}
	}
	start()
	tb.Cleanup(func() { kill() })
	place := redisAt(tb, addr, false)
	place.Crash = func(s projection.Store) {
		kill()
		if err := s.Close(); err != nil {
			tb.Fatal(err)
		}
		start()
	}
	return place
}

// answers says whether a redis-server has loaded what it has.
func answers(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	reply := make([]byte, 5)
	_, err = io.ReadFull(c, reply)
	return err == nil && string(reply) == "+PONG"
}
