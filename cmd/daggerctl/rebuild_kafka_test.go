package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/kafkatest"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// testRedis is the address of a redis-server of the test's own, or of a fake one where there is
// none, and the URL of a store there.
func testRedis(t *testing.T) (addr, url string) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		addr = miniredis.RunT(t).Addr()
		return addr, "redis://" + addr + "/0?check=off"
	}
	free, err := kafkatest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free)
	addr = net.JoinHostPort("127.0.0.1", port)
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(5 * time.Minute); ; <-time.After(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr, "redis://" + addr + "/0"
		}
		if time.Now().After(end) {
			t.Fatal("redis-server does not answer")
		}
	}
}

// underLoad is an engine on Kafka and Redis in this process, which works while commands in
// other processes look at the same log and store.
type underLoad struct {
	t         *testing.T
	w         waiting
	log       string
	addr      string
	store     string
	eng       *workflow.Engine
	started   atomic.Int64
	completed atomic.Int64
}

// under runs f while the engine works, and then lets it come to rest.
func under(ctx context.Context, t *testing.T, brokers string, f func(*underLoad)) *underLoad {
	t.Helper()
	u := &underLoad{t: t, w: newWaiting()}
	u.log = "kafka://" + brokers + "/load-" + strings.ToLower(rand.Text()[:10])
	u.addr, u.store = testRedis(t)
	cfg := workflow.Config{Log: u.log + "?partitions=4&replication=1", Store: u.store, Logger: slog.New(slog.DiscardHandler), ProjectInterval: 50 * time.Millisecond}
	u.w.engine(ctx, t, cfg, func(e *workflow.Engine) {
		u.eng = e
		feeding, stop := context.WithCancel(ctx)
		var fed sync.WaitGroup
		for worker := range 4 {
			fed.Go(func() { u.feed(feeding, worker) })
		}
		u.more(ctx, 20)
		f(u)
		stop()
		fed.Wait()
		u.w.settle(ctx, t, e)
	})
	return u
}

// feed starts instances, and lets every second one end.
func (u *underLoad) feed(ctx context.Context, worker int) {
	for k := 0; ctx.Err() == nil; k++ {
		order := fmt.Sprintf("%d-%d", worker, k)
		h, err := u.w.waiters.Start(ctx, u.eng, "w-"+order, job{Order: order})
		if err != nil {
			if ctx.Err() == nil {
				u.t.Errorf("start: %v", err)
			}
			return
		}
		u.started.Add(1)
		if k%2 == 1 {
			continue
		}
		err = u.eng.Log().Publish(ctx, eventlog.Record{Topic: u.w.topic, Partition: -1, Key: []byte(order), Value: fmt.Appendf(nil, `{"order":%q}`, order)})
		if err == nil {
			_, err = h.Wait(ctx)
		}
		if err != nil {
			if ctx.Err() == nil {
				u.t.Errorf("end: %v", err)
			}
			return
		}
		u.completed.Add(1)
	}
}

// more waits until so many more have ended: the engine works on.
func (u *underLoad) more(ctx context.Context, n int64) {
	u.t.Helper()
	for want := u.completed.Load() + n; u.completed.Load() < want; {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			u.t.Fatal("the engine does not work on")
		}
	}
}

