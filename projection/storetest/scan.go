package storetest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
)

// scan calls Scan and checks it against the model.
func scan(tb testing.TB, v projection.View, m *model, kind projection.Kind, from, to []byte, limit int) []projection.Row {
	tb.Helper()
	rows, at, err := v.Scan(tb.Context(), kind, from, to, limit)
	must(tb, "scan", err)
	if at != m.watermark.N {
		broken(tb, ruleReadStep, "Scan at event %d says %d", m.watermark.N, at)
	}
	most := limit
	if limit == 0 {
		most = 1000
	}
	if diff := diffRows(m.scan(kind, from, to, most), rows); diff != "" {
		broken(tb, ruleScan, "Scan of %#x from %q to %q limit %d (-want +got):\n%.4000s", kind, from, to, limit, diff)
	}
	return rows
}

func testScanOrder(t *testing.T, h Harness) {
	rnd := seeded(t)
	p := acquire(t, open(t, h.New(t)), 0, 1)
	m := newModel(1)
	b := batchOf(history(rnd, 300), 0, 1)
	apply(t, p, b)
	m.apply(b)
	bound := func() []byte {
		if rnd.IntN(4) == 0 {
			return nil
		}
		return []byte(nasty[rnd.IntN(len(nasty))] + nasty[rnd.IntN(len(nasty))])
	}
	for range 300 {
		scan(t, p, m, kinds[rnd.IntN(len(kinds))], bound(), bound(), rnd.IntN(30))
	}
	scan(t, p, m, projection.KindCount, nil, nil, 0)
	scan(t, p, m, 0x66, nil, nil, 0) // a kind without rows
}

func testScanLimits(t *testing.T, h Harness) {
	p := acquire(t, open(t, h.New(t)), 0, 1)
	m := newModel(1)
	b := projection.Batch{New: mark(1, 1)}
	for i := range 1500 {
		key := projection.AppendInt64(nil, int64(i-700)) // negative and positive times
		b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: key, Value: []byte{}})
	}
	b.Put = append(b.Put, projection.Row{Kind: projection.KindDue + 1, Key: []byte{}, Value: []byte{1}},
		projection.Row{Kind: projection.KindDue - 1, Key: bytes.Repeat([]byte{0xFF}, 20), Value: []byte{1}})
	apply(t, p, b)
	m.apply(b)
	if rows := scan(t, p, m, projection.KindDue, nil, nil, 0); len(rows) != 1000 {
		broken(t, ruleScan, "Scan without limit returns %d rows of 1,500", len(rows))
	}
	scan(t, p, m, projection.KindDue, nil, nil, 1)
	scan(t, p, m, projection.KindDue, nil, nil, 1500)
	scan(t, p, m, projection.KindDue, nil, nil, 5000)
	due := projection.AppendInt64(nil, 10)
	if rows := scan(t, p, m, projection.KindDue, nil, due, 5000); len(rows) != 710 {
		broken(t, ruleScan, "%d rows before time 10, want 710: to is exclusive", len(rows))
	}
	scan(t, p, m, projection.KindDue, due, nil, 5000)
	scan(t, p, m, projection.KindDue, due, due, 5000)
	scan(t, p, m, projection.KindDue, projection.AppendInt64(nil, 20), due, 5000)
	scan(t, p, m, projection.KindDue, []byte{}, []byte{}, 5000)
}

// testScanPaging reads pages while rows come and go: rows that were there all the time are
// read exactly once.
func testScanPaging(t *testing.T, h Harness) {
	rnd := seeded(t)
	p := acquire(t, open(t, h.New(t)), 0, 1)
	b := projection.Batch{New: mark(1, 1)}
	name := func(i int) []byte { return fmt.Appendf(nil, "%05d", i) }
	for i := range 2000 {
		b.Put = append(b.Put, projection.Row{Kind: projection.KindList, Key: name(i * 3), Value: []byte{}})
	}
	apply(t, p, b)
	seen := map[string]int{}
	var cursor, last []byte
	for n := uint64(1); ; n++ {
		rows, at, err := p.Scan(t.Context(), projection.KindList, cursor, nil, 100)
		must(t, "scan a page", err)
		if at != n {
			broken(t, ruleReadStep, "page at event %d says %d", n, at)
		}
		for _, r := range rows {
			if bytes.Compare(last, r.Key) >= 0 {
				broken(t, ruleScan, "key %q comes after %q", r.Key, last)
			}
			last = r.Key
			seen[string(r.Key)]++
		}
		if len(rows) < 100 {
			break
		}
		cursor = append(bytes.Clone(last), 0)
		change := projection.Batch{Expected: n, New: mark(n+1, 1)}
		// Keys i*3+1 are inserted, keys i*3 with i%10 == 7 are removed, behind and ahead.
		named := map[int]bool{}
		for range 20 {
			if i := rnd.IntN(2000); !named[i] {
				named[i] = true
				change.Put = append(change.Put, projection.Row{Kind: projection.KindList, Key: name(i*3 + 1), Value: []byte{}})
				change.Del = append(change.Del, projection.Row{Kind: projection.KindList, Key: name((i/10*10 + 7) * 3)})
			}
		}
		change.Del = uniqueRows(change.Del)
		apply(t, p, change)
	}
	for i := range 2000 {
		if i%10 != 7 && seen[string(name(i*3))] != 1 {
			broken(t, ruleScan, "row %q was there all the time and was read %d times", name(i*3), seen[string(name(i*3))])
		}
	}
}

