package chaos

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/kafkatest"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// redisServer is a real redis-server of a test.
type redisServer struct {
	t    *testing.T
	dir  string
	addr string
	args []string
	cmd  *exec.Cmd
	gone <-chan struct{} // it has ended
	log  bytes.Buffer
}

// startRedis starts redis-server on a free port in a directory of its own; it keeps nothing
// unless args say so. The test is skipped where there is none.
func startRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	return startRedisFrom(t, "", freePort(t), args...)
}

// startRedisFrom starts it from a configuration file, where one is given.
func startRedisFrom(t *testing.T, config string, port int, args ...string) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on this machine")
	}
	all := []string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1"}
	if config != "" {
		all = append([]string{config}, all...)
	} else {
		all = append(all, "--save", "")
	}
	s := &redisServer{t: t, dir: t.TempDir(), addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	s.args = append(append(all, "--dir", s.dir), args...)
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *redisServer) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	var err error
	if s.gone, err = kafkatest.StartChild(s.cmd); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Minute); ; pause(s.t.Context(), 20*time.Millisecond) {
		err := s.try("PING")
		if err == nil || client.HasErrorPrefix(err, "NOAUTH") {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("redis-server does not answer: %v\n%s", err, s.log.String())
		}
	}
}

func (s *redisServer) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
		<-s.gone
		s.cmd = nil
	}
}

func (s *redisServer) try(args ...any) error {
	c := client.NewClient(&client.Options{Addr: s.addr, DisableIdentity: true, MaxRetries: -1, Protocol: 2})
	defer c.Close()
	return c.Do(context.WithoutCancel(s.t.Context()), args...).Err()
}

// do runs a command behind the stores' backs.
func (s *redisServer) do(args ...any) {
	s.t.Helper()
	if err := s.try(args...); err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
}

// url has a short time-out: faults are many and tests short.
func (s *redisServer) url() string { return "redis://" + s.addr + "/0?timeout=2s" }

// flakyStore does what its knobs say with every call of the owners.
type flakyStore struct {
	projection.Store
	delay atomic.Int64 // ns that each Apply takes longer
	lag   atomic.Int64 // ns that each other call does
	every atomic.Int64 // of so many calls one fails; 0 = none
	down  atomic.Bool
	held  atomic.Pointer[chan struct{}] // until it is closed no Apply goes on
	calls atomic.Int64
	fails atomic.Int64
}

var errFlaky = errors.New("the store is out of order")

func (s *flakyStore) call(ctx context.Context, write bool) error {
	n := s.calls.Add(1)
	if every := s.every.Load(); s.down.Load() || every > 0 && n%every == 0 {
		s.fails.Add(1)
		return errFlaky
	}
	d := s.lag.Load()
	if write {
		d = s.delay.Load()
		if held := s.held.Load(); held != nil {
			select {
			case <-*held:
			case <-ctx.Done():
			}
		}
	}
	if d > 0 {
		pause(ctx, time.Duration(d))
	}
	return ctx.Err()
}

func (s *flakyStore) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	if err := s.call(ctx, false); err != nil {
		return nil, err
	}
	p, err := s.Store.Acquire(ctx, partition, epoch)
	if err != nil {
		return nil, err
	}
	return flakyPartition{p, s}, nil
}

func (s *flakyStore) Drop(ctx context.Context, partition int32, epoch uint64) error {
	if err := s.call(ctx, false); err != nil {
		return err
	}
	return s.Store.Drop(ctx, partition, epoch)
}

func (s *flakyStore) Partitions(ctx context.Context) ([]int32, error) {
	if s.down.Load() {
		return nil, errFlaky
	}
	return s.Store.Partitions(ctx)
}

type flakyPartition struct {
	projection.Partition
	s *flakyStore
}

func (p flakyPartition) Watermark(ctx context.Context) (projection.Watermark, error) {
	if err := p.s.call(ctx, false); err != nil {
		return projection.Watermark{}, err
	}
	return p.Partition.Watermark(ctx)
}

func (p flakyPartition) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	if err := p.s.call(ctx, false); err != nil {
		return nil, 0, err
	}
	return p.Partition.Get(ctx, kind, keys)
}

func (p flakyPartition) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	if err := p.s.call(ctx, false); err != nil {
		return nil, 0, err
	}
	return p.Partition.Scan(ctx, kind, from, to, limit)
}

// Apply fails in half of its failures after it has written: the reply is what got lost.
func (p flakyPartition) Apply(ctx context.Context, b projection.Batch) error {
	err := p.s.call(ctx, true)
	if err != nil && p.s.fails.Load()%2 == 0 && !p.s.down.Load() {
		return errors.Join(err, p.Partition.Apply(ctx, b))
	}
	if err != nil {
		return err
	}
	return p.Partition.Apply(ctx, b)
}

// storeWorld is an engine in this process on the embedded log and a store that fails.
type storeWorld struct {
	t        *testing.T
	dir      string
	logURL   string
	storeURL string
	log      eventlog.Log
	store    *flakyStore
	eng      *workflow.Engine
	def      *workflow.Definition[order]
	said     lockedBuffer
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	orders int
	acked  atomic.Int64
	heap   atomic.Uint64 // most that was seen
}

func newStoreWorld(t *testing.T, storeURL string) *storeWorld {
	t.Helper()
	w := &storeWorld{t: t, dir: t.TempDir(), storeURL: storeURL}
	w.open()
	w.awaitReady()
	return w
}

// reopen is the world started again after finish, with what is in its log and its store.
func (w *storeWorld) reopen() *storeWorld {
	w.t.Helper()
	next := &storeWorld{t: w.t, dir: w.dir, storeURL: w.storeURL, orders: w.orders}
	next.acked.Store(int64(w.orders))
	next.open()
	return next
}

