package aerospike

import (
	"errors"
	"fmt"
	"testing"

	"github.com/godagger/dagger/projection"
)

// TestRestartIsNoticed: after a restart nothing that the server says is believed until the
// partition was dropped, and nothing of what came back is in it then.
func TestRestartIsNoticed(t *testing.T) {
	rnd := seeded(t)
	for _, forget := range []bool{false, true} {
		f := newFake()
		p := ownerOf(t, f, 1)
		s := p.(*handle).p.s
		v, err := s.View(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := uint64(1); n <= 50; n++ {
			if err := p.Apply(t.Context(), batch(n, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if f.restart(rnd, 3); forget {
			f.forget()
		}
		_, _, get := v.Get(t.Context(), projection.KindInstance, [][]byte{[]byte("001")})
		_, _, scan := p.Scan(t.Context(), projection.KindDue, nil, nil, 0)
		_, mark := v.Watermark(t.Context())
		for what, err := range map[string]error{
			"Get": get, "Scan": scan, "Watermark": mark, "Apply": p.Apply(t.Context(), batch(51, 1)),
			"Dump": v.Dump(t.Context(), func(projection.Row) error { return nil }),
		} {
			if !errors.Is(err, projection.ErrStateLost) {
				t.Errorf("%s after a restart: %v, want ErrStateLost", what, err)
			}
		}
		p, err = s.Acquire(t.Context(), 0, 2)
		if !forget {
			if !errors.Is(err, projection.ErrStateLost) {
				t.Errorf("Acquire after a restart: %v, want ErrStateLost", err)
			}
			if err := s.Drop(t.Context(), 0, 2); err != nil {
				t.Fatal(err)
			}
			p, err = s.Acquire(t.Context(), 0, 2)
		}
		if err != nil {
			t.Fatal(err)
		}
		if at := check(t, p); at != 0 {
			t.Fatalf("a partition that was dropped stands at event %d", at)
		}
		for n := uint64(1); n <= 60; n++ {
			if err := p.Apply(t.Context(), batch(n, 2)); err != nil {
				t.Fatal(err)
			}
		}
		check(t, v)
	}
}

// TestRecordsVanish removes records of each sort behind the store's back: it says so.
func TestRecordsVanish(t *testing.T) {
	for _, part := range []string{"/p/", "/r/", "/b/"} {
		f := newFake()
		p := ownerOf(t, f, 1)
		for n := uint64(1); n <= 50; n++ {
			if err := p.Apply(t.Context(), batch(n, 1)); err != nil {
				t.Fatal(err)
			}
		}
		other := ownerOf(t, f, 1) // whose store knows nothing yet
		f.remove(0, part, 1)
		keys := make([][]byte, 200)
		for i := range keys {
			keys[i] = fmt.Appendf(nil, "%03d", i)
		}
		_, _, err := other.Get(t.Context(), projection.KindInstance, keys)
		if part != "/b/" && !errors.Is(err, projection.ErrStateLost) {
			t.Errorf("Get without %s: %v", part, err)
		}
		err = other.Dump(t.Context(), func(projection.Row) error { return nil })
		if part == "/b/" { // known already: a new process looks for it
			s, openErr := openFake(t, f, identity)
			if openErr != nil {
				t.Fatal(openErr)
			}
			defer s.Close()
			_, err = s.Acquire(t.Context(), 0, 1)
		}
		if !errors.Is(err, projection.ErrStateLost) {
			t.Errorf("without %s: %v", part, err)
		}
		if err := p.Apply(t.Context(), batch(51, 1)); !errors.Is(err, projection.ErrStateLost) {
			t.Errorf("Apply without %s: %v", part, err)
		}
	}
}

// TestIncarnationsAreNeverUsedTwice: a server that was restarted forgets that a partition was
// dropped, and has the rows that were written after that all the same.
func TestIncarnationsAreNeverUsedTwice(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	s := p.(*handle).p.s
	for n := uint64(1); n <= 10; n++ {
		if err := p.Apply(t.Context(), batch(n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	before := f.records[liveKey(0)]
	f.mu.Unlock()
	for range 3 {
		if err := s.Drop(t.Context(), 0, 1); err != nil {
			t.Fatal(err)
		}
		p, err := s.Acquire(t.Context(), 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		for n := uint64(1); n <= 10; n++ {
			if err := p.Apply(t.Context(), batch(n, 1)); err != nil {
				t.Fatal(err)
			}
			check(t, p)
		}
		f.mu.Lock()
		f.records[liveKey(0)] = before
		f.restarted()
		f.mu.Unlock()
	}
}
