package redis

import (
	"errors"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// TestFlushAll: a server that loses everything in the middle of work is noticed by the next
// call of whoever knew the partition, and the partition is rebuilt.
func TestFlushAll(t *testing.T) {
	server := startServer(t)
	s := server.open(t, identity)
	w := storetest.NewOwner(t, s)
	reader, err := s.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	check(t, reader)
	server.do("FLUSHALL")
	lost := map[string]error{}
	for who, v := range map[string]projection.View{"the owner's ": w.Part, "a reader's ": reader} {
		_, _, lost[who+"Get"] = v.Get(t.Context(), projection.KindInstance, [][]byte{[]byte("001")})
		_, _, lost[who+"Scan"] = v.Scan(t.Context(), projection.KindDue, nil, nil, 0)
		_, _, lost[who+"Scan of counters"] = v.Scan(t.Context(), projection.KindCount, nil, nil, 0)
		_, lost[who+"Watermark"] = v.Watermark(t.Context())
		lost[who+"Dump"] = v.Dump(t.Context(), func(projection.Row) error { return nil })
	}
	lost["Apply"] = w.Part.Apply(t.Context(), batch(21, w.Epoch))
	for call, err := range lost {
		if !errors.Is(err, projection.ErrStateLost) {
			t.Errorf("%s after FLUSHALL: %v, want ErrStateLost", call, err)
		}
	}
	w.Part = nil
	for range 30 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	if at := check(t, reader); at != 30 {
		t.Errorf("rebuilt up to event %d, want 30", at)
	}
	again, err := Open(t.Context(), Options{Addrs: []string{server.addr}}, projection.Identity{App: "other", Partitions: 1})
	if !errors.Is(err, projection.ErrForeign) {
		t.Errorf("after FLUSHALL another application: %v, %v, want ErrForeign", again, err)
	}
}

// TestFlushAllUnderLoad flushes while the writer writes.
func TestFlushAllUnderLoad(t *testing.T) {
	server := startServer(t)
	w := storetest.NewOwner(t, server.open(t, identity))
	for round := range int64(4) {
		w.Run()
		server.until("the writer is on its way", func() bool { return w.N.Load() > 40 })
		server.do("FLUSHALL")
		server.until("the loss is noticed", func() bool { return w.Rewound.Load()+w.Lost.Load() > round })
		w.Halt()
		w.Check()
	}
	t.Log(w.Said())
}

// TestKeyVanishes removes one key behind the store's back, or all but one, or puts something
// else in its place: the next call that needs it says so, and so does every later one.
func TestKeyVanishes(t *testing.T) {
	base := newNames(defaultPrefix, identity.App).base(0)
	instances := base + bucketNames[bucketOf([]byte("001"), defaultBuckets)]
	get := func(kind projection.Kind) func(*testing.T, projection.Partition) error {
		return func(t *testing.T, p projection.Partition) error {
			// Some of these are in the store and some never were.
			_, _, err := p.Get(t.Context(), kind, [][]byte{[]byte("001"), []byte("002"), []byte("003"), []byte("004"), []byte("none")})
			return err
		}
	}
	scan := func(kind projection.Kind) func(*testing.T, projection.Partition) error {
		return func(t *testing.T, p projection.Partition) error {
			_, _, err := p.Scan(t.Context(), kind, nil, nil, 0)
			return err
		}
	}
	apply := func(t *testing.T, p projection.Partition) error { return p.Apply(t.Context(), batch(101, 1)) }
	dump := func(t *testing.T, p projection.Partition) error {
		return p.Dump(t.Context(), func(projection.Row) error { return nil })
	}
	for _, c := range []struct {
		name string
		do   []any
		call func(*testing.T, projection.Partition) error
	}{
		{"get an instance", []any{"DEL", instances}, get(projection.KindInstance)},
		{"get of another type", []any{"SET", instances, "x"}, get(projection.KindInstance)},
		{"get an entry", []any{"DEL", base + "21"}, get(projection.KindKept)},
		{"get an entry's value", []any{"DEL", base + "21v"}, get(projection.KindKept)},
		{"get a counter", []any{"DEL", base + "50"}, get(projection.KindCount)},
		{"scan", []any{"DEL", base + "30"}, scan(projection.KindDue)},
		{"scan without values", []any{"DEL", base + "21v"}, scan(projection.KindKept)},
		{"scan of another type", []any{"SET", base + "30", "x"}, scan(projection.KindDue)},
		{"scan counters", []any{"DEL", base + "50"}, scan(projection.KindCount)},
		{"scan counters of another type", []any{"SET", base + "50", "x"}, scan(projection.KindCount)},
		{"apply", []any{"DEL", base + "30"}, apply},
		{"apply to values", []any{"DEL", base + "21v"}, apply},
		{"apply to counters", []any{"DEL", base + "50"}, apply},
		{"apply to another type", []any{"SET", base + "50", "x"}, apply},
		{"apply to a damaged counter", []any{"HSET", base + "50", "batches", "x"}, apply},
		{"one row too many", []any{"HSET", instances, "stranger", "x"}, dump},
		{"dump", []any{"DEL", base + "21v"}, dump},
		{"a value of another kind", []any{"HSET", instances, "001", "\x07"}, get(projection.KindInstance)},
		{"watermark", []any{"DEL", base + "w"}, get(projection.KindDue)},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := startServer(t)
			w := storetest.NewOwner(t, server.open(t, identity))
			for range 100 {
				if err := w.Step(); err != nil {
					t.Fatal(err)
				}
			}
			server.do(c.do...)
			if err := c.call(t, w.Part); !errors.Is(err, projection.ErrStateLost) {
				t.Fatalf("got %v, want ErrStateLost", err)
			}
			for range 2 {
				if err := apply(t, w.Part); !errors.Is(err, projection.ErrStateLost) {
					t.Errorf("later Apply: %v, want ErrStateLost", err)
				}
			}
			if _, err := w.Store.Acquire(t.Context(), 0, 2); !errors.Is(err, projection.ErrStateLost) {
				t.Errorf("Acquire: %v, want ErrStateLost", err)
			}
			w.Part, w.Epoch = nil, 2
			for range 110 {
				if err := w.Step(); err != nil {
					t.Fatal(err)
				}
			}
			if at := w.Check(); at != 110 || w.Lost.Load() != 1 {
				t.Errorf("rebuilt up to event %d after %d losses", at, w.Lost.Load())
			}
			for _, key := range server.do("KEYS", "*").([]any) {
				if k := key.(string); !strings.HasPrefix(k, base) && k != defaultPrefix+":store" {
					t.Errorf("there is a key %s", k)
				}
			}
		})
	}
}