// again is reopen until it is ready.
func (w *storeWorld) again() *storeWorld {
	w.t.Helper()
	next := w.reopen()
	next.awaitReady()
	return next
}

func (w *storeWorld) open() {
	t := w.t
	t.Helper()
	w.logURL = "file:" + filepath.Join(w.dir, "log") + "?partitions=4"
	w.log = openedLog(t, w.logURL)
	for _, topic := range []string{orderTopic(w.log), statusTopic(w.log)} {
		if err := w.log.EnsureTopic(t.Context(), topic, 4); err != nil {
			t.Fatal(err)
		}
	}
	store, err := projection.Open(t.Context(), w.storeURL, projection.Identity{App: w.log.App(), Partitions: w.log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w.store = &flakyStore{Store: store}
	w.eng, err = workflow.Open(t.Context(), workflow.Config{
		OpenedLog: w.log, OpenedStore: w.store, Worker: "w", ProjectInterval: 20 * time.Millisecond, TriggerInterval: 2 * time.Second,
		CacheBytes: 1 << 20, ShutdownTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(&w.said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.def = load(w.log, &points{})
	if err := w.eng.Register(w.def); err != nil {
		t.Fatal(err)
	}
	w.ctx, w.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		w.cancel()
		w.running.Wait()
	})
	w.run(w.eng.Run)
	w.run((&shop{log: w.log, dir: w.dir}).run)
	w.run(w.watchHeap)
}

func (w *storeWorld) run(f func(context.Context) error) {
	w.running.Go(func() {
		if err := f(w.ctx); err != nil && w.ctx.Err() == nil {
			w.t.Error(err)
		}
	})
}

func (w *storeWorld) watchHeap(ctx context.Context) error {
	for ctx.Err() == nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.heap.Store(max(w.heap.Load(), m.HeapAlloc))
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// feed begins to start orders, so many a second; each is repeated until it is acknowledged.
func (w *storeWorld) feed(orders int, rate float64) {
	first := w.orders
	w.orders += orders
	w.run(func(ctx context.Context) error {
		tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
		defer tick.Stop()
		slots := make(chan struct{}, 64)
		var wg sync.WaitGroup
		defer wg.Wait()
		for n := first; n < first+orders && ctx.Err() == nil; n++ {
			<-tick.C
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				for ctx.Err() == nil {
					if _, err := w.def.Start(ctx, w.eng, instanceID(orderID(n)), order{OrderID: orderID(n)}); err == nil {
						w.acked.Add(1)
						return
					}
					pause(ctx, 20*time.Millisecond)
				}
			})
		}
		return nil
	})
}

// await polls for five minutes.
func (w *storeWorld) await(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !holds(); pause(w.t.Context(), 10*time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited five minutes until %s; ready: %v; %+v\n%s", what, w.notReady(), w.eng.Partitions(), w.tail())
		}
	}
}

func (w *storeWorld) awaitAcked(more int64) {
	w.t.Helper()
	from := w.acked.Load()
	w.await("more starts are acknowledged", func() bool { return w.acked.Load() >= min(from+more, int64(w.orders)) })
}

// notReady is what /readyz says.
func (w *storeWorld) notReady() error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Second)
	defer cancel()
	return w.eng.Ready(ctx)
}

func (w *storeWorld) awaitReady() {
	w.t.Helper()
	w.await("it is ready", func() bool { return len(w.eng.Partitions()) == int(w.log.Partitions()) && w.notReady() == nil })
}

// awaitNotReady waits until readiness tells of it, with a text.
func (w *storeWorld) awaitNotReady(text string) {
	w.t.Helper()
	var last error
	w.await("readiness says "+text, func() bool {
		last = w.notReady()
		return last != nil && strings.Contains(last.Error(), text)
	})
	w.t.Logf("readiness: %.300v", last)
}

// watermarks are the events at which the partitions of the store stand.
func (w *storeWorld) watermarks() []uint64 {
	w.t.Helper()
	l := make([]uint64, w.log.Partitions())
	for p := range l {
		v, err := w.store.View(w.t.Context(), int32(p))
		if err != nil {
			w.t.Fatal(err)
		}
		m, err := v.Watermark(w.t.Context())
		if err = errors.Join(err, v.Close()); err != nil {
			w.t.Fatal(err)
		}
		l[p] = m.N
	}
	return l
}

// finish lets all orders complete and looks at what is left.
func (w *storeWorld) finish() audit.Report {
	w.t.Helper()
	awaitCompleted(w.t, w.log, w.orders, 10*time.Minute)
	w.awaitReady()
	if err := rest(w.t.Context(), w.log); err != nil {
		w.t.Fatal(err)
	}
	w.await("the store has all events", func() bool {
		for _, p := range w.eng.Partitions() {
			if p.Stored != p.Event {
				return false
			}
		}
		return true
	})
	w.end()
	report := check(w.t, w.logURL, w.orders, w.storeURL)
	w.t.Logf("%d orders, %d events, %d violations, at most %d MB of heap, %d calls of the store failed",
		w.orders, report.Events, report.Violations, w.heap.Load()>>20, w.store.fails.Load())
	if w.heap.Load() > 400<<20 {
		w.t.Errorf("%d MB of heap were used", w.heap.Load()>>20)
	}
	return report
}

// end closes everything, whatever is left to do.
func (w *storeWorld) end() {
	w.t.Helper()
	w.cancel()
	w.running.Wait()
	for _, close := range []func() error{w.eng.Close, w.store.Close, w.log.Close} {
		if err := close(); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *storeWorld) tail() string {
	text := w.said.String()
	return text[max(0, len(text)-4000):]
}

// lockedBuffer is written to by many.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