// ctl runs daggerctl on log and store.
func (u *underLoad) ctl(ctx context.Context, want int, args ...string) string {
	u.t.Helper()
	var out, errs bytes.Buffer
	args = append(args, "--log", u.log, "--store", u.store, "--progress", "none")
	if status := run(ctx, args, &out, &errs, func(string) string { return "" }); status != want {
		u.t.Fatalf("%v: status %d, want %d: %s%s", args[0], status, want, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

// TestRebuildKilledKafka rebuilds partitions in Redis while an engine works on them, in processes
// that are killed at any of their writes: who reads the store sees the old rows or the new
// ones, the engine works on, and the next rebuild goes on where that one was.
func TestRebuildKilledKafka(t *testing.T) {
	brokers := testBrokers(t)
	random := randomly(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	resumed := false
	u := under(ctx, t, brokers, func(u *underLoad) {
		stop := u.watch(ctx)
		for range 3 {
			said := killedUntilDone(ctx, t, random, 4, 16, "rebuild", "--log", u.log, "--store", "kill:"+u.store)
			resumed = resumed || strings.Contains(said, "event ")
			u.more(ctx, 5)
		}
		killedUntilDone(ctx, t, random, 2, 6, "rebuild", "--partition", "1", "--partition", "3", "--parallel", "1", "--log", u.log, "--store", "kill:"+u.store)
		u.more(ctx, 10)
		stop()
		u.ctl(ctx, statusDone, "verify")
	})
	if !resumed {
		t.Log("no rebuild was killed between building and replacing")
	}
	// Nobody works on it: the same, and into another store.
	killedUntilDone(ctx, t, random, 4, 16, "rebuild", "--log", u.log, "--store", "kill:"+u.store)
	wantWhole(ctx, t, u.log, u.store)
	other := "pebble:" + t.TempDir() + "/store"
	said := killedUntilDone(ctx, t, random, 4, 16, "copy-state", "--log", u.log, "--from", u.store, "--to", "kill:"+other)
	if !strings.Contains(said, "4 of them compared") || !strings.Contains(said, ", 0 differences") {
		t.Errorf("copy-state: %s", said)
	}
	wantWhole(ctx, t, u.log, other)
	t.Logf("%d instances started, %d completed", u.started.Load(), u.completed.Load())
}

// watch reads the lists of all partitions again and again: none is ever shorter than it was
// when the watch began, as it would be of a partition that is emptied.
func (u *underLoad) watch(ctx context.Context) (stop func()) {
	u.t.Helper()
	store, err := projection.Open(ctx, u.store, projection.Identity{App: u.eng.Log().App(), Partitions: 4})
	if err != nil {
		u.t.Fatal(err)
	}
	count := func(p int32) (int, error) {
		v, err := store.View(ctx, p)
		if err != nil {
			return 0, err
		}
		defer v.Close()
		rows, _, err := v.Scan(ctx, projection.KindListAll, nil, nil, 1<<20)
		return len(rows), err
	}
	least := [4]int{}
	for p := range least {
		if least[p], err = count(int32(p)); err != nil {
			u.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	looks := 0
	wg.Go(func() {
		for ; ctx.Err() == nil; looks++ {
			p := looks % 4
			n, err := count(int32(p))
			if ctx.Err() == nil && (err != nil || n < least[p]) {
				u.t.Errorf("partition %d lists %d instances, %v, and had %d before it was rebuilt", p, n, err, least[p])
				return
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		u.t.Logf("looked %d times at %v instances and more", looks, least)
		if err := store.Close(); err != nil {
			u.t.Error(err)
		}
	}
}

// TestVerifyKafka compares log and store while an engine works, finds a row that somebody has
// changed by hand, and a rebuild under the engine mends it.
func TestVerifyKafka(t *testing.T) {
	brokers := testBrokers(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	u := under(ctx, t, brokers, func(u *underLoad) {
		for range 3 {
			before := u.completed.Load()
			u.ctl(ctx, statusDone, "verify")
			t.Logf("verified while %d instances ended", u.completed.Load()-before)
			u.more(ctx, 5)
		}
		u.damage(ctx, "w-0-0", `"order":"0-0"`, `"order":"1-9"`)
		said := u.ctl(ctx, statusDifference, "verify")
		for _, want := range []string{`instance "w-0-0" differs`, `~ params.order: "0-0" -> "1-9"`, "differs from the log in 1 rows"} {
			if !strings.Contains(said, want) {
				t.Errorf("verify does not say %s:\n%s", want, said)
			}
		}
		t.Log(said)
		p := eventlog.PartitionOf("w-0-0", 4)
		u.ctl(ctx, statusDone, "rebuild", "--partition", fmt.Sprint(p))
		u.ctl(ctx, statusDone, "verify")
		u.more(ctx, 5)
	})
	wantWhole(ctx, t, u.log, u.store)
}

// damage changes an instance's row behind the store's back.
func (u *underLoad) damage(ctx context.Context, id, from, to string) {
	u.t.Helper()
	store, err := projection.Open(ctx, u.store, projection.Identity{App: u.eng.Log().App(), Partitions: 4})
	if err != nil {
		u.t.Fatal(err)
	}
	defer store.Close()
	v, err := store.View(ctx, eventlog.PartitionOf(id, 4))
	if err != nil {
		u.t.Fatal(err)
	}
	values, _, err := v.Get(ctx, projection.KindInstance, [][]byte{[]byte(id)})
	if err != nil || !bytes.Contains(values[0], []byte(from)) {
		u.t.Fatalf("the row of %s is %q, %v", id, values, err)
	}
	changed := append([]byte{0}, bytes.Replace(values[0], []byte(from), []byte(to), 1)...) // 0: not compressed
	c := client.NewClient(&client.Options{Addr: u.addr, DisableIdentity: true, Protocol: 2})
	defer c.Close()
	for _, key := range c.Keys(ctx, "*").Val() {
		if is, _ := c.HExists(ctx, key, id).Result(); is {
			if err := c.HSet(ctx, key, id, changed).Err(); err != nil {
				u.t.Fatal(err)
			}
			return
		}
	}
	u.t.Fatalf("no key has %s", id)
}
