package aerospike

import (
	"errors"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
)

// hold has the fake keep the changes of some keys for later, as if they were on their way; their
// senders hear nothing.
func (f *fake) hold(t *testing.T, which func(key string) bool) (release func()) {
	var held []change
	f.mu.Lock()
	defer f.mu.Unlock()
	f.doomed = func(c *change) error {
		if !which(c.key) {
			return nil
		}
		held = append(held, *copyOf(c))
		return errFake
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.doomed = nil; len(held) == 0 {
			t.Fatal("nothing was held")
		}
		for i := range held {
			f.make(&held[i])
		}
	}
}

// TestLateRow: a row that was on its way when its instance was deleted doesn't bring it back.
func TestLateRow(t *testing.T) {
	f := newFake()
	first := ownerOf(t, f, 1)
	x := projection.Row{Kind: projection.KindInstance, Key: []byte("x"), Value: []byte("alive")}
	release := f.hold(t, func(key string) bool { return strings.Contains(key, "/r/") })
	put := projection.Batch{New: projection.Watermark{N: 1, Epoch: 1}, Put: []projection.Row{x}}
	if err := first.Apply(t.Context(), put); err == nil {
		t.Fatal("a batch whose rows are on their way was said to be applied")
	}
	f.mu.Lock()
	f.doomed = nil
	f.mu.Unlock()
	second := ownerOf(t, f, 2)
	values, at, err := second.Get(t.Context(), projection.KindInstance, [][]byte{x.Key})
	if err != nil || at != 1 || string(values[0]) != "alive" {
		t.Fatalf("at event %d the instance is %q, %v", at, values, err)
	}
	del := projection.Batch{Expected: 1, New: projection.Watermark{N: 2, Epoch: 2}, Del: []projection.Row{x}}
	if err := second.Apply(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	release()
	for _, p := range []projection.View{second, ownerOf(t, f, 3)} {
		values, at, err = p.Get(t.Context(), projection.KindInstance, [][]byte{x.Key})
		if err != nil || at != 2 || values[0] != nil {
			t.Errorf("at event %d the deleted instance is %q, %v", at, values, err)
		}
	}
}

// TestLateReplace: a replacement that is on its way while somebody else builds: what he builds is
// not what the partition becomes.
func TestLateReplace(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	for n := uint64(1); n <= 5; n++ {
		if err := p.Apply(t.Context(), batch(n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	s := p.(*handle).p.s
	built, err := s.Stage(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 7; n++ {
		if err := built.Apply(t.Context(), batch(n, 0)); err != nil {
			t.Fatal(err)
		}
	}
	release := f.hold(t, func(key string) bool { return key == liveKey(0) })
	if err := built.Replace(t.Context()); err == nil {
		t.Fatal("a replacement that is on its way was said to be made")
	}
	f.mu.Lock()
	f.doomed = nil
	f.mu.Unlock()
	if err := built.Apply(t.Context(), batch(8, 0)); !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("the builder goes on with what may be the partition: %v", err)
	}
	other, err := openFake(t, f, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	next, err := other.Stage(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := next.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := w.N + 1; n <= 9; n++ {
		if err := next.Apply(t.Context(), batch(n, 0)); err != nil {
			t.Fatal(err)
		}
	}
	release()
	v, err := other.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if at := check(t, v); at != 7 {
		t.Errorf("the partition stands at event %d, want that of the late replacement", at)
	}
	if err := next.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at := check(t, v); at != 9 {
		t.Errorf("the partition stands at event %d, want 9", at)
	}
	if err := built.Close(); err != nil {
		t.Error(err)
	}
}

// TestDumpWithoutPage: a page that isn't there is none that was dropped.
func TestDumpWithoutPage(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	for n := uint64(1); n <= 20; n++ {
		if err := p.Apply(t.Context(), moving(n)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openFake(t, f, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	f.remove(0, "/p/", 3)
	if err := v.Dump(t.Context(), func(projection.Row) error { return nil }); !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("dump without some pages: %v, want ErrStateLost", err)
	}
}
