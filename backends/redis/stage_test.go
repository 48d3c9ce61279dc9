package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// build applies events behind those that are built already.
func build(t *testing.T, g projection.Staged, upto uint64) {
	t.Helper()
	w, err := g.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := w.N + 1; n <= upto; n++ {
		if err := g.Apply(t.Context(), batch(n, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

func staging(t *testing.T, s *Store) projection.Staged {
	t.Helper()
	g, err := s.Stage(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// rebuild builds the partition anew up to the event that the writer had acknowledged last.
func rebuild(w *storetest.Owner) {
	w.T.Helper()
	g := staging(w.T, w.Store.(*Store))
	build(w.T, g, w.N.Load())
	if err := g.Replace(w.T.Context()); err != nil {
		w.T.Fatal(err)
	}
}

// keys are those of the server, counted by what stands behind the partition's tag.
func (s *server) keys() (first, generations int) {
	s.tb.Helper()
	for _, key := range s.do("KEYS", "*").([]any) {
		_, name, _ := strings.Cut(key.(string), "}:")
		switch {
		case name == "" || name == "w" || name == "s":
		case name[0] == 'g':
			generations++
		default:
			first++
		}
	}
	return first, generations
}

// TestReplacedUnderAWriter replaces the partition again and again under a writer and a reader
// of other processes, as a rebuild does while an engine works: each sees the old one or the new
// one, and of the replaced ones nothing is left. No key is looked for.
func TestReplacedUnderAWriter(t *testing.T) {
	server := startServer(t)
	w := storetest.NewOwner(t, server.open(t, identity))
	w.Run()
	server.until("the writer is on its way", func() bool { return w.N.Load() >= 30 })

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reader := server.open(t, identity)
	var reads sync.WaitGroup
	reads.Go(func() {
		v, err := reader.View(ctx, 0)
		if err != nil {
			t.Error(err)
			return
		}
		for ctx.Err() == nil {
			rows, at, err := v.Scan(ctx, projection.KindDue, nil, nil, 0)
			if err == nil {
				err = dueAt(rows, at)
			}
			if err == nil {
				var values [][]byte
				if values, at, err = v.Get(ctx, projection.KindCount, [][]byte{[]byte("batches")}); err == nil && string(values[0]) != fmt.Sprint(at) {
					err = fmt.Errorf("%s batches at event %d", values[0], at)
				}
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	other := storetest.NewOwner(t, server.open(t, identity))
	for range 6 {
		other.N.Store(max(1, w.N.Load()))
		rebuild(other)
		before := w.N.Load()
		server.until("the writer goes on", func() bool { return w.N.Load() > before+3 })
	}
	w.Halt()
	stop()
	reads.Wait()
	w.Check()
	t.Log(w.Said())
	if w.Lost.Load() > 0 {
		t.Error("a replacement was taken for a loss")
	}
	server.until("what was replaced is removed", func() bool {
		first, _ := server.keys()
		return first == 0 && server.do("HEXISTS", w.Store.(*Store).names.watermark(0), "old") == int64(0)
	})
	if _, generations := server.keys(); generations > 2*len(bucketNames) {
		t.Errorf("%d keys are left", generations)
	}
	stats := server.do("INFO", "commandstats").(string)
	for _, command := range []string{"scan", "hscan", "zscan", "randomkey"} {
		if strings.Contains(stats, "cmdstat_"+command+":") {
			t.Errorf("the store has used %s", command)
		}
	}
}

// dueAt compares the due rows with those of an event.
func dueAt(rows []projection.Row, at uint64) error {
	have := map[string]bool{}
	for n := uint64(1); n <= at; n++ {
		b := batch(n, 0)
		for _, r := range b.Put {
			if r.Kind == projection.KindDue {
				have[string(r.Key)] = true
			}
		}
		for _, r := range b.Del {
			if r.Kind == projection.KindDue {
				delete(have, string(r.Key))
			}
		}
	}
	for _, r := range rows {
		if !have[string(r.Key)] {
			return fmt.Errorf("row %s is there at event %d", r.Key, at)
		}
	}
	if len(rows) != len(have) {
		return fmt.Errorf("%d rows at event %d, want %d", len(rows), at, len(have))
	}
	return nil
}

// TestTwoBuilders: who stages a partition last goes on with what was built, and the earlier
// builder, of another process, is refused.
func TestTwoBuilders(t *testing.T) {
	server := startServer(t)
	a, b := server.open(t, identity), server.open(t, identity)
	first := staging(t, a)
	build(t, first, 20)
	second := staging(t, b)
	if w, err := second.Watermark(t.Context()); err != nil || w.N != 20 {
		t.Fatalf("the second builder begins at %+v, %v", w, err)
	}
	for what, err := range map[string]error{
		"apply":   first.Apply(t.Context(), batch(21, 0)),
		"reset":   first.Reset(t.Context()),
		"replace": first.Replace(t.Context()),
	} {
		if !errors.Is(err, projection.ErrFenced) {
			t.Errorf("%s of the first builder: %v", what, err)
		}
	}
	build(t, second, 40)
	if err := second.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Apply(t.Context(), batch(21, 0)); !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("apply of the first builder to what is in use: %v", err)
	}
	v, err := a.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if at := check(t, v); at != 40 {
		t.Errorf("the partition stands at event %d", at)
	}
}

// TestBuiltRowsVanish: what is built and loses rows is not put in the partition's place, and
// begins anew.
func TestBuiltRowsVanish(t *testing.T) {
	server := startServer(t)
	w := storetest.NewOwner(t, server.open(t, identity))
	for range 5 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	s := w.Store.(*Store)
	g := staging(t, s)
	build(t, g, 10)
	server.do("DEL", s.names.base(0)+"g1:30")
	if err := g.Replace(t.Context()); !errors.Is(err, projection.ErrStateLost) {
		t.Fatalf("replace by what has lost rows: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if at := w.Check(); at != 5 {
		t.Errorf("the partition stands at event %d", at)
	}
	g = staging(t, s)
	if at, err := g.Watermark(t.Context()); err != nil || at.N != 0 {
		t.Errorf("it begins at %+v, %v", at, err)
	}
	build(t, g, 10)
	server.do("FLUSHALL")
	if err := g.Apply(t.Context(), batch(11, 0)); !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("apply after FLUSHALL: %v", err)
	}
	if err := g.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	build(t, g, 12)
	if err := g.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at := w.Check(); at != 12 {
		t.Errorf("the partition stands at event %d", at)
	}
}

// TestReplaceLosesReplies: a lost reply leaves the old partition or the new one, and asking again
// settles it.
func TestReplaceLosesReplies(t *testing.T) {
	server := startServer(t)
	p := startProxy(t, server.addr)
	s, err := Open(t.Context(), Options{Addrs: []string{p.listener.Addr().String()}}, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for round := uint64(0); round < 8 || p.dropped.Load() == 0; round++ {
		g := staging(t, s)
		build(t, g, 10+round)
		p.drop.Store(50)
		for g.Replace(t.Context()) != nil {
			if t.Context().Err() != nil {
				return
			}
		}
		p.drop.Store(0)
		v, err := s.View(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if at := check(t, v); at != 10+round {
			t.Fatalf("round %d: the partition stands at event %d", round, at)
		}
	}
}

// TestSweepGoesOn: what a process that died has not removed, the next one does.
func TestSweepGoesOn(t *testing.T) {
	server := startServer(t)
	w := storetest.NewOwner(t, server.open(t, identity))
	for range 5 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	rebuild(w)
	s := w.Store.(*Store)
	// Not before it is no longer listed either: a sweep that still ran would take it off the list
	// below, without what it has passed already.
	server.until("the first generation is gone", func() bool {
		first, _ := server.keys()
		return first == 0 && server.do("HEXISTS", s.names.watermark(0), "old") == int64(0)
	})
	server.do("HSET", s.names.base(0)+"10:07", "a", "b")
	server.do("HSET", s.names.base(0)+"g9:10:07", "a", "b")
	server.do("HSET", s.names.watermark(0), "old", "- g9:")
	next := storetest.NewOwner(t, server.open(t, identity))
	if err := next.Acquire(); err != nil {
		t.Fatal(err)
	}
	server.until("both are gone", func() bool {
		return server.do("EXISTS", s.names.base(0)+"10:07", s.names.base(0)+"g9:10:07") == int64(0) &&
			server.do("HEXISTS", s.names.watermark(0), "old") == int64(0)
	})
	next.Check()
}
