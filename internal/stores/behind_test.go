package stores

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/snapshot"
	"github.com/godagger/dagger/workflow"
)

// behind is an application whose log drops events while a store of it is away.
type behind struct {
	t      *testing.T
	log    eventlog.Log
	bucket snapshot.Bucket
	def    *workflow.Definition[order]
	starts int
}

func newBehind(t *testing.T) *behind {
	t.Helper()
	log, err := embedlog.OpenMemory(embedlog.Options{App: "shop", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	if err := log.EnsureTopic(t.Context(), "answers", 1); err != nil {
		t.Fatal(err)
	}
	bucket, err := snapshot.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	by := workflow.By("id", func(o *order) string { return o.ID }, func(m *answer) string { return m.ID })
	def := workflow.New("Wait", workflow.Listen("answer", "answers", by, func(_ context.Context, o *order, m answer) (bool, error) {
		o.Note = m.Note
		return true, nil
	}))
	return &behind{t: t, log: log, bucket: bucket, def: def}
}

// work runs an engine on a store while f does, and until the store has all events.
func (b *behind) work(store projection.Store, snapshots workflow.Snapshots, f func(context.Context, *workflow.Engine)) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Minute)
	defer cancel()
	eng, err := workflow.Open(ctx, workflow.Config{OpenedLog: b.log, OpenedStore: store, Snapshots: snapshots, Logger: slog.New(slog.DiscardHandler), ProjectInterval: 10 * time.Millisecond})
	if err == nil {
		err = eng.Register(b.def)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- eng.Run(run) }()
	f(ctx, eng)
	stop()
	if err := <-done; err != nil {
		b.t.Error(err)
	}
	if err := eng.Close(); err != nil {
		b.t.Error(err)
	}
}

// ready waits until the engine has its partitions: a start before that may be on its way yet when
// somebody asks for its instance.
func (b *behind) ready(ctx context.Context, eng *workflow.Engine) {
	b.t.Helper()
	for err := eng.Ready(ctx); err != nil; err = eng.Ready(ctx) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			b.t.Fatalf("the engine does not become ready: %v", err)
		}
	}
}

// start begins n more instances, which wait for an answer.
func (b *behind) start(ctx context.Context, eng *workflow.Engine, n int) {
	b.t.Helper()
	b.ready(ctx, eng)
	for range n {
		id := fmt.Sprintf("w-%d", b.starts)
		if _, err := b.def.Start(ctx, eng, id, order{ID: id}); err != nil {
			b.t.Fatal(err)
		}
		b.starts++
	}
}

// answer lets instances end.
func (b *behind) answer(ctx context.Context, eng *workflow.Engine, from, to int) {
	b.t.Helper()
	b.ready(ctx, eng)
	for k := from; k < to; k++ {
		value := fmt.Appendf(nil, `{"id":"w-%d","note":"n-%d"}`, k, k)
		if err := b.log.Publish(ctx, eventlog.Record{Topic: "answers", Partition: -1, Value: value}); err != nil {
			b.t.Fatal(err)
		}
	}
	for k := from; k < to; k++ {
		o, err := b.def.Handle(eng, fmt.Sprintf("w-%d", k)).Wait(ctx)
		if err != nil || o.Note != fmt.Sprintf("n-%d", k) {
			b.t.Fatalf("w-%d ended with %+v, %v", k, o, err)
		}
	}
}

