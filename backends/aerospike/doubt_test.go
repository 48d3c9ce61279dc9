package aerospike

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// shortTimeout is that of calls whose command is held.
const shortTimeout = 400 * time.Millisecond

// remote is a worker behind a proxy.
type remote struct {
	*storetest.Owner
	proxy  *proxy
	server *realServer
}

// newRemote makes one, on a set of its own, that has taken the partition at event 20 from
// another one: so it reads what it needs to apply the next event.
func newRemote(t *testing.T, timeout time.Duration) *remote {
	t.Helper()
	server := needServer(t).withSet(t)
	first := storetest.NewOwner(t, server.open(t, server.options(server.addr)))
	first.Steps(20)
	r := &remote{proxy: startProxy(t, server.addr), server: server}
	s := server.open(t, server.options(r.proxy.addr()))
	r.Owner = storetest.NewOwner(t, s)
	r.Epoch = first.Epoch
	if err := r.Acquire(); err != nil {
		t.Fatal(err)
	}
	s.server.(*cluster).timeout = timeout
	s.firstWait = time.Millisecond
	return r
}

// successor is a worker without a proxy that has taken the partition.
func (r *remote) successor() *storetest.Owner {
	r.T.Helper()
	next := storetest.NewOwner(r.T, r.server.open(r.T, r.server.options(r.server.addr)))
	next.Epoch = r.Epoch
	if err := next.Acquire(); err != nil {
		r.T.Fatal(err)
	}
	return next
}

// eachCommand runs f for every command that an apply makes, with the number of the command.
func eachCommand(t *testing.T, timeout time.Duration, f func(r *remote, k int)) {
	needServer(t)
	commands := 0
	t.Run("none", func(t *testing.T) {
		r := newRemote(t, defaultTimeout)
		r.proxy.decide(nil)
		r.Steps(1)
		commands = r.proxy.decide(nil)
	})
	if commands < 5 { // to read, to write, the mark, to change
		t.Errorf("an apply makes only %d commands", commands)
	}
	for k := range commands {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			f(newRemote(t, timeout), k)
		})
	}
}

// repeat applies the event once more, which must change nothing, and a few more.
func repeat(w *storetest.Owner) {
	w.T.Helper()
	n := w.N.Load()
	if err := w.Part.Apply(w.T.Context(), batch(n, w.Epoch)); err != nil {
		w.T.Fatalf("event %d once more: %v", n, err)
	}
	if at := w.Check(); at != n {
		w.T.Fatalf("the store stands at event %d, want %d", at, n)
	}
	w.Steps(3)
	if at := w.Check(); at != n+3 {
		w.T.Fatalf("the store stands at event %d, want %d", at, n+3)
	}
}

// TestRealServerLostCommand loses each command of an apply on its way, or its reply: Apply repeats it, and
// everything is applied once.
func TestRealServerLostCommand(t *testing.T) {
	for _, what := range []fate{loseRequest, cutRequest, loseReply, cutReply} {
		t.Run(what.String(), func(t *testing.T) {
			eachCommand(t, defaultTimeout, func(r *remote, k int) {
				r.proxy.decide(only(k, what))
				r.Steps(1)
				if n := r.proxy.decide(nil); n <= k {
					r.T.Fatalf("the apply made %d commands", n)
				}
				repeat(r.Owner)
			})
		})
	}
}

// TestRealServerNoReply loses all replies from one command of an apply on: Apply says so, and the same apply
// settles it when replies come again.
func TestRealServerNoReply(t *testing.T) {
	for _, what := range []fate{loseRequest, loseReply} {
		t.Run(what.String(), func(t *testing.T) {
			eachCommand(t, defaultTimeout, func(r *remote, k int) {
				r.proxy.decide(from(k, what))
				err := r.Part.Apply(r.T.Context(), batch(21, r.Epoch))
				if err == nil || errors.Is(err, projection.ErrStateLost) || errors.Is(err, projection.ErrWatermark) {
					r.T.Fatalf("without any reply: %v", err)
				}
				r.proxy.decide(nil)
				r.Steps(1)
				repeat(r.Owner)
			})
		})
	}
}

