package pebble

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	cdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		childApplies(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// onDisk keeps the store in a directory of the machine.
func onDisk(options Options) storetest.Harness {
	return storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		dir := filepath.Join(tb.TempDir(), "store")
		return &storetest.Place{
			Alone: true,
			Open: func(id projection.Identity) (projection.Store, error) {
				return openStore(tb, dir, id, options)
			},
			Damage: func(n int32) { damageTables(tb, filepath.Join(dir, partitionDir(n))) },
		}
	}}
}

// openStore keeps a nil *Store out of the interface.
func openStore(tb testing.TB, dir string, id projection.Identity, options Options) (projection.Store, error) {
	s, err := Open(tb.Context(), dir, id, options)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// inMemory keeps it in a file system that loses, at a crash, a random part of what was not
// synced.
func inMemory(options Options) storetest.Harness {
	return storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		disk := vfs.NewCrashableMem()
		place := &storetest.Place{Alone: true}
		place.Open = func(id projection.Identity) (projection.Store, error) {
			o := options
			o.fs = disk
			return openStore(tb, "store", id, o)
		}
		place.Crash = func(s projection.Store) {
			left := disk.CrashClone(vfs.CrashCloneCfg{
				UnsyncedDataPercent: rand.IntN(101),
				RNG:                 rand.New(rand.NewPCG(rand.Uint64(), 0)),
			})
			if err := s.Close(); err != nil { // on the disk that nobody reads any more
				tb.Fatal(err)
			}
			disk = left
		}
		return place
	}}
}

func TestContractOnDisk(t *testing.T)        { storetest.Run(t, onDisk(Options{})) }
func TestContractOnDiskNoWAL(t *testing.T)   { storetest.Run(t, onDisk(Options{NoWAL: true})) }
func TestContractInMemory(t *testing.T)      { storetest.Run(t, inMemory(Options{})) }
func TestContractInMemoryNoWAL(t *testing.T) { storetest.Run(t, inMemory(Options{NoWAL: true})) }

// damageTables writes what is in the log of a database into tables, and spoils each.
func damageTables(tb testing.TB, dir string) {
	tb.Helper()
	db, err := cdb.Open(dir, &cdb.Options{Logger: quiet{}, FormatMajorVersion: cdb.FormatNewest})
	if err != nil {
		tb.Fatal(err)
	}
	if err := db.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		tb.Fatalf("tables in %s: %v, %v", dir, tables, err)
	}
	for _, name := range tables {
		content, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		content[len(content)/4] ^= 0x40 // in the data, not in the index at the end
		if err := os.WriteFile(name, content, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestDamageKinds: whatever is damaged, the partition says so and its neighbour works.
func TestDamageKinds(t *testing.T) {
	remove := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("no %s in %s", pattern, dir)
			}
			for _, f := range files {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, damage := range map[string]func(*testing.T, string){
		"table removed":    remove("*.sst"),
		"manifest removed": remove("MANIFEST-*"),
		"manifest cut": func(t *testing.T, dir string) {
			files, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
			for _, f := range files {
				if err := os.WriteFile(f, bytes.Repeat([]byte{0xAB}, 100), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness := onDisk(Options{NoWAL: true})
			place := harness.New(t)
			var dir string
			place.Damage = func(int32) { damage(t, filepath.Join(dir, "p-0")) }
			open := place.Open
			place.Open = func(id projection.Identity) (projection.Store, error) {
				s, err := open(id)
				if err == nil {
					dir = s.(*Store).dir
				}
				return s, err
			}
			storetest.RunGroup(t, "Damage", storetest.Harness{New: func(testing.TB) *storetest.Place { return place }})
			if _, err := os.Stat(filepath.Join(dir, "p-0.damaged")); err != nil {
				t.Errorf("the damaged database was not set aside: %v", err)
			}
		})
	}
}

// TestDamageFoundInTheBackground: a compaction meets the damage before any reader does.
func TestDamageFoundInTheBackground(t *testing.T) {
	place := onDisk(Options{}).New(t)
	apply := func(p projection.Partition, n uint64) error {
		b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1}}
		for i := range 100 {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: []byte{byte(i)}, Value: bytes.Repeat([]byte{byte(n), byte(i)}, 500)})
		}
		return p.Apply(t.Context(), b)
	}
	s, err := place.Open(storetest.Identity)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := apply(p, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	place.Damage(0)
	if s, err = place.Open(storetest.Identity); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p, err = s.Acquire(t.Context(), 0, 1); err == nil { // else it was met even earlier
		if err = apply(p, 2); err == nil {
			db := p.(*handle).p.db
			if err := db.Compact(t.Context(), []byte{0}, []byte{0xFF}, false); err == nil {
				t.Error("a compaction of damaged tables succeeds")
			}
			err = apply(p, 3)
		}
	}
	if !errors.Is(err, projection.ErrStateLost) {
		t.Errorf("after a compaction met damage: %v, want ErrStateLost", err)
	}
}

func TestDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, storetest.Identity, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.URL() != "pebble://"+dir {
		t.Errorf("URL is %s, want pebble://%s", s.URL(), dir)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(`{"format":2,"app":"storetest","partitions":300}`), 0o644); err != nil {
		t.Fatal(err)
	}
	refuse := func(what string) {
		t.Helper()
		_, err := Open(t.Context(), dir, storetest.Identity, Options{})
		if !isForeign(err) {
			t.Errorf("%s: got %v, want ErrForeign", what, err)
		}
	}
	refuse("a newer format")
	if err := os.WriteFile(filepath.Join(dir, identityFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refuse("an empty identity")
	if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "p-3"), 0o755); err != nil {
		t.Fatal(err)
	}
	refuse("partitions without identity")
	if _, err := Open(t.Context(), t.TempDir(), projection.Identity{}, Options{}); err == nil {
		t.Error("a store for nobody was opened")
	}
}

// TestWriteFileIsWhole: a leftover of a crash is overwritten.
func TestWriteFileIsWhole(t *testing.T) {
	fs := vfs.NewMem()
	for _, content := range []string{"first, long", "second"} {
		if err := writeFile(fs, "f", []byte(content), true); err != nil {
			t.Fatal(err)
		}
		f, err := fs.Open("f")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if f.Close(); err != nil || string(got) != content {
			t.Errorf("got %q, %v, want %q", got, err, content)
		}
	}
}

func BenchmarkStore(b *testing.B)      { storetest.Benchmark(b, onDisk(Options{})) }
func BenchmarkStoreNoWAL(b *testing.B) { storetest.Benchmark(b, onDisk(Options{NoWAL: true})) }