func uniqueRows(rows []projection.Row) []projection.Row {
	seen := map[string]bool{}
	var out []projection.Row
	for _, r := range rows {
		if !seen[string(r.Key)] {
			seen[string(r.Key)] = true
			out = append(out, r)
		}
	}
	return out
}

// testKeys: the tuples ("ab","c") and ("a","bc") differ, values are prefixes of each other,
// many rows share a prefix, and keys may be 64 KB long.
func testKeys(t *testing.T, h Harness) {
	p := acquire(t, open(t, h.New(t)), 9, 1)
	m := newModel(1)
	b := projection.Batch{New: mark(1, 1)}
	long := strings.Repeat("x\x00", 32<<10)
	firsts := append([]string{long, long + "y"}, nasty...)
	for _, first := range firsts {
		for _, second := range []string{"", "c", "bc", "\x00"} {
			key := projection.AppendString(projection.AppendString(nil, first), second)
			b.Put = append(b.Put, projection.Row{Kind: projection.KindSubscription, Key: key, Value: []byte(second)})
		}
	}
	apply(t, p, b)
	m.apply(b)
	wantRows(t, ruleScan, p, m)
	for _, first := range firsts {
		prefix := projection.AppendString(nil, first)
		if rows := scan(t, p, m, projection.KindSubscription, prefix, projection.PrefixEnd(prefix), 0); len(rows) != 4 {
			broken(t, ruleScan, "%d rows have the first part %.20q, want 4", len(rows), first)
		}
	}
	var many projection.Batch
	many.Expected, many.New = 1, mark(2, 1)
	for i := range 50_000 {
		key := projection.AppendUint64(projection.AppendString(nil, "pizza"), uint64(i))
		many.Put = append(many.Put, projection.Row{Kind: projection.KindSubscription, Key: key, Value: []byte{}})
	}
	apply(t, p, many)
	prefix := projection.AppendString(nil, "pizza")
	rows, _, err := p.Scan(t.Context(), projection.KindSubscription, prefix, projection.PrefixEnd(prefix), 60_000)
	must(t, "scan many", err)
	if len(rows) != 50_000 {
		broken(t, ruleScan, "%d of 50,000 rows that wait for one key", len(rows))
	}
}

func testValues(t *testing.T, h Harness) {
	place := h.New(t)
	p := acquire(t, open(t, place), 0, 1)
	m := newModel(1)
	for _, size := range []int{0, 1, 4095, 50 << 10, 1 << 20} {
		if place.MaxValue > 0 && size > place.MaxValue {
			continue
		}
		b := put(m.watermark.N, 1, projection.KindInstance, fmt.Sprint(size))
		b.Put[0].Value = bytes.Repeat([]byte{0, 'v', 0xFF}, size/3+1)[:size]
		b.Put = append(b.Put, projection.Row{Kind: projection.KindKept, Key: b.Put[0].Key, Value: b.Put[0].Value})
		apply(t, p, b)
		m.apply(b)
	}
	wantRows(t, ruleAtomic, p, m)
	values, _, err := p.Get(t.Context(), projection.KindInstance, [][]byte{[]byte("0"), []byte("none")})
	must(t, "get", err)
	if values[0] == nil || values[1] != nil {
		broken(t, ruleGet, "an empty value reads %#v and no row reads %#v", values[0], values[1])
	}
	if place.MaxValue > 0 {
		b := put(m.watermark.N, 1, projection.KindInstance, "small", "large")
		b.Put[1].Value = make([]byte, place.MaxValue+1)
		wantIs(t, ruleTooLarge, "apply a large row", p.Apply(t.Context(), b), projection.ErrTooLarge)
		wantRows(t, ruleTooLarge, p, m)
	}
}

func testSlices(t *testing.T, h Harness) {
	p := acquire(t, open(t, h.New(t)), 0, 1)
	m := newModel(1)
	b := put(0, 1, projection.KindDue, "a", "b")
	b.Add = []projection.Delta{{Key: []byte("count"), N: 1}}
	m.apply(b)
	apply(t, p, b)
	for i := range b.Put {
		copy(b.Put[i].Key, "zzzz")
		copy(b.Put[i].Value, "zzzz")
	}
	copy(b.Add[0].Key, "zzzzz")
	wantRows(t, ruleSlices, p, m)
	rows, _, err := p.Scan(t.Context(), projection.KindDue, nil, nil, 0)
	must(t, "scan", err)
	values, _, err := p.Get(t.Context(), projection.KindDue, [][]byte{[]byte("a"), []byte("b")})
	must(t, "get", err)
	for i := range rows {
		clear(rows[i].Key)
		clear(rows[i].Value)
		clear(values[i])
		_ = append(rows[i].Key, "zzzzzzzz"...)
		_ = append(values[i], "zzzzzzzz"...)
	}
	wantRows(t, ruleSlices, p, m)
}
