package chaos

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// TestFrozenWorkerIsRefusedKafka freezes two workers by SIGSTOP, one before an append and
// one between append and commit, for longer than their sessions and transactions last (in the
// long form than every time-out), while a third one takes what they own. Thawed, the append
// and the commit are refused, and the two work on.
func TestFrozenWorkerIsRefusedKafka(t *testing.T) {
	begin(t)
	t.Parallel()
	dir := t.TempDir()
	url := kafkaURL(brokers(t))
	log := openedLog(t, url)
	orders := pick(1500, 300)
	worker := func(name, fail string) (*process, string) {
		store := "pebble:" + filepath.Join(dir, "store-"+name)
		return launch(t, task{Log: url, Store: store, Dir: dir, Name: name, Serve: true, Stay: true, Fail: fail}), store
	}
	launch(t, task{
		Log: url, Store: "pebble:" + filepath.Join(dir, "store-none"), Dir: dir, Name: "feeder",
		Orders: orders, Rate: pick(25.0, 20), Feed: true, Shop: true,
	})
	a, storeA := worker("a", "stop append.before:40")
	b, storeB := worker("b", "stop commit.before:40")
	for _, w := range []*process{a, b} {
		w.says(5*time.Minute, "freezes this process")
	}
	c, storeC := worker("c", "")
	c.takesAll(log)
	for _, w := range []*process{a, b} {
		w.signal(syscall.SIGCONT)
	}
	// What was under way in other partitions may end because the worker has lost them. After the
	// long form's wait the client has given up the append by itself.
	refused := pick("did not answer in time", eventlog.ErrFenced.Error())
	t.Logf("the frozen worker's append: %s", a.says(5*time.Minute, "refused append: ", refused))
	t.Logf("the frozen worker's commit: %s", b.says(5*time.Minute, "refused commit: ", eventlog.ErrFenced.Error()))
	awaitCompleted(t, log, orders, 10*time.Minute)
	for _, w := range []*process{a, b, c} {
		w.leave(5 * time.Minute)
	}
	report := check(t, url, orders, storeA, storeB, storeC)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}

// TestFrozenWriterIsRefusedKafka freezes a worker by SIGSTOP between its reading of the log and
// its writing to a Redis that another worker shares, which takes over. Thawed, the write is
// refused, and the worker works on.
func TestFrozenWriterIsRefusedKafka(t *testing.T) {
	begin(t)
	t.Parallel()
	dir := t.TempDir()
	server := startRedis(t)
	url := kafkaURL(brokers(t))
	log := openedLog(t, url)
	orders := pick(1500, 300)
	launch(t, task{
		Log: url, Store: "pebble:" + filepath.Join(dir, "store-none"), Dir: dir, Name: "feeder",
		Orders: orders, Rate: pick(25.0, 20), Feed: true, Shop: true,
	})
	a := launch(t, task{Log: url, Store: server.url(), Dir: dir, Name: "a", Serve: true, Stay: true, Fail: "stop store.before:40"})
	a.says(5*time.Minute, "freezes this process")
	b := launch(t, task{Log: url, Store: server.url(), Dir: dir, Name: "b", Serve: true, Stay: true})
	b.takesAll(log)
	a.signal(syscall.SIGCONT)
	t.Logf("the frozen worker's write: %s", a.says(5*time.Minute, "refused store: ", projection.ErrFenced.Error()))
	awaitCompleted(t, log, orders, 10*time.Minute)
	for _, w := range []*process{a, b} {
		w.leave(5 * time.Minute)
	}
	report := check(t, url, orders, server.url())
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}

// takesAll waits until the worker works on all partitions: the frozen ones are given up by then,
// or nothing of theirs would be refused. In the long form they stay frozen longer than that.
func (p *process) takesAll(log eventlog.Log) {
	p.t.Helper()
	began := time.Now()
	if !p.until(10*time.Minute, func(p *process) bool { return p.works == int(log.Partitions()) }) {
		p.t.Fatalf("a worker did not take all partitions; it works on %d\n%s", p.works, p.tail())
	}
	p.until(pick(45*time.Second, 0)-time.Since(began), func(*process) bool { return false })
	if p.ended() {
		p.t.Fatalf("a worker ended: %v\n%s", p.err, p.tail())
	}
}

// says waits for a line with all of the texts on standard error, and returns it.
func (p *process) says(within time.Duration, texts ...string) string {
	p.t.Helper()
	found := func() (string, bool) {
		for line := range strings.Lines(p.said()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return strings.TrimSpace(line), true
			}
		}
		return "", false
	}
	for end := time.Now().Add(within); time.Now().Before(end); {
		if line, ok := found(); ok {
			return line
		}
		p.until(50*time.Millisecond, func(*process) bool { return false })
	}
	p.t.Fatalf("a worker did not say %q within %v\n%s", texts, within, p.tail())
	return ""
}

// TestFrozenWorkerIsRefusedEmbedded has two engines share a log and a store. Everything that
// the first one does at one step waits there while the second takes half of its partitions.
// Let on, its appends, its commits and its writes to the store are refused.
func TestFrozenWorkerIsRefusedEmbedded(t *testing.T) {
	begin(t)
	t.Parallel()
	for _, c := range []struct {
		step string
		want error
	}{
		{"append", eventlog.ErrFenced},
		{"commit", eventlog.ErrFenced},
		{"store", projection.ErrFenced},
	} {
		t.Run(c.step, func(t *testing.T) {
			frozen(t, c.step, c.want, "pebble:"+filepath.Join(t.TempDir(), "store"))
		})
	}
	t.Run("store on Redis", func(t *testing.T) { frozen(t, "store", projection.ErrFenced, startRedis(t).url()) })
	t.Run("store on Aerospike", func(t *testing.T) { frozen(t, "store", projection.ErrFenced, aerospikeURL(t)) })
}

