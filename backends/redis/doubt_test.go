package redis

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// proxy stands between a store and its server and loses replies.
type proxy struct {
	listener net.Listener
	server   string
	drop     atomic.Int64 // of 100 replies, how many are dropped and the connection with them
	dropped  atomic.Int64
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func startProxy(t *testing.T, server string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: server}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.conns = append(p.conns, c, s)
	p.mu.Unlock()
	p.wg.Go(func() {
		io.Copy(s, c)
		s.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return
		}
		if rand.Int64N(100) < p.drop.Load() {
			p.dropped.Add(1)
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestLostReplies: a reply is lost every few calls. Apply settles it by itself, and every
// event counts once.
func TestLostReplies(t *testing.T) {
	server := startServer(t)
	p := startProxy(t, server.addr)
	s, err := Open(t.Context(), Options{Addrs: []string{p.listener.Addr().String()}}, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	if err := w.Acquire(); err != nil {
		t.Fatal(err)
	}
	p.drop.Store(20)
	last := uint64(0)
	for last < 100 || p.dropped.Load() < 10 {
		last++
		var err error
		for range 10 {
			if err = w.Part.Apply(t.Context(), batch(last, 1)); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("after %d lost replies: %v", p.dropped.Load(), err)
		}
	}
	p.drop.Store(0)
	if at := w.Check(); at != last {
		t.Errorf("the store stands at event %d after %d lost replies, want %d", at, p.dropped.Load(), last)
	}
}

// TestNoReply: when no reply ever comes, Apply says so, and the next one settles what happened.
func TestNoReply(t *testing.T) {
	server := startServer(t)
	p := startProxy(t, server.addr)
	s, err := Open(t.Context(), Options{Addrs: []string{p.listener.Addr().String()}}, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	part, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	p.drop.Store(100)
	err = part.Apply(t.Context(), batch(1, 1))
	if err == nil || errors.Is(err, projection.ErrStateLost) || errors.Is(err, projection.ErrWatermark) {
		t.Fatalf("without any reply: %v", err)
	}
	p.drop.Store(0)
	for range 2 {
		if err := part.Apply(t.Context(), batch(1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if at := check(t, part); at != 1 {
		t.Errorf("the store stands at event %d, want 1", at)
	}
}

// TestZombie: batches of an owner that was replaced arrive late, in any order, and change
// nothing.
func TestZombie(t *testing.T) {
	server := startServer(t)
	s := server.open(t, identity)
	old := storetest.NewOwner(t, s)
	for range 10 {
		if err := old.Step(); err != nil {
			t.Fatal(err)
		}
	}
	next := storetest.NewOwner(t, s)
	next.Epoch = old.Epoch
	var wg sync.WaitGroup
	for n := range uint64(20) {
		wg.Go(func() { old.Part.Apply(t.Context(), batch(n+5, 1)) })
	}
	for range 30 {
		if err := next.Step(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	next.Check()
	for n := range uint64(45) {
		if err := old.Part.Apply(t.Context(), batch(n+1, 1)); !errors.Is(err, projection.ErrFenced) {
			t.Fatalf("batch %d of the old owner: %v, want ErrFenced", n+1, err)
		}
	}
	next.Check()
}

// TestScriptsForgotten: a server that has forgotten the scripts is given them again.
func TestScriptsForgotten(t *testing.T) {
	server := startServer(t)
	w := storetest.NewOwner(t, server.open(t, identity))
	for range 5 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
		server.do("SCRIPT", "FLUSH")
		w.Check()
		server.do("SCRIPT", "FLUSH")
	}
}

// TestDeadline: a call ends when its context's time is up, whatever the server does. The client's
// own time is far off.
func TestDeadline(t *testing.T) {
	server := startServer(t)
	s, err := Open(t.Context(), Options{Addrs: []string{server.addr}, Timeout: time.Hour}, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	if err := w.Step(); err != nil {
		t.Fatal(err)
	}
	server.freeze()
	ctx, cancel := contextFor(t, 300*time.Millisecond)
	defer cancel()
	if _, _, err := w.Part.Get(ctx, projection.KindInstance, [][]byte{[]byte("001")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen server: %v", err)
	}
}

// TestTimeout: where the caller sets no time, the client's own ends a call of a server that doesn't
// answer, and Open. Each of the tries has that time.
func TestTimeout(t *testing.T) {
	server := startServer(t)
	o := Options{Addrs: []string{server.addr}, Timeout: 200 * time.Millisecond}
	var s *Store
	server.until("the store is opened", func() (opened bool) { // a slow machine may take longer than that
		var err error
		s, err = Open(t.Context(), o, identity)
		return err == nil
	})
	defer s.Close()
	w := storetest.NewOwner(t, s)
	server.until("an event is applied", func() bool { return w.Step() == nil })
	thaw := server.freeze()
	for what, call := range map[string]func() error{
		"apply": func() error { return w.Part.Apply(t.Context(), batch(w.N.Load()+1, w.Epoch)) },
		"get": func() error {
			_, _, err := w.Part.Get(t.Context(), projection.KindInstance, [][]byte{[]byte("001")})
			return err
		},
		"open": func() error {
			s, err := Open(t.Context(), o, identity)
			if err == nil {
				s.Close()
			}
			return err
		},
	} {
		began := time.Now()
		if err := call(); err == nil {
			t.Errorf("%s: a frozen server answered", what)
		}
		if took := time.Since(began); took < o.Timeout {
			t.Errorf("%s took %v, want some %v", what, took, tries*o.Timeout)
		}
	}
	thaw()
	server.until("the next event is applied", func() bool { return w.Step() == nil })
	patient, err := server.open(t, identity).View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	check(t, patient)
}
