package projection

import (
	"bytes"
	"cmp"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// tuple is a key of all the types that a key can have, each followed by another one.
type tuple struct {
	A string
	I int64
	B string
	U uint64
}

func (t tuple) encode() []byte {
	k := AppendString(nil, t.A)
	k = AppendInt64(k, t.I)
	k = AppendString(k, t.B)
	return AppendUint64(k, t.U)
}

func (t tuple) compare(o tuple) int {
	return cmp.Or(strings.Compare(t.A, o.A), cmp.Compare(t.I, o.I), strings.Compare(t.B, o.B), cmp.Compare(t.U, o.U))
}

// tuples draws from few and nasty values, so that two tuples often share their first parts.
func tuples() *rapid.Generator[tuple] {
	bytesOf := rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 0x01, 0x02, 'a', 'b', 0xFE, 0xFF}), 0, 4)
	str := rapid.Custom(func(t *rapid.T) string { return string(bytesOf.Draw(t, "bytes")) })
	return rapid.Custom(func(t *rapid.T) tuple {
		return tuple{
			A: str.Draw(t, "a"),
			I: rapid.OneOf(rapid.SampledFrom([]int64{math.MinInt64, -1, 0, 1, math.MaxInt64}), rapid.Int64()).Draw(t, "i"),
			B: str.Draw(t, "b"),
			U: rapid.OneOf(rapid.SampledFrom([]uint64{0, 1, math.MaxUint64}), rapid.Uint64()).Draw(t, "u"),
		}
	})
}

func TestKeysCompareAsTheirTuples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := tuples().Draw(t, "x"), tuples().Draw(t, "y")
		if got, want := bytes.Compare(a.encode(), b.encode()), a.compare(b); got != want {
			t.Fatalf("keys of %+v and %+v compare %d, tuples %d", a, b, got, want)
		}
	})
}

func TestKeysReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tuples().Draw(t, "tuple")
		var got tuple
		rest := want.encode()
		var errs [4]error
		got.A, rest, errs[0] = CutString(rest)
		got.I, rest, errs[1] = CutInt64(rest)
		got.B, rest, errs[2] = CutString(rest)
		got.U, rest, errs[3] = CutUint64(rest)
		if got != want || len(rest) != 0 || errs != [4]error{} {
			t.Fatalf("got %+v, rest %x, errors %v, want %+v", got, rest, errs, want)
		}
	})
}

func TestCutOffKeysAreErrors(t *testing.T) {
	for _, key := range []string{"", "a", "a\x00", "\x00\xFF", "a\x00\xFF\x00", "a\x00\x02", "a\x00\x00"} {
		if s, _, err := CutString([]byte(key)); err == nil {
			t.Errorf("CutString(%q) = %q, want an error", key, s)
		}
	}
	if _, _, err := CutUint64(make([]byte, 7)); err == nil {
		t.Error("CutUint64 of 7 bytes: want an error")
	}
	if _, _, err := CutInt64(nil); err == nil {
		t.Error("CutInt64 of nothing: want an error")
	}
}

func TestPrefixEnd(t *testing.T) {
	for _, c := range []struct{ prefix, end string }{{"a", "b"}, {"a\xFF", "b"}, {"a\xFF\xFF", "b"}, {"\x00", "\x01"}} {
		if got := PrefixEnd([]byte(c.prefix)); string(got) != c.end {
			t.Errorf("PrefixEnd(%q) = %q, want %q", c.prefix, got, c.end)
		}
	}
	for _, open := range []string{"", "\xFF", "\xFF\xFF"} {
		if got := PrefixEnd([]byte(open)); got != nil {
			t.Errorf("PrefixEnd(%q) = %q, want nil", open, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		bs := rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 'a', 0xFE, 0xFF}), 0, 4)
		prefix, key := bs.Draw(t, "prefix"), bs.Draw(t, "key")
		end := PrefixEnd(prefix)
		inside := bytes.Compare(prefix, key) <= 0 && (end == nil || bytes.Compare(key, end) < 0)
		if inside != bytes.HasPrefix(key, prefix) {
			t.Fatalf("key %q within %q..%q is %v", key, prefix, end, inside)
		}
	})
}

func FuzzCutString(f *testing.F) {
	f.Add([]byte("a\x00\xFF\x00\x01b"))
	f.Fuzz(func(t *testing.T, key []byte) {
		s, rest, err := CutString(key)
		if err == nil && !bytes.Equal(append(AppendString(nil, s), rest...), key) {
			t.Fatalf("CutString(%q) = %q, %q: not what AppendString writes", key, s, rest)
		}
	})
}
