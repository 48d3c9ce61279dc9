package aerospike

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	as "github.com/aerospike/aerospike-client-go/v7"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// A real server is named by the environment:
//
//	AEROSPIKE_ADDR=host:port   without it these tests are skipped
//	AEROSPIKE_NAMESPACE=test   one that may be written to
//	AEROSPIKE_RESTART=command  run with one more argument, stop or kill: stops the server as an
//	                           operator or a crash does, and starts it again; without it the
//	                           tests of restarts are skipped

// realServer is a server and a set for one test.
type realServer struct {
	addr, namespace, set string
}

func needServer(tb testing.TB) *realServer {
	tb.Helper()
	s := &realServer{addr: os.Getenv("AEROSPIKE_ADDR"), namespace: os.Getenv("AEROSPIKE_NAMESPACE")}
	if s.addr == "" {
		tb.Skip("AEROSPIKE_ADDR names no server")
	}
	if s.namespace == "" {
		s.namespace = "test"
	}
	return s
}

// A server has names for some 4,000 sets until it is started again; so tests use the sets of this
// process again, emptied.
var sets struct {
	sync.Mutex
	free []string
	n    int
}

var process = fmt.Sprintf("dagger-test-%d-%d", os.Getpid(), time.Now().UnixMilli())

// withSet gives a test an empty set.
func (s *realServer) withSet(tb testing.TB) *realServer {
	tb.Helper()
	sets.Lock()
	if n := len(sets.free); n > 0 {
		s.set, sets.free = sets.free[n-1], sets.free[:n-1]
	} else {
		sets.n++
		s.set = fmt.Sprintf("%s-%d", process, sets.n)
	}
	sets.Unlock()
	tb.Cleanup(func() {
		if s.empty() != nil {
			return // nobody uses it again
		}
		sets.Lock()
		sets.free = append(sets.free, s.set)
		sets.Unlock()
	})
	return s
}

// empty truncates the set.
func (s *realServer) empty() error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Truncate(nil, s.namespace, s.set, nil); err != nil {
		return err
	}
	return nil
}

// dial makes a client of its own, for what a test does behind the store's back.
func (s *realServer) dial() (*as.Client, error) {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	policy := as.NewClientPolicy()
	policy.SeedOnlyCluster = true
	policy.Timeout = 5 * time.Second
	c, dialErr := as.NewClientWithPolicyAndHost(policy, as.NewHost(host, n))
	if dialErr != nil {
		if c != nil {
			c.Close()
		}
		return nil, dialErr
	}
	return c, nil
}

// client is a client that ends with the test.
func (s *realServer) client(tb testing.TB) *as.Client {
	tb.Helper()
	c, err := s.dial()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// options are those of a store on the server, or on a proxy before it.
func (s *realServer) options(addr string) Options {
	return Options{Addrs: []string{addr}, Namespace: s.namespace, Set: s.set, seedOnly: true}
}

func (s *realServer) open(tb testing.TB, o Options) *Store {
	tb.Helper()
	st, err := Open(tb.Context(), o, identity)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	return st
}

// cluster is the store's own connection to it, without a store.
func (s *realServer) cluster(tb testing.TB, addr string) *cluster {
	tb.Helper()
	o := s.options(addr)
	if err := o.complete(); err != nil {
		tb.Fatal(err)
	}
	c, err := connect(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.close() })
	return c
}

// onServer is the suite over the server. Each store has a connection that can be cut.
var onServer = storetest.Harness{New: func(tb testing.TB) *storetest.Place {
	server := needServer(tb).withSet(tb)
	var mu sync.Mutex
	proxies := map[projection.Store]*proxy{}
	return &storetest.Place{
		Open: func(id projection.Identity) (projection.Store, error) {
			p := startProxy(tb, server.addr)
			s, err := Open(tb.Context(), server.options(p.addr()), id)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			proxies[s] = p
			return s, nil
		},
		Crash: func(s projection.Store) {
			mu.Lock()
			p := proxies[s]
			mu.Unlock()
			p.close()
			s.Close()
		},
		Damage:   func(partition int32) { server.damage(tb, partition) },
		MaxValue: maxValue,
	}
}}

// damage removes every second page of a partition, and the redo, which could mend them.
func (s *realServer) damage(tb testing.TB, partition int32) {
	tb.Helper()
	st, err := Open(context.Background(), s.options(s.addr), identity)
	if err != nil {
		tb.Fatal(err)
	}
	defer st.Close()
	p := st.part(partition, liveKey(partition))
	now, err := p.load(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	at := p.space(now)
	changes := st.dropBlob(at, now.mark.redo)
	for _, pages := range now.directory.kinds {
		for i := 0; i < len(pages); i += 2 {
			changes = append(changes, change{key: at.page(pages[i].id), mode: remove})
		}
	}
	if _, err := st.changeAll(context.Background(), changes); err != nil {
		tb.Fatal(err)
	}
}

// TestRealServerSuite is the whole suite on the server of AEROSPIKE_ADDR.
func TestRealServerSuite(t *testing.T) {
	needServer(t)
	storetest.Run(t, onServer)
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		server := needServer(tb).withSet(tb)
		return &storetest.Place{
			Open: func(id projection.Identity) (projection.Store, error) {
				return Open(tb.Context(), server.options(server.addr), id)
			},
			MaxValue: maxValue,
		}
	}})
}
