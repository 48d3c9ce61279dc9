package redis

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/internal/kafkatest"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// server is a real redis-server of a test.
type server struct {
	tb    testing.TB
	dir   string
	addr  string
	first string // a configuration file
	args  []string
	cmd   *exec.Cmd
	log   bytes.Buffer
}

// startServer starts redis-server on a free port in a directory of its own, without
// persistence unless args ask for it. The test is skipped where there is no redis-server.
func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Skip("no redis-server on this machine")
	}
	s := &server{tb: tb, dir: tb.TempDir(), addr: freeAddr(tb), args: args}
	s.start()
	tb.Cleanup(s.kill)
	return s
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	port, err := kafkatest.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// start starts it, again after kill, and waits until it has loaded its data.
func (s *server) start() {
	s.tb.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	args := []string{}
	if s.first != "" {
		args = append(args, s.first)
	}
	args = append(args, "--port", port, "--bind", "127.0.0.1", "--dir", s.dir)
	if s.first == "" {
		args = append(args, "--save", "")
	}
	args = append(args, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	c := s.client()
	defer c.Close()
	s.until("the server answers", func() bool {
		err := c.Ping(context.Background()).Err()
		return err == nil || client.HasErrorPrefix(err, "NOAUTH")
	})
}

// kill kills it as a crash does.
func (s *server) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) restart() {
	s.tb.Helper()
	s.kill()
	s.start()
}

// client is for what a test does behind the store's back. The caller closes it.
func (s *server) client() *client.Client {
	return client.NewClient(&client.Options{Addr: s.addr, DisableIdentity: true, MaxRetries: -1, Protocol: 2})
}

// do runs a command behind the store's back.
func (s *server) do(args ...any) any {
	s.tb.Helper()
	c := s.client()
	defer c.Close()
	v, err := c.Do(s.tb.Context(), args...).Result()
	if err != nil {
		s.tb.Fatalf("%v: %v", args, err)
	}
	return v
}

// until polls for at most five minutes.
func (s *server) until(what string, f func() bool) {
	s.tb.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			s.tb.Fatalf("waited five minutes until %s; the server says:\n%s", what, s.log.String())
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (s *server) open(tb testing.TB, id projection.Identity) *Store {
	tb.Helper()
	st, err := Open(tb.Context(), Options{Addrs: []string{s.addr}}, id)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	return st
}

// onServer is the suite over a server that persists as args say.
func onServer(args ...string) storetest.Harness {
	return storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		s := startServer(tb, args...)
		return &storetest.Place{
			Open: func(id projection.Identity) (projection.Store, error) {
				return Open(tb.Context(), Options{Addrs: []string{s.addr}}, id)
			},
			Crash: func(st projection.Store) {
				s.restart()
				st.Close()
			},
			Damage: func(partition int32) {
				base := newNames(defaultPrefix, storetest.Identity.App).base(partition)
				s.do("DEL", base+"30v")
			},
		}
	}}
}

// onAddr is the suite over a running server, under prefixes of its own.
func onAddr(addr string) storetest.Harness {
	return storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		prefix := fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())
		open := func(ctx context.Context, id projection.Identity) (*Store, error) {
			return Open(ctx, Options{Addrs: []string{addr}, Prefix: prefix}, id)
		}
		tb.Cleanup(func() {
			s, err := open(context.Background(), storetest.Identity)
			if err != nil {
				return // benchmarks have another identity
			}
			defer s.Close()
			for n := range s.id.Partitions {
				keys := []string{s.names.watermark(n), s.names.staged(n)}
				for _, record := range keys {
					gen := s.client.HGet(context.Background(), record, "gen").Val()
					keys = containersOf(s.names.base(n)+gen, keys...)
				}
				s.client.Unlink(context.Background(), keys...)
			}
			s.client.Unlink(context.Background(), s.names.identity)
		})
		return &storetest.Place{
			Open: func(id projection.Identity) (projection.Store, error) { return open(tb.Context(), id) },
		}
	}}
}

// TestContractOnServer is the whole suite on a real server: that of REDIS_ADDR, else one with
// an append-only file, which is killed where the suite wants a crash.
func TestContractOnServer(t *testing.T) {
	if addr := os.Getenv("REDIS_ADDR"); addr != "" {
		storetest.Run(t, onAddr(addr))
		return
	}
	storetest.Run(t, onServer("--appendonly", "yes", "--appendfsync", "everysec"))
}

func BenchmarkStore(b *testing.B) {
	if addr := os.Getenv("REDIS_ADDR"); addr != "" {
		storetest.Benchmark(b, onAddr(addr))
		return
	}
	storetest.Benchmark(b, onServer())
}

func BenchmarkStoreAppendOnly(b *testing.B) {
	storetest.Benchmark(b, onServer("--appendonly", "yes"))
}

// aof is the append-only file that is being written.
func (s *server) aof() string {
	list, err := filepath.Glob(filepath.Join(s.dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(list) == 0 {
		s.tb.Fatalf("no append-only file: %v", err)
	}
	return list[len(list)-1]
}

func (s *server) port() int {
	_, port, _ := strings.Cut(s.addr, ":")
	n, _ := strconv.Atoi(port)
	return n
}

// freeze stops the server's process; the returned function, which may be called more than
// once, lets it go on.
func (s *server) freeze() (thaw func()) {
	s.tb.Helper()
	process := s.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		s.tb.Fatal(err)
	}
	thaw = func() { process.Signal(syscall.SIGCONT) }
	s.tb.Cleanup(thaw)
	return thaw
}
