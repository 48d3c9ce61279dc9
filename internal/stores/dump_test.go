package stores

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/storetest"
	"github.com/godagger/dagger/workflow"
)

// order is what the instances of the log know.
type order struct {
	ID    string `json:"id"`
	Price int    `json:"price,omitempty"`
	Note  string `json:"note,omitempty"`
	Tries int    `json:"tries,omitempty"`
}

type answer struct {
	ID   string `json:"id"`
	Note string `json:"note"`
}

// random is a seeded source whose seed is printed; DUMP_SEED repeats one.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("DUMP_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("repeat the folds with DUMP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

const partitions = 5

// busyLog runs orders in all states on a log in memory: done, failed, retried, stopped,
// waiting for messages and for times, some of them with several listeners, and messages that
// nobody waits for; with several owners one after the other.
func busyLog(t *testing.T, rnd *rand.Rand) eventlog.Log {
	t.Helper()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "shop", Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	by := workflow.By("id", func(o *order) string { return o.ID }, func(m *answer) string { return m.ID })
	def := workflow.New("Order",
		workflow.Process("Pay",
			workflow.Execute("price", func(_ context.Context, o *order) error {
				o.Price = len(o.ID)
				if o.Tries++; o.ID[len(o.ID)-1] == '3' {
					return errors.New("no price")
				}
				return nil
			}).With(workflow.Retry(2, time.Millisecond)),
			workflow.Command("send", "orders", func(_ context.Context, o *order) (answer, error) { return answer{ID: o.ID}, nil })),
		workflow.Parallel("both", workflow.All,
			workflow.Listen("ready", "answers", by, func(_ context.Context, o *order, m answer) (bool, error) {
				o.Note = m.Note
				return m.Note == "ready", nil
			}),
			workflow.At("later", func(o *order) time.Time {
				if o.ID[len(o.ID)-1]%2 == 0 {
					return time.Now().Add(time.Hour)
				}
				return time.Now()
			}, func(context.Context, *order) error { return nil })))
	store := memstore.New(projection.Identity{App: "shop", Partitions: partitions})
	if err := log.EnsureTopic(t.Context(), "answers", 3); err != nil {
		t.Fatal(err)
	}
	for life := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		eng, err := workflow.Open(ctx, workflow.Config{OpenedLog: log, OpenedStore: store, Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Millisecond})
		if err == nil {
			err = eng.Register(def)
		}
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() {
			if err := eng.Run(run); err != nil {
				t.Error(err)
			}
		})
		for k := range 40 {
			id := fmt.Sprintf("o-%d-%d", life, k)
			h, err := def.Start(ctx, eng, id, order{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			say := func(id, note string) {
				err := log.Publish(ctx, eventlog.Record{Topic: "answers", Partition: -1, Value: fmt.Appendf(nil, `{"id":%q,"note":%q}`, id, note)})
				if err != nil {
					t.Fatal(err)
				}
			}
			switch rnd.IntN(6) {
			case 0:
				say(id, "soon")
				say(id, "ready")
			case 1:
				say(id, "ready")
			case 2:
				say("nobody-"+id, "ready")
			case 3:
				// Not found: the engine did not run yet, and the start is still on its way.
				if err := h.Stop(ctx, "enough"); err != nil && !errors.Is(err, workflow.ErrEnded) && !errors.Is(err, workflow.ErrNotFound) {
					t.Fatal(err)
				}
			}
			if k == 39 { // a life ends in the middle of the work, and something was done in it
				done, err := def.Start(ctx, eng, id+"-last1", order{ID: id + "-last1"})
				if err != nil {
					t.Fatal(err)
				}
				say(id+"-last1", "ready")
				if _, err := done.Wait(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		stop()
		running.Wait()
		if err := eng.Close(); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	return log
}

// TestDumpIsTheSameOnEveryBackend folds one log into every backend, in batches of random
// sizes, with the partitions in a random order, cut off at random places where the store is
// closed and opened again. All dumps are equal byte for byte.
func TestDumpIsTheSameOnEveryBackend(t *testing.T) {
	rnd := random(t)
	log := busyLog(t, rnd)
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	reference := memstore.New(id)
	done, err := engine.Rebuild(t.Context(), log, reference, engine.RebuildOptions{Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	events := int64(0)
	for _, r := range done {
		events += r.Events
	}
	want := storetest.Sum(t, reference, partitions)
	t.Logf("%d events, one fold: dump sha256=%s", events, want)
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			place := b.place(t)
			for round := range 2 {
				cuts := foldCut(t, rnd, log, place, id)
				store, err := place.Open(id)
				if err != nil {
					t.Fatal(err)
				}
				if place.Volatile { // what is not closed is there
					store = cuts.store
				}
				got := storetest.Sum(t, store, partitions)
				v, err := engine.Verify(t.Context(), log, store, nil)
				if err != nil || v.Differences != 0 {
					t.Errorf("verify: %+v, %v", v, err)
				}
				for p := range id.Partitions { // for the next round
					if err := store.Drop(t.Context(), p, 1<<60); err != nil {
						t.Fatal(err)
					}
				}
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("round %d (%s): dump sha256=%s, want %s", round, cuts, got, want)
				}
				if round == 0 {
					t.Logf("%s, on %s: dump sha256=%s (%s)", b.name, b.on, got, cuts)
				}
			}
		})
	}
}

// cutFold says how a fold went.
type cutFold struct {
	store projection.Store // of a volatile place, still open
	rows  int
	cuts  int
	// crashes are those of the cuts at which the server was killed.
	crashes int
	aside   int
}

func (c cutFold) String() string {
	return fmt.Sprintf("batches of %d changed rows and more, cut off %d times, %d of them by a crash of the store, %d partitions built aside", c.rows, c.cuts, c.crashes, c.aside)
}

// foldCut folds the whole log with cuts.
func foldCut(t *testing.T, rnd *rand.Rand, log eventlog.Log, place *storetest.Place, id projection.Identity) cutFold {
	t.Helper()
	c := cutFold{rows: 1 + rnd.IntN(400)}
	if rnd.IntN(3) == 0 {
		c.rows = 1
	}
	left := rnd.Perm(int(id.Partitions))
	store, err := place.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	cut := errors.New("cut off")
	for len(left) > 0 {
		some := left[:1+rnd.IntN(len(left))]
		o := engine.RebuildOptions{Parallel: 1 + rnd.IntN(3), BatchRows: c.rows, Resume: true}
		for _, p := range some {
			o.Partitions = append(o.Partitions, int32(p))
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		target := store
		if rnd.IntN(2) == 0 {
			target = plain{store}
		} else if _, is := store.(projection.Stager); is {
			c.aside += len(some)
		}
		if c.cuts < 12 {
			n := rnd.IntN(8)
			var mu sync.Mutex
			o.Progress = func(int32, int64, int64) {
				mu.Lock()
				defer mu.Unlock()
				if n--; n < 0 {
					cancel(cut)
				}
			}
		}
		_, err := engine.Rebuild(ctx, pieces{log, 1 + rnd.IntN(60)}, target, o)
		cancel(nil)
		switch {
		case err == nil:
			left = left[len(some):]
		case errors.Is(err, cut):
			c.cuts++
		default:
			t.Fatal(err)
		}
		if err != nil && !place.Volatile {
			if place.Crash != nil && rnd.IntN(2) == 0 {
				c.crashes++
				place.Crash(store)
			} else if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			if store, err = place.Open(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if place.Volatile {
		c.store = store
	} else if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// plain hides what a store can do beside the contract.
type plain struct{ projection.Store }

// pieces is a log whose readers give few records at a time.
type pieces struct {
	eventlog.Log
	n int
}

func (l pieces) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	r, err := l.Log.Read(ctx, topic, partition, from, topicID, isolation)
	if err != nil {
		return nil, err
	}
	return &pieceReader{Reader: r, n: l.n}, nil
}

type pieceReader struct {
	eventlog.Reader
	n    int
	have []eventlog.Record
	next int64
}

func (r *pieceReader) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if len(r.have) == 0 {
		var err error
		if r.have, r.next, err = r.Reader.Next(ctx); err != nil {
			return nil, 0, err
		}
	}
	k := min(r.n, len(r.have))
	out := r.have[:k]
	if r.have = r.have[k:]; len(r.have) > 0 {
		return out, r.have[0].Offset, nil
	}
	return out, r.next, nil
}
