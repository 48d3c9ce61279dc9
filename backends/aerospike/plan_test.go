package aerospike

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
)

func TestSeparator(t *testing.T) {
	rnd := seeded(t)
	for range 2000 {
		var keys []string
		for range 2 {
			key := make([]byte, rnd.IntN(5))
			for i := range key {
				key[i] = []byte{0, 1, 'a', 0xFF}[rnd.IntN(4)]
			}
			keys = append(keys, string(key))
		}
		slices.Sort(keys)
		if keys[0] == keys[1] {
			continue
		}
		s := separator(keys[0], keys[1])
		if s <= keys[0] || s > keys[1] || len(s) > len(keys[1]) {
			t.Fatalf("between %q and %q: %q", keys[0], keys[1], s)
		}
	}
}

// TestDirectory divides entries among pages and finds them again.
func TestDirectory(t *testing.T) {
	d := &directory{next: 9, kinds: map[projection.Kind][]page{0x30: {{"", 1}, {"b", 7}, {"b\x00", 3}}, 0x10: {{"", 2}}}}
	got, err := decodeDirectory(d.encode())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(d) {
		t.Errorf("%v, %v, want %v", got, err, d)
	}
	for key, want := range map[string]int64{"": 1, "a": 1, "b": 7, "b\x00": 3, "c": 3} {
		if id := d.kinds[0x30][find(d.kinds[0x30], key)].id; id != want {
			t.Errorf("key %q is in page %d, want %d", key, id, want)
		}
	}
	to := "b"
	for _, c := range []struct {
		span span
		want string
	}{
		{span{}, "[{ 1} {b 7} {b\x00 3}]"},
		{span{from: "b"}, "[{b 7} {b\x00 3}]"},
		{span{from: "a", to: &to}, "[{ 1}]"},
		{span{from: "b", to: &to}, "[]"},
		{span{from: "c", to: &to}, "[]"},
	} {
		if got := fmt.Sprint(d.covering(0x30, c.span)); got != c.want {
			t.Errorf("%+v: %q, want %q", c.span, got, c.want)
		}
	}
	raw := d.encode()
	for i := range raw {
		if _, err := decodeDirectory(raw[:i]); err == nil && i < 2 {
			t.Errorf("a directory of %d bytes was read", i)
		}
	}
}

// TestNothingIsLeft: due entries come and go, rows get long and short again; what nobody reads
// any more is removed, and empty pages leave the directory.
func TestNothingIsLeft(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	due := func(n uint64) []byte {
		return append(projection.AppendInt64(nil, int64(n)), strings.Repeat("x", 40)...)
	}
	random := seeded(t)
	long := func() []byte {
		value := make([]byte, 600<<10)
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		return value
	}
	const window, perBatch = 3, 200
	for n := uint64(0); n < 300; n++ {
		b := projection.Batch{Expected: n, New: projection.Watermark{N: n + 1, Epoch: 1}}
		for i := range uint64(perBatch) {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: due(n*perBatch + i)})
			if n >= window {
				b.Del = append(b.Del, projection.Row{Kind: projection.KindDue, Key: due((n-window)*perBatch + i)})
			}
		}
		switch n % 10 { // long, long, short, long, gone; kept messages alike
		case 0, 2, 6:
			for _, kind := range []projection.Kind{projection.KindInstance, projection.KindKept} {
				b.Put = append(b.Put, projection.Row{Kind: kind, Key: []byte("long"), Value: long()})
			}
		case 4:
			for _, kind := range []projection.Kind{projection.KindInstance, projection.KindKept} {
				b.Put = append(b.Put, projection.Row{Kind: kind, Key: []byte("long"), Value: []byte("short")})
			}
		case 8:
			for _, kind := range []projection.Kind{projection.KindInstance, projection.KindKept} {
				b.Del = append(b.Del, projection.Row{Kind: kind, Key: []byte("long")})
			}
		}
		if err := p.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if n == 150 { // another process goes on
			p = ownerOf(t, f, 1)
		}
	}
	count := func(part string) int {
		return len(slices.DeleteFunc(f.with("0/"), func(key string) bool { return !strings.Contains(key, part) }))
	}
	// 600 entries of 60 bytes fill some five pages; up to manyEmpty more may wait to be dropped.
	if n := count("/p/"); n > 2*manyEmpty+10 {
		t.Errorf("%d pages are left", n)
	}
	// Redos that are kept, a directory, and what the change of owners left. Those with long rows
	// are not of one piece.
	if n := count("/b/"); n > keptRedos+12 {
		t.Errorf("%d pieces of blobs are left", n)
	}
	if n := count("/r/"); n != 1 {
		t.Errorf("%d rows are left, want the marker of one that was deleted", n)
	}
	if err := p.(*handle).p.s.Drop(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	if left := f.with("0/"); len(left) != 1 || left[0] != "0/w" {
		t.Errorf("after a drop there are %v", left)
	}
}