// marks are where the partitions of a store stand.
func (b *behind) marks(store projection.Store) (l []projection.Watermark) {
	b.t.Helper()
	for p := range b.log.Partitions() {
		v, err := store.View(b.t.Context(), p)
		if err != nil {
			b.t.Fatal(err)
		}
		w, err := v.Watermark(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		l = append(l, w)
		if err := v.Close(); err != nil {
			b.t.Fatal(err)
		}
	}
	return l
}

// trim takes snapshots of a store and lets the log drop what they allow.
func (b *behind) trim(store projection.Store) {
	b.t.Helper()
	for p := range b.log.Partitions() {
		if _, err := engine.TakeSnapshot(b.t.Context(), b.log, store, p, engine.Snapshots{Bucket: b.bucket, Keep: 1, Trim: true}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestStoreLeftBehind: a worker leaves; others go on with a store of their own, and their snapshots
// let the log drop what the first one's store has not folded. When that comes back it says so, and
// guesses nothing; with the snapshots it takes one in place of its rows, and everything goes on.
func TestStoreLeftBehind(t *testing.T) {
	for _, of := range backends {
		t.Run(of.name, func(t *testing.T) {
			place := of.place(t)
			b := newBehind(t)
			id := projection.Identity{App: b.log.App(), Partitions: b.log.Partitions()}
			open := func() projection.Store {
				t.Helper()
				s, err := place.Open(id)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			store := open()
			// again is what a worker that was away finds.
			again := func() {
				t.Helper()
				if place.Volatile {
					return
				}
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				store = open()
			}
			defer func() { store.Close() }()
			b.work(store, workflow.Snapshots{}, func(ctx context.Context, eng *workflow.Engine) {
				b.start(ctx, eng, 30)
				b.answer(ctx, eng, 0, 5)
			})
			left := b.marks(store)
			again()

			others := memstore.New(id)
			b.work(others, workflow.Snapshots{}, func(ctx context.Context, eng *workflow.Engine) {
				b.start(ctx, eng, 30)
				b.answer(ctx, eng, 5, 20)
			})
			b.trim(others)
			b.work(others, workflow.Snapshots{}, func(ctx context.Context, eng *workflow.Engine) { b.answer(ctx, eng, 20, 25) })
			topic, err := b.log.Topic(t.Context(), eventlog.EventsTopic(b.log.App()))
			if err != nil {
				t.Fatal(err)
			}
			for p, x := range topic.Partitions {
				if x.Start <= left[p].Offset {
					t.Fatalf("partition %d begins at offset %d, which the store that was left at %d has folded", p, x.Start, left[p].Offset)
				}
			}

			b.work(store, workflow.Snapshots{}, func(ctx context.Context, eng *workflow.Engine) {
				for err := eng.Ready(ctx); err == nil || !strings.Contains(err.Error(), "begins at event"); err = eng.Ready(ctx) {
					select {
					case <-time.After(10 * time.Millisecond):
					case <-ctx.Done():
						t.Fatalf("readiness does not tell that the log begins later: %v", err)
					}
				}
			})
			for p, w := range b.marks(store) {
				if w.N != left[p].N {
					t.Errorf("partition %d went from event %d to %d without what lies between", p, left[p].N, w.N)
				}
			}
			again()

			b.work(store, workflow.Snapshots{Bucket: b.bucket}, func(ctx context.Context, eng *workflow.Engine) {
				b.answer(ctx, eng, 25, 60)
				b.start(ctx, eng, 5)
			})
			again()
			// What a slow machine did not write before its engine ended.
			if _, err := engine.Rebuild(t.Context(), b.log, plain{store}, engine.RebuildOptions{Resume: true, Snapshots: b.bucket}); err != nil {
				t.Fatal(err)
			}
			restored := memstore.New(id)
			if _, err := engine.Restore(t.Context(), b.log, restored, engine.RestoreOptions{Snapshots: b.bucket}); err != nil {
				t.Fatal(err)
			}
			for p := range id.Partitions {
				got, n, err := engine.StoreSum(t.Context(), store, p)
				if err != nil {
					t.Fatal(err)
				}
				want, m, err := engine.StoreSum(t.Context(), restored, p)
				if err != nil {
					t.Fatal(err)
				}
				if got != want || n != m {
					t.Errorf("partition %d: dump sha256=%x at event %d, restored %x at event %d", p, got, n, want, m)
				}
			}
		})
	}
}