// TestRealServerNoReplyThenAnother is the same, but another worker takes the partition: it finds the event
// applied, or not.
func TestRealServerNoReplyThenAnother(t *testing.T) {
	eachCommand(t, defaultTimeout, func(r *remote, k int) {
		r.proxy.decide(from(k, loseReply))
		if err := r.Part.Apply(r.T.Context(), batch(21, r.Epoch)); err == nil {
			r.T.Fatal("an apply succeeded without any reply")
		}
		next := r.successor()
		if at := next.Check(); at != 20 && at != 21 {
			r.T.Fatalf("the store stands at event %d", at)
		}
		next.Steps(5)
		r.proxy.decide(nil)
		if err := r.Part.Apply(r.T.Context(), batch(21, r.Epoch)); !errors.Is(err, projection.ErrFenced) {
			r.T.Errorf("the apply of the worker before: %v, want ErrFenced", err)
		}
		repeat(next)
	})
}

// TestRealServerHeldCommand holds each command of an apply past the time-out, and releases it when the worker
// has gone on: it changes nothing.
func TestRealServerHeldCommand(t *testing.T) {
	eachCommand(t, shortTimeout, func(r *remote, k int) {
		r.proxy.decide(only(k, hold))
		r.Step()
		for r.N.Load() < 25 { // another time-out on a slow machine is no harm
			r.Step()
		}
		if r.proxy.release(nil) != 1 {
			r.T.Fatal("no command was held")
		}
		if at := r.Check(); at != 25 {
			r.T.Fatalf("the store stands at event %d, want 25", at)
		}
		repeat(r.Owner)
	})
}

// TestRealServerHeldWorker holds all commands of an apply from one on. Another worker takes the partition,
// and then the commands arrive, in any order.
func TestRealServerHeldWorker(t *testing.T) {
	seed := seeded(t).Uint64()
	eachCommand(t, shortTimeout, func(r *remote, k int) {
		r.proxy.decide(from(k, hold))
		if err := r.Part.Apply(r.T.Context(), batch(21, r.Epoch)); err == nil {
			r.T.Fatal("an apply succeeded although nothing arrived")
		}
		next := r.successor()
		if at := next.Check(); at != 20 && at != 21 { // 21 when the mark was not held
			r.T.Fatalf("the store stands at event %d, want 20 or 21", at)
		}
		if k%2 == 0 { // else they arrive while it stands where they left it
			next.Steps(5)
		}
		r.proxy.decide(nil)
		order := rand.New(rand.NewPCG(seed, uint64(k)))
		if r.proxy.release(order.Shuffle) == 0 {
			r.T.Fatal("no command was held")
		}
		n := next.N.Load()
		if at := next.Check(); at != n {
			r.T.Fatalf("the store stands at event %d, want %d", at, n)
		}
		next.Steps(1)
		repeat(next)
	})
}

// TestRealServerTwoRemotes has two workers take the partition from each other, through proxies that do to
// commands all that a network does.
func TestRealServerTwoRemotes(t *testing.T) {
	rnd := seeded(t)
	server := needServer(t).withSet(t)
	var all []*remote
	for range 2 {
		r := &remote{proxy: startProxy(t, server.addr), server: server}
		s := server.open(t, server.options(r.proxy.addr()))
		s.server.(*cluster).timeout = shortTimeout
		s.firstWait = time.Millisecond
		r.Owner = storetest.NewOwner(t, s)
		seed := rnd.Uint64()
		r.proxy.decide(func(n int) fate {
			if x := rand.New(rand.NewPCG(seed, uint64(n))); x.IntN(10) == 0 {
				return fate(x.IntN(int(hold) + 1))
			}
			return passes
		})
		all = append(all, r)
	}
	v, err := server.open(t, server.options(server.addr)).View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	late, epoch := 0, uint64(0)
	for range 250 {
		r := all[rnd.IntN(len(all))]
		if r.Part == nil {
			r.Epoch = epoch
			epoch++
		}
		if err := r.Step(); errors.Is(err, projection.ErrStateLost) {
			t.Fatal(err)
		}
		switch rnd.IntN(20) {
		case 0:
			late += all[rnd.IntN(len(all))].proxy.release(rnd.Shuffle)
		case 1:
			check(t, v)
		}
	}
	for _, r := range all {
		r.proxy.decide(nil)
		late += r.proxy.release(rnd.Shuffle)
	}
	last := all[0]
	last.Part, last.Epoch = nil, epoch
	last.Steps(1)
	repeat(last.Owner)
	t.Logf("%s and %s; %d commands arrived late", all[0].Said(), all[1].Said(), late)
	if lost := all[0].Lost.Load() + all[1].Lost.Load(); lost > 0 {
		t.Errorf("the partition was lost %d times", lost)
	}
}
