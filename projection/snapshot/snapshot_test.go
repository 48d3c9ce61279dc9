package snapshot_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
	"github.com/godagger/dagger/projection/snapshot"
	"github.com/godagger/dagger/projection/snapshot/buckettest"
)

func TestContractOfDir(t *testing.T) {
	b, err := snapshot.OpenDir(filepath.Join(t.TempDir(), "not", "there", "yet"))
	if err != nil {
		t.Fatal(err)
	}
	buckettest.Run(t, b)
	for _, name := range []string{"../x", "/x", "", ".", "a/../../b"} {
		if err := b.Put(t.Context(), name, strings.NewReader("x")); err == nil {
			t.Errorf("an object named %q was put", name)
		}
	}
}

func TestOpenBucket(t *testing.T) {
	for raw, want := range map[string]string{
		"nothing":               "no scheme",
		"s3://bucket":           "projection/snapshot/gocloud",
		"file:":                 "no name",
		"file:dir?x=1":          "nothing else",
		"file://host/dir":       "nothing else",
		"file://u:secret@h/dir": "nothing else",
		"file:%zz":              "badly escaped",
	} {
		_, err := snapshot.OpenBucket(t.Context(), raw)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("open %s: %v, want %q", raw, err, want)
		}
	}
	b, err := snapshot.OpenBucket(t.Context(), "file:"+t.TempDir())
	if err != nil || !strings.HasPrefix(b.URL(), "file:///") {
		t.Errorf("%v, %v", b, err)
	}
}

var id = projection.Identity{App: "shop", Partitions: 4}

// filled is a partition with all kinds of rows.
func filled(t *testing.T) projection.Partition {
	t.Helper()
	p, err := memstore.New(id).Acquire(t.Context(), 3, 7)
	if err != nil {
		t.Fatal(err)
	}
	b := projection.Batch{New: projection.Watermark{N: 100, Epoch: 7, Offset: 140, LogID: "log/1", Sum: 1 << 63}}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		value := make([]byte, rnd.IntN(300))
		for k := range value {
			value[k] = byte(rnd.Uint32())
		}
		b.Put = append(b.Put, projection.Row{Kind: projection.Kind(0x10 + i%3*0x11), Key: projection.AppendUint64(nil, uint64(i)), Value: value})
	}
	b.Put = append(b.Put, projection.Row{Kind: 0xFF, Key: []byte{}, Value: []byte{}})
	b.Add = []projection.Delta{{Key: []byte("n"), N: 5}}
	if err := p.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return p
}

func take(t *testing.T, b snapshot.Bucket) snapshot.Manifest {
	t.Helper()
	m, err := snapshot.Take(t.Context(), b, id, 3, filled(t), func(projection.Row) {}, func(projection.Watermark) uint64 { return 42 })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTakeAndRead(t *testing.T) {
	dir := t.TempDir()
	b, err := snapshot.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := take(t, b)
	list, damaged, err := snapshot.List(t.Context(), b, id, 3, "log/1")
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	if diff := cmp.Diff([]snapshot.Manifest{m}, list); diff != "" {
		t.Fatal(diff)
	}
	if m.From != 42 || m.Rows != 502 || m.Watermark() != (projection.Watermark{N: 100, Epoch: 7, Offset: 140, LogID: "log/1", Sum: 1 << 63}) {
		t.Errorf("%+v", m)
	}
	var want, got []projection.Row
	if err := filled(t).Dump(t.Context(), func(r projection.Row) error { want = append(want, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Check(t.Context(), b, m); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Read(t.Context(), b, m, func(r projection.Row) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, other := range []struct {
		id  projection.Identity
		p   int32
		log string
	}{{id, 2, ""}, {projection.Identity{App: "shop2", Partitions: 4}, 3, ""}, {id, 3, "log/2"}} {
		if list, _, err := snapshot.List(t.Context(), b, other.id, other.p, other.log); err != nil || len(list) > 0 {
			t.Errorf("%+v: %v, %v", other, list, err)
		}
	}
	if _, damaged, err := snapshot.List(t.Context(), b, projection.Identity{App: "shop", Partitions: 8}, 3, ""); err != nil || len(damaged) != 1 {
		t.Errorf("of another number of partitions: %v, %v", damaged, err)
	}
	if err := snapshot.Delete(t.Context(), b, m); err != nil {
		t.Fatal(err)
	}
	if names, err := b.List(t.Context(), ""); err != nil || len(names) > 0 {
		t.Errorf("after Delete: %v, %v", names, err)
	}
}

// TestEveryByteCounts: whatever byte of the rows is changed, added or cut off, the snapshot is
// damaged, and reading it never gives rows without saying so.
func TestEveryByteCounts(t *testing.T) {
	dir := t.TempDir()
	b, err := snapshot.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := take(t, b)
	name := filepath.Join(dir, filepath.FromSlash(m.Object))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := snapshot.Check(t.Context(), b, m); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		_ = snapshot.Read(t.Context(), b, m, func(projection.Row) error { return nil }) // must not panic
	}
	for i := 0; i < len(whole); i += 1 + len(whole)/200 {
		bad := append([]byte{}, whole...)
		bad[i] ^= 0x10
		spoil("a byte changed", bad)
		spoil("cut off", whole[:i])
	}
	spoil("a byte more", append(whole, 0))
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Check(t.Context(), b, m); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("rows that are missing: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	b, err := snapshot.OpenDir(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("dagger rows 1\n"))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, "x"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		_ = snapshot.Read(t.Context(), b, snapshot.Manifest{Object: "x"}, func(projection.Row) error { return nil })
	})
}
