package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

// verdicts collects what the verifier tells.
type verdicts struct {
	mu                     sync.Mutex
	instances, differences int
	walks                  int
	lines                  bytes.Buffer
}

func (v *verdicts) verified(instances, differences int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.instances, v.differences, v.walks = v.instances+instances, v.differences+differences, v.walks+1
}

func (v *verdicts) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lines.Write(p)
}

// TestVerifierWalksWhileAnEngineWorks finds no difference while everything changes.
func TestVerifierWalksWhileAnEngineWorks(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var v verdicts
	e, err := New(ctx, Config{Log: log, Store: store, ProjectInterval: time.Millisecond, VerifyInterval: 20 * time.Millisecond,
		Observer: Observer{Verified: v.verified}, Logger: slog.New(slog.NewTextHandler(&v, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(ctx, runOrders(t)); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.Run(run) }()
	until(t, ctx, "the engine runs", e.Running)
	walks := func() int {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.walks
	}
	for k := 0; k < 200; k += 10 {
		before := walks()
		moreOrders(t, log, e, k, k+10)
		until(t, ctx, "the verifier goes on", func() bool { return walks() > before+1 })
	}
	stop()
	if err := errors.Join(<-done, e.Close()); err != nil {
		t.Fatal(err)
	}
	if v.instances < 200 {
		t.Errorf("only %d instances were compared", v.instances)
	}
	if v.differences != 0 || strings.Contains(v.lines.String(), "differs") {
		t.Errorf("%d differences in %d instances:\n%s", v.differences, v.instances, v.lines.String())
	}
	t.Logf("%d slices, %d instances", v.walks, v.instances)
}

// lyingStore shows one instance otherwise than it is.
type lyingStore struct {
	projection.Store
	lie func(kind projection.Kind, key, value []byte) []byte
}

func (s lyingStore) View(ctx context.Context, p int32) (projection.View, error) {
	v, err := s.Store.View(ctx, p)
	return lyingView{v, s.lie}, err
}

type lyingView struct {
	projection.View
	lie func(kind projection.Kind, key, value []byte) []byte
}

func (v lyingView) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	values, at, err := v.View.Get(ctx, kind, keys)
	for k := range values {
		values[k] = v.lie(kind, keys[k], values[k])
	}
	return values, at, err
}

// TestVerifierFinds a row that differs, one that is missing, and a missing index entry; also
// on a log that was trimmed.
func TestVerifierFinds(t *testing.T) {
	for _, trim := range []bool{false, true} {
		t.Run(fmt.Sprint("trimmed=", trim), func(t *testing.T) {
			x := withSnapshots(t, trim)
			walk := func(store projection.Store, bucket snapshot.Bucket) (*verdicts, error) {
				t.Helper()
				var v verdicts
				e, err := New(t.Context(), Config{Log: x.log, Store: store, Observer: Observer{Verified: v.verified}, Logger: slog.New(slog.NewTextHandler(&v, nil)), Snapshots: Snapshots{Bucket: bucket}})
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				for p := range x.log.Partitions() {
					err = errors.Join(err, e.verifyPartition(t.Context(), p))
				}
				return &v, err
			}
			v, err := walk(x.store, x.bucket)
			if err != nil || v.differences != 0 || v.instances < 100 {
				t.Fatalf("%d differences in %d instances, %v\n%s", v.differences, v.instances, err, v.lines.String())
			}
			if _, err := walk(x.store, nil); (err != nil) != trim {
				t.Errorf("without snapshots: %v", err)
			}
			for what, c := range map[string]struct {
				lie  func(kind projection.Kind, key, value []byte) []byte
				want string
			}{
				"changed": {func(kind projection.Kind, key, value []byte) []byte {
					if kind == projection.KindInstance && string(key) == "m-001" {
						return append(value, ' ')
					}
					return value
				}, `instance=m-001 what="the instance's row differs"`},
				"missing": {func(kind projection.Kind, key, value []byte) []byte {
					if kind == projection.KindInstance && string(key) == "i-07" {
						return nil
					}
					return value
				}, `instance=i-07 what="the instance is missing in the store"`},
				"no entry": {func(kind projection.Kind, key, value []byte) []byte {
					if kind == projection.KindListAll && bytes.HasSuffix(key, []byte("m-065")) {
						return nil
					}
					return value
				}, "in the list index is missing in the store"},
			} {
				v, err := walk(lyingStore{x.store, c.lie}, x.bucket)
				if err != nil || v.differences != 1 || !strings.Contains(v.lines.String(), c.want) {
					t.Errorf("%s: %d differences, %v\n%s", what, v.differences, err, v.lines.String())
				}
			}
			ghost := projection.Row{Kind: projection.KindListAll, Key: listAllKey(1, "ghost")}
			addRow(t, x.store, 0, ghost, projection.Row{Kind: projection.KindInstance, Key: []byte("ghost"), Value: encodeRow(map[string]int{})})
			if v, err := walk(x.store, x.bucket); err == nil || !strings.Contains(err.Error(), "the log ends at event") {
				t.Errorf("a store ahead of its log: %d differences, %v", v.differences, err)
			}
		})
	}
}

// addRow puts rows as an event does that the log has not.
func addRow(t *testing.T, store projection.Store, p int32, rows ...projection.Row) {
	t.Helper()
	w, err := watermark(t.Context(), store, p)
	if err != nil {
		t.Fatal(err)
	}
	part, err := store.Acquire(t.Context(), p, w.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	b := projection.Batch{Expected: w.N, New: w, Put: slices.Clone(rows)}
	b.New.N++
	if err := errors.Join(part.Apply(t.Context(), b), part.Close()); err != nil {
		t.Fatal(err)
	}
}
