package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// TestStoreOfAnotherApplicationEmbedded: two applications are pointed at one store. The second
// one is refused by the name that is recorded there, also when it comes while the first one
// works and has lost everything.
func TestStoreOfAnotherApplicationEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t)
	w := newStoreWorld(t, server.url())
	w.feed(200, 60)
	w.awaitAcked(50)
	other := "file:" + filepath.Join(t.TempDir(), "log") + "?app=other&partitions=4"
	for _, url := range []string{server.url(), server.url() + "&prefix=else"} {
		eng, err := workflow.Open(t.Context(), workflow.Config{Log: other, Store: url})
		if strings.Contains(url, "prefix") {
			if err != nil {
				t.Fatalf("under its own prefix: %v", err)
			}
			if err := eng.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, projection.ErrForeign) || !strings.Contains(err.Error(), `"other"`) || !strings.Contains(err.Error(), w.log.App()) {
			t.Errorf("another application's store: %v, want ErrForeign and both names", err)
		}
	}
	server.do("FLUSHALL")
	server.do("HSET", "dagger:store", "app", "other", "partitions", "4", "format", "1", "buckets", "16")
	w.awaitNotReady(`says "other"`)
	server.do("DEL", "dagger:store") // and it goes away again
	w.awaitReady()
	w.finish()
}

// TestStoreOfAnotherLogEmbedded: the store of another cluster's log, which has more events, is
// refused when the worker opens it and when it comes under a worker that runs.
func TestStoreOfAnotherLogEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t)
	theirs := newStoreWorld(t, server.url())
	theirs.feed(300, 200)
	theirs.finish()

	log := openedLog(t, "file:"+filepath.Join(t.TempDir(), "log")+"?app="+theirs.log.App()+"&partitions=4")
	store, err := projection.Open(t.Context(), server.url(), projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, OpenedStore: store}); !errors.Is(err, engine.ErrForeignStore) || !strings.Contains(err.Error(), "has folded the events topic") {
		t.Errorf("opened with another log's store: %v, want ErrForeignStore", err)
	}

	server.do("SAVE")
	dump, err := os.ReadFile(filepath.Join(server.dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	mine := startRedis(t)
	w := newStoreWorld(t, mine.url())
	w.feed(200, 60)
	w.awaitAcked(50)
	own := func(dump []byte) {
		mine.kill()
		if err := os.WriteFile(filepath.Join(mine.dir, "dump.rdb"), dump, 0o600); err != nil {
			t.Fatal(err)
		}
		mine.start()
	}
	mine.do("SAVE")
	before, err := os.ReadFile(filepath.Join(mine.dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	own(dump)
	w.awaitNotReady("belongs to another log")
	own(before)
	w.awaitReady()
	w.finish()
}

// TestStoreNewerThanItsLogEmbedded: the log is put back to an old copy, and its store has
// folded more than that. Where the store has not been taken by a later owner it is rebuilt;
// where it has, the worker says what is wrong until it is given an empty store.
func TestStoreNewerThanItsLogEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	t.Run("redis", func(t *testing.T) {
		server := startRedis(t)
		newerThanItsLog(t, server.url(), func(*storeWorld) { server.do("FLUSHALL") })
	})
	t.Run("pebble", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "store")
		newerThanItsLog(t, "pebble:"+dir, func(w *storeWorld) {
			w.end()
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("aerospike", func(t *testing.T) {
		url := aerospikeURL(t)
		newerThanItsLog(t, url, func(*storeWorld) { truncateOf(t, url) })
	})
}

// newerThanItsLog is given how the store is emptied: under the worker, or when it has ended.
func newerThanItsLog(t *testing.T, url string, empty func(*storeWorld)) {
	t.Parallel()
	w := newStoreWorld(t, url)
	w.feed(100, 200)
	w.finish()
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(filepath.Join(w.dir, "log"))); err != nil {
		t.Fatal(err)
	}
	w = w.again()
	w.feed(200, 200)
	w.finish()
	w = w.again() // a later owner of the longer log
	w.finish()
	logDir := filepath.Join(w.dir, "log")
	if err := os.RemoveAll(logDir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(logDir, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	for p := range 4 { // the shop begins again as well
		if err := os.Remove(filepath.Join(w.dir, fmt.Sprintf("shop-%d", p))); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	w.orders = 100
	w = w.reopen()
	w.awaitNotReady("the log is older than its store")
	empty(w)
	if w.ctx.Err() != nil {
		w = w.reopen()
	}
	w.awaitReady()
	w.feed(50, 100)
	w.finish()
}

// TestPebbleReplacedEmbedded: between two runs somebody puts an older copy in the place of the
// store, or removes it, or takes another log's or another application's. The first two are
// brought up to date, the others refused.
func TestPebbleReplacedEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	w := newStoreWorld(t, "pebble:"+dir)
	w.feed(100, 200)
	w.finish()
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w = w.again()
	w.feed(100, 200)
	w.finish()
	replace := func(by string) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if by == "" {
			return
		}
		if err := os.CopyFS(dir, os.DirFS(by)); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []string{old, ""} {
		replace(by)
		w = w.again()
		w.feed(50, 200)
		w.finish()
	}

	theirs := filepath.Join(t.TempDir(), "theirs")
	x := newStoreWorld(t, "pebble:"+theirs)
	x.feed(150, 200)
	x.finish()
	log := openedLog(t, w.logURL)
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	store, err := projection.Open(t.Context(), "pebble:"+theirs, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, OpenedStore: store}); !errors.Is(err, engine.ErrForeignStore) {
		t.Errorf("opened with another log's store: %v, want ErrForeignStore", err)
	}
	if _, err := projection.Open(t.Context(), "pebble:"+theirs, id); !errors.Is(err, projection.ErrInUse) {
		t.Errorf("opened a store that is open: %v, want ErrInUse", err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	id.App = "other"
	if _, err := projection.Open(t.Context(), "pebble:"+theirs, id); !errors.Is(err, projection.ErrForeign) || !strings.Contains(err.Error(), log.App()) {
		t.Errorf("opened another application's store: %v, want ErrForeign and its name", err)
	}
}
