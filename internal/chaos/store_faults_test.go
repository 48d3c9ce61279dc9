package chaos

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// onStores runs a test on the stores that a worker can have for itself or share.
func onStores(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("pebble", func(t *testing.T) {
		t.Parallel()
		f(t, "pebble:"+filepath.Join(t.TempDir(), "store"))
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		f(t, startRedis(t).url())
	})
	t.Run("aerospike", func(t *testing.T) {
		t.Parallel()
		f(t, aerospikeURL(t))
	})
}

// TestStoreSlowEmbedded: each write takes two seconds longer, and work does not wait for it; then
// each read does too, and work goes on.
func TestStoreSlowEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	onStores(t, func(t *testing.T, url string) {
		w := newStoreWorld(t, url)
		w.feed(pick(2000, 200), 100)
		w.awaitAcked(20)
		held := make(chan struct{})
		w.store.held.Store(&held)
		w.awaitAcked(100) // none of them has waited for a write
		w.store.delay.Store(int64(2 * time.Second))
		w.store.held.Store(nil)
		close(held)
		w.awaitAcked(int64(w.orders))
		awaitCompleted(t, w.log, w.orders, 10*time.Minute)
		w.store.lag.Store(int64(2 * time.Second))
		w.feed(8, 100)
		w.awaitAcked(8)
		if err := w.notReady(); err != nil {
			t.Errorf("a slow store is no reason not to be ready: %v", err)
		}
		w.store.delay.Store(0)
		w.store.lag.Store(0)
		w.finish()
	})
}

// TestStoreErringEmbedded: one call in 20 fails, in half of the failed writes after it wrote.
func TestStoreErringEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	onStores(t, func(t *testing.T, url string) {
		w := newStoreWorld(t, url)
		w.feed(pick(2000, 300), 60)
		w.awaitAcked(20)
		w.store.every.Store(20)
		w.awaitAcked(int64(w.orders) - 60)
		w.store.every.Store(0)
		if w.store.fails.Load() < 5 {
			t.Errorf("only %d calls failed", w.store.fails.Load())
		}
		w.finish()
	})
}

// TestStoreDownEmbedded: the store is away for five minutes, in the short form for 8 s.
func TestStoreDownEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	away := pick(5*time.Minute, 8*time.Second)
	fails := func(t *testing.T, url string) {
		t.Parallel()
		w := newStoreWorld(t, url)
		w.feed(300, 60)
		w.awaitAcked(60)
		w.store.down.Store(true)
		w.awaitNotReady("the store is out of order")
		pause(t.Context(), away)
		w.store.down.Store(false)
		w.awaitReady()
		w.finish()
	}
	t.Run("pebble", func(t *testing.T) { fails(t, "pebble:"+filepath.Join(t.TempDir(), "store")) })
	t.Run("aerospike", func(t *testing.T) { fails(t, aerospikeURL(t)) })
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t, "--appendonly", "yes", "--appendfsync", "everysec")
		w := newStoreWorld(t, server.url())
		w.feed(300, 60)
		w.awaitAcked(60)
		server.kill()
		w.awaitNotReady("connection refused")
		pause(t.Context(), away)
		server.start()
		w.awaitReady()
		w.finish()
	})
}

// TestIdleStoreIsMissedEmbedded: nothing is to do when a Redis goes away. It is noticed all the same,
// and so is its return.
func TestIdleStoreIsMissedEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t, "--appendonly", "yes")
	w := newStoreWorld(t, server.url())
	w.feed(20, 100)
	awaitCompleted(t, w.log, w.orders, time.Minute)
	server.kill()
	w.await("the log says that the store does not answer", func() bool { return strings.Contains(w.said.String(), `level=WARN msg="the store does not answer"`) })
	for _, p := range w.eng.Partitions() {
		if p.Ready {
			t.Errorf("partition %d is called ready", p.Partition)
		}
	}
	server.start()
	w.await("the log says that it answers again", func() bool { return strings.Contains(w.said.String(), `level=INFO msg="the store answers again"`) })
	w.awaitReady()
	w.finish()
}