func frozen(t *testing.T, step string, want error, storeURL string) {
	const orders = 200
	dir := t.TempDir()
	logURL := "file:" + filepath.Join(dir, "log")
	log := openedLog(t, logURL)
	for _, topic := range []string{orderTopic(log), statusTopic(log)} {
		if err := log.EnsureTopic(t.Context(), topic, 4); err != nil {
			t.Fatal(err)
		}
	}
	store, err := projection.Open(t.Context(), storeURL, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })

	g := newGate(step)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer g.open()
	engineOf := func(name string, log eventlog.Log, store projection.Store) (*workflow.Engine, *workflow.Definition[order]) {
		eng, err := workflow.Open(ctx, workflow.Config{
			OpenedLog: log, OpenedStore: store, Worker: name, ProjectInterval: 20 * time.Millisecond,
			ShutdownTimeout: time.Second, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { eng.Close() })
		def := load(log, &points{})
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		return eng, def
	}
	run := func(f func(context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	a, _ := engineOf("a", gatedLog{log, g}, gatedStore{store, g})
	b, def := engineOf("b", log, store)
	run(a.Run)
	run((&shop{log: log, dir: dir}).run)
	run(func(ctx context.Context) error {
		for n := range orders {
			id := orderID(n)
			if _, err := def.Start(ctx, b, instanceID(id), order{OrderID: id}); err != nil {
				return err
			}
			if n == orders/4 {
				g.close()
			}
		}
		return nil
	})
	g.await(t, g.waits)
	run(b.Run)
	g.await(t, func() bool { return len(b.Partitions()) > 0 && ready(b.Partitions()) >= int(log.Partitions())/2 })
	g.open()
	g.await(t, func() bool { return g.refused(want) > 0 })
	awaitCompleted(t, log, orders, 10*time.Minute)
	cancel()
	running.Wait()
	t.Logf("%d times %s was refused: %v", g.refused(want), step, want)
	for _, close := range []func() error{a.Close, b.Close, store.Close, log.Close} {
		if err := close(); err != nil {
			t.Error(err)
		}
	}
	check(t, logURL, orders, storeURL)
}

// gate keeps a worker at one step while it is closed, and notes what the step returned.
type gate struct {
	step string

	mu      sync.Mutex
	barrier chan struct{} // nil = open
	waiting int
	errs    []error
}

func newGate(step string) *gate { return &gate{step: step} }

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.barrier = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.barrier != nil {
		close(g.barrier)
		g.barrier = nil
	}
}

// pass waits at the step while the gate is closed; then nothing cancels it, as in a process
// that was frozen.
func (g *gate) pass(ctx context.Context, step string) context.Context {
	if step != g.step {
		return ctx
	}
	g.mu.Lock()
	barrier := g.barrier
	if barrier == nil {
		g.mu.Unlock()
		return ctx
	}
	g.waiting++
	g.mu.Unlock()
	<-barrier
	return context.WithoutCancel(ctx)
}

func (g *gate) note(step string, err error) {
	if step == g.step && err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.errs = append(g.errs, err)
	}
}

// waits says whether several partitions wait.
func (g *gate) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting >= 12
}

func (g *gate) refused(want error) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, err := range g.errs {
		if errors.Is(err, want) {
			n++
		}
	}
	return n
}

func (g *gate) await(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !holds(); {
		if time.Now().After(end) {
			g.mu.Lock()
			defer g.mu.Unlock()
			t.Fatalf("nothing came of it in time; %d wait before %s, it returned %v", g.waiting, g.step, g.errs)
		}
		pause(t.Context(), 10*time.Millisecond)
	}
}

// ready counts the partitions that an engine works on.
func ready(all []workflow.PartitionStatus) (n int) {
	for _, p := range all {
		if p.Ready {
			n++
		}
	}
	return n
}

type gatedLog struct {
	eventlog.Log
	g *gate
}

func (l gatedLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	if err != nil {
		return nil, err
	}
	return gatedOwner{o, l.g}, nil
}

type gatedOwner struct {
	eventlog.Owner
	g *gate
}

func (o gatedOwner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (int64, error) {
	first, err := o.Owner.Append(o.g.pass(ctx, "append"), events, types, messages)
	o.g.note("append", err)
	return first, err
}

func (o gatedOwner) Commit(ctx context.Context) error {
	err := o.Owner.Commit(o.g.pass(ctx, "commit"))
	o.g.note("commit", err)
	return err
}

type gatedStore struct {
	projection.Store
	g *gate
}

func (s gatedStore) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	p, err := s.Store.Acquire(ctx, partition, epoch)
	if err != nil {
		return nil, err
	}
	return gatedPartition{p, s.g}, nil
}

type gatedPartition struct {
	projection.Partition
	g *gate
}

func (p gatedPartition) Apply(ctx context.Context, b projection.Batch) error {
	err := p.Partition.Apply(p.g.pass(ctx, "store"), b)
	p.g.note("store", err)
	return err
}
