package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// runEngine runs an engine with the code registered until the test ends or stop is called.
func runEngine(t *testing.T, log eventlog.Log, store projection.Store, codes ...*Code) (e *Engine, stop func()) {
	t.Helper()
	e, err := New(t.Context(), Config{Log: log, Store: store, ProjectInterval: 5 * time.Millisecond, ShutdownTimeout: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(t.Context(), codes...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(stop)
	until(t, t.Context(), "the engine runs", e.Running)
	return e, stop
}

// runOrders is orderCode with handlers.
func runOrders(t *testing.T) *Code {
	c := orderCode(t, 1, time.Hour)
	nothing := func(context.Context, Attempt) (Outcome, error) { return Outcome{}, nil }
	c.Handlers = map[string]Handler{
		"P/price": nothing,
		"P/ready": func(_ context.Context, a Attempt) (Outcome, error) {
			var m struct{ Note string }
			if err := json.Unmarshal(a.Message.Value, &m); err != nil {
				return Outcome{}, err
			}
			return Outcome{Patch: json.RawMessage(fmt.Sprintf(`{"note":%q}`, m.Note))}, nil
		},
		"P/tell": func(_ context.Context, a Attempt) (Outcome, error) {
			return Outcome{Record: &eventlog.Record{Topic: "told", Partition: -1, Key: []byte(a.Instance), Value: a.Params}}, nil
		},
	}
	return c
}

func startOrder(ctx context.Context, e *Engine, id, order string) (Answer, error) {
	return e.Call(ctx, &eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "Order", Params: json.RawMessage(fmt.Sprintf(`{"order":%q}`, order))})
}

func say(t *testing.T, log eventlog.Log, order, note string) {
	t.Helper()
	if err := log.Publish(t.Context(), eventlog.Record{Topic: "status", Partition: -1, Value: []byte(fmt.Sprintf(`{"order":%q,"note":%q}`, order, note))}); err != nil {
		t.Fatal(err)
	}
}

// TestOrdersOverTwoEngines has two engines share the partitions: calls, reads and waits go to
// an owner in the engine that is asked, or to the other one through the log. Messages come
// before and after somebody waits for them, twice, and for nobody.
func TestOrdersOverTwoEngines(t *testing.T) { ordersOverTwoEngines(t, memLog(t), memStore(t)) }

func ordersOverTwoEngines(t *testing.T, log eventlog.Log, store projection.Store) {
	code := runOrders(t)
	one, _ := runEngine(t, log, store, code)
	two, _ := runEngine(t, log, store, code)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	before, err := log.Topic(ctx, "told")
	if err != nil {
		t.Fatal(err)
	}
	shared := func() bool { // each has some partitions
		for _, e := range []*Engine{one, two} {
			n := 0
			for p := range log.Partitions() {
				if e.runner(p) != nil {
					n++
				}
			}
			if n != 2 {
				return false
			}
		}
		return true
	}
	until(t, ctx, "the partitions are shared", shared)

	var wg sync.WaitGroup
	for k := range 40 {
		wg.Go(func() {
			id, order := fmt.Sprintf("i-%d", k), fmt.Sprintf("o-%d", k)
			if k%3 == 0 {
				say(t, log, order, "early")
			}
			from := []*Engine{one, two}[k%2]
			a, err := startOrder(ctx, from, id, order)
			if err != nil || a.Answer != machine.OK || a.Run == 0 {
				t.Errorf("start %s: %+v, %v", id, a, err)
				return
			}
			for _, e := range []*Engine{one, two} { // a second Start is refused, whoever is asked
				if a, err := startOrder(ctx, e, id, order); err != nil || a.Answer != machine.Exists {
					t.Errorf("start %s again: %+v, %v", id, a, err)
				}
			}
			if i, err := from.Get(ctx, id); err != nil || i.ID != id || i.Run != a.Run {
				t.Errorf("get %s: %+v, %v", id, i, err)
			}
			if k%3 != 0 {
				say(t, log, order, "late")
				say(t, log, order, "twice")
			}
			for _, e := range []*Engine{two, one} {
				i, err := e.Wait(ctx, id)
				if err != nil || i.Status != machine.Completed {
					t.Errorf("wait for %s: %+v, %v", id, i, err)
				}
			}
		})
	}
	say(t, log, "nobody", "lost")
	wg.Wait()

	if _, err := one.Get(ctx, "unknown"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of an unknown id: %v", err)
	}
	if _, err := two.Get(ctx, "unknown"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of an unknown id: %v", err)
	}
	var types []eventlog.Type
	last := uint64(0)
	for ev, err := range two.Events(ctx, "i-7") {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Seq > 0 && ev.Seq != last+1 {
			t.Errorf("seq %d after %d", ev.Seq, last)
		}
		last = max(last, ev.Seq)
		types = append(types, ev.Type)
	}
	if len(types) == 0 || types[0] != eventlog.InstanceStarted || types[len(types)-1] != eventlog.InstanceCompleted {
		t.Errorf("events of i-7: %v", types)
	}
	told, err := log.Topic(ctx, "told")
	sent := 0
	for r, err := range recordsOf(ctx, log, "told", before.Partitions[0].End, told.Partitions[0].End) {
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Key) > 0 {
			sent++
		}
	}
	if err != nil || sent != 40 {
		t.Errorf("%d messages were sent, %v", sent, err)
	}
	// The whole is in the store, and the store is what the log says.
	atLeast := map[int32]uint64{}
	for p := range log.Partitions() {
		for _, e := range []*Engine{one, two} {
			if r := e.runner(p); r != nil {
				atLeast[p] = 1
			}
		}
	}
	until(t, ctx, "the store has all orders", func() bool {
		n, _, err := one.Count(ctx, Filter{Definition: "Order", Status: string(machine.Completed), AtLeast: atLeast})
		if err != nil {
			t.Fatal(err)
		}
		return n["Order/COMPLETED"] == 40
	})
}

// recordsOf reads committed records of a topic's first partition.
func recordsOf(ctx context.Context, log eventlog.Log, topic string, from, end int64) iter.Seq2[eventlog.Record, error] {
	return func(yield func(eventlog.Record, error) bool) {
		reader, err := log.Read(ctx, topic, 0, from, "", eventlog.ReadCommitted)
		if err != nil {
			yield(eventlog.Record{}, err)
			return
		}
		defer reader.Close()
		for from < end {
			var records []eventlog.Record
			if records, from, err = reader.Next(ctx); err != nil {
				yield(eventlog.Record{}, err)
				return
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// until polls for something that other goroutines bring about.
func until(t *testing.T, ctx context.Context, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, ctx.Err())
		}
	}
}

// TestCallThroughTheLog asks an engine that owns nothing, as one does whose partitions are
// all elsewhere.
func TestCallThroughTheLog(t *testing.T) {
	log, store := memLog(t), memStore(t)
	code := runOrders(t)
	owner, _ := runEngine(t, log, store, code)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	until(t, ctx, "the owner has all partitions", func() bool {
		for p := range log.Partitions() {
			if owner.runner(p) == nil {
				return false
			}
		}
		return true
	})
	other := newEngine(t, log)
	other.state = isRunning // without partitions
	defer func() { other.state = notRunning }()

	r := &eventlog.Request{Type: eventlog.StartInstance, ID: "a", Definition: "Order", Params: json.RawMessage(`{"order":"1"}`)}
	a, err := other.Call(ctx, r)
	if err != nil || a.Answer != machine.OK {
		t.Fatalf("start: %+v, %v", a, err)
	}
	// The same call again is decided once and answered alike, though no event says so again.
	b, err := other.Call(ctx, r)
	if err != nil || b != a {
		t.Errorf("the same start again: %+v, %v; first %+v", b, err, a)
	}
	refused := &eventlog.Request{Type: eventlog.RetryInstance, ID: "a"}
	for range 2 {
		if a, err := other.Call(ctx, refused); err != nil || a.Answer != machine.NotFailed {
			t.Errorf("retry: %+v, %v", a, err)
		}
	}
	// One that was made so long ago that nobody remembers, and one from the future.
	for made, want := range map[time.Duration]string{-25 * time.Hour: machine.Expired, time.Hour: machine.Ahead} {
		old := &eventlog.Request{Type: eventlog.StopInstance, ID: "a", Made: time.Now().Add(made).UnixMilli()}
		if a, err := other.Call(ctx, old); err != nil || a.Answer != want {
			t.Errorf("call made %s: %+v, %v, want %s", made, a, err, want)
		}
	}
	stop := &eventlog.Request{Type: eventlog.StopInstance, ID: "a", Reason: "enough"}
	waited := make(chan *machine.Instance, 1)
	go func() {
		i, err := other.Wait(ctx, "a")
		if err != nil {
			t.Errorf("wait: %v", err)
		}
		waited <- i
	}()
	if a, err := other.Call(ctx, stop); err != nil || a.Answer != machine.OK {
		t.Errorf("stop: %+v, %v", a, err)
	}
	if i := <-waited; i == nil || i.Status != machine.Stopped || i.Reason != "enough" {
		t.Errorf("stopped: %+v", i)
	}
	mine, err := owner.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	x, y := encodeRow(mine), encodeRow(theirs)
	if string(x) != string(y) {
		t.Errorf("the owner has\n%s\nthe log says\n%s", x, y)
	}
}

func TestCallWithoutRun(t *testing.T) {
	log, store := memLog(t), memStore(t)
	idle := newEngine(t, log)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := &eventlog.Request{Type: eventlog.StartInstance, ID: "a", Definition: "Order", Params: json.RawMessage(`{"order":"1"}`)}
	if a, err := idle.Call(ctx, r); err != nil || a != (Answer{}) {
		t.Fatalf("call: %+v, %v", a, err)
	}
	if r.Request == "" || r.Made == 0 {
		t.Errorf("request is not filled: %+v", r)
	}
	if _, err := idle.Get(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get before anybody decided: %v", err)
	}
	e, _ := runEngine(t, log, store, runOrders(t))
	until(t, ctx, "the request is decided", func() bool {
		i, err := e.Get(ctx, "a")
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		return i != nil
	})
	if i, err := idle.Get(ctx, "a"); err != nil || i.ID != "a" {
		t.Errorf("get by an engine that does not run: %+v, %v", i, err)
	}
	for _, bad := range []*eventlog.Request{
		{Type: eventlog.Result, ID: "a"}, {Type: eventlog.StopInstance}, {Type: eventlog.StopInstance, ID: "a\n"}, {Type: eventlog.StopInstance, ID: "a", Request: "\x00"},
	} {
		if _, err := idle.Call(ctx, bad); err == nil {
			t.Errorf("call %+v was taken", bad)
		}
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Call(ctx, r); !errors.Is(err, ErrClosed) {
		t.Errorf("call after Close: %v", err)
	}
}

// TestWaitsEnd has more waits than calls may queue; those whose callers go are forgotten.
func TestWaitsEnd(t *testing.T) {
	log := memLog(t)
	e, stop := runEngine(t, log, memStore(t), runOrders(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if a, err := startOrder(ctx, e, "a", "1"); err != nil || a.Answer != machine.OK {
		t.Fatal(a, err)
	}
	until(t, ctx, "the partition is here", func() bool { return e.runner(eventlog.PartitionOf("a", 4)) != nil })
	r := e.runner(eventlog.PartitionOf("a", 4))
	const waits = busyUnits + 100
	calls := make([]unit, waits)
	for k := range calls { // as Wait does, without a goroutine for each
		calls[k] = unit{request: eventlog.Request{ID: "a"}, offset: -1, read: true, wait: true, token: newCall()}
		if !r.submit(calls[k]) {
			t.Fatal("the partition has moved")
		}
	}
	get := func() {
		t.Helper()
		if _, err := e.Get(ctx, "a"); err != nil {
			t.Fatalf("get while many wait: %v", err)
		}
	}
	get()
	for k := range calls {
		r.leave(calls[k])
	}
	soon, gone := context.WithCancel(ctx)
	gone()
	if _, err := e.Wait(soon, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	get() // it is decided behind the leaving
	for k := range calls {
		select {
		case x := <-calls[k].token.(*call).done:
			t.Fatalf("a wait was answered: %+v", x)
		default:
		}
	}
	stop()
	if n := len(r.o.waiters); n > 0 {
		t.Errorf("waits for %d instances are left", n)
	}
}