// TestStoreComesBackEmptyEmbedded: a Redis that keeps nothing is killed and started again, and
// another time forgets everything while it works; so does an Aerospike.
func TestStoreComesBackEmptyEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	empties := func(t *testing.T, url string, forget ...func()) {
		t.Parallel()
		w := newStoreWorld(t, url)
		w.feed(pick(2000, 400), 60)
		for range pick(10, 2) {
			for _, f := range forget {
				w.awaitAcked(50)
				f()
			}
		}
		w.finish()
		if n := strings.Count(w.said.String(), "the store's partition is rebuilt"); n < 4 {
			t.Errorf("partitions were rebuilt %d times only", n)
		}
	}
	t.Run("redis", func(t *testing.T) {
		server := startRedis(t)
		empties(t, server.url(), func() {
			server.kill()
			server.start()
		}, func() { server.do("FLUSHALL") })
	})
	t.Run("aerospike", func(t *testing.T) {
		url := aerospikeURL(t)
		empties(t, url, func() { truncateOf(t, url) })
	})
}

// TestStoreComesBackOlderEmbedded: a server is killed that had written a dump some time ago.
func TestStoreComesBackOlderEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t)
	w := newStoreWorld(t, server.url())
	w.feed(pick(2000, 400), 60)
	for range pick(10, 2) {
		w.awaitAcked(30)
		server.do("SAVE")
		saved := w.watermarks()
		w.awaitAcked(60)
		w.await("the store is ahead of its dump", func() bool {
			for p, n := range w.watermarks() {
				if n <= saved[p] {
					return false
				}
			}
			return true
		})
		server.kill()
		server.start()
		w.awaitAcked(30)
	}
	w.finish()
	// A write that was under way, or the next one, or a read, tells of it.
	said := w.said.String()
	for p := range w.log.Partitions() {
		if n := strings.Count(said, fmt.Sprintf(`"partition is taken again" partition=%d`, p)); n < pick(10, 2) {
			t.Errorf("partition %d was taken again %d times only; each time its store stood further back", p, n)
		}
	}
}

// TestStoreRightsWithdrawnEmbedded: the user that the worker logs in as is switched off, its
// connections are cut, and later it is given its rights back.
func TestStoreRightsWithdrawnEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	server := startRedis(t)
	server.do("ACL", "SETUSER", "worker", "on", ">secret", "~*", "+@all")
	server.do("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all")
	w := newStoreWorld(t, "redis://worker:secret@"+server.addr+"/0?timeout=2s")
	w.feed(pick(2000, 300), 60)
	w.awaitAcked(50)
	server.do("ACL", "SETUSER", "worker", "-@write", "-@scripting")
	w.awaitNotReady("NOPERM")
	server.do("ACL", "SETUSER", "worker", "+@all")
	w.awaitReady()
	w.awaitAcked(50)
	server.do("ACL", "SETUSER", "worker", "off")
	server.do("CLIENT", "KILL", "USER", "worker")
	w.awaitNotReady("WRONGPASS")
	server.do("ACL", "SETUSER", "worker", "on")
	w.awaitReady()
	w.finish()
	if text := w.said.String(); len(text) > 0 && containsSecret(text) {
		t.Errorf("the log has the password:\n%s", w.tail())
	}
}

func containsSecret(text string) bool { return strings.Contains(text, "secret") }

// TestStoreHangsEmbedded: a write does not return, and callers start as much as they
// can. The memory that the engine takes stays bounded, and readiness tells of what waits.
func TestStoreHangsEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	onStores(t, func(t *testing.T, url string) {
		w := newStoreWorld(t, url)
		held := make(chan struct{})
		w.store.held.Store(&held)
		w.feed(pick(50_000, 6_000), 1e6)
		w.awaitAcked(1_000) // the store does not hold the engine up at once
		last, since := int64(-1), time.Now()
		for time.Since(since) < 3*time.Second { // until nothing moves any more
			if n := w.acked.Load(); n != last {
				last, since = n, time.Now()
			}
			pause(t.Context(), 50*time.Millisecond)
		}
		most := uint64(0)
		for _, p := range w.eng.Partitions() {
			most = max(most, p.Event-p.Stored)
		}
		t.Logf("with the store hanging %d of %d starts were taken, a partition is %d events ahead of its store, %d MB of heap", last, w.orders, most, w.heap.Load()>>20)
		w.awaitNotReady("it waits for the store")
		if last == int64(w.orders) {
			t.Errorf("the engine took all of %d starts", w.orders)
		}
		close(held)
		awaitCompleted(t, w.log, w.orders, 10*time.Minute)
		w.finish()
	})
}
