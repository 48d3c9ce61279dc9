package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "github.com/godagger/dagger/backends/all"
	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// workerVar makes the test binary a worker, the process that is killed. Its value is a task
// as JSON.
const workerVar = "DAGGER_CHAOS_WORKER"

// task is what a worker does. It ends when its standard input ends, or when it has seen
// Orders instances completed.
type task struct {
	Log, Store string
	Dir        string  // the positions of the shop, and which starts were acknowledged
	Name       string  // of the worker
	Orders     int     // to feed, and to wait for
	Rate       float64 // orders a second
	Serve      bool    // run instances
	Feed       bool    // start orders
	Shop       bool    // answer them
	Stay       bool    // do not end when all are completed
	Fail       string  // where to be killed: "name:nth"
}

func workerMain() int {
	var t task
	if err := json.Unmarshal([]byte(os.Getenv(workerVar)), &t); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 2
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := t.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

// say tells the test how far things are, a line for each.
func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (t *task) run(ctx context.Context) (err error) {
	p, err := parsePoint(t.Fail)
	if err != nil {
		return err
	}
	log, err := openLog(ctx, t.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	for _, topic := range []string{orderTopic(log), statusTopic(log)} {
		if err := log.EnsureTopic(ctx, topic, 4); err != nil {
			return err
		}
	}
	store, err := projection.Open(ctx, t.Store, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	eng, err := workflow.Open(ctx, workflow.Config{
		OpenedLog: faultLog{log, p}, OpenedStore: faultStore{store, p}, Worker: t.Name, ProjectInterval: 50 * time.Millisecond,
		TriggerInterval: 5 * time.Second, ShutdownTimeout: 2 * time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	def := load(log, p)
	if err := eng.Register(def); err != nil {
		return err
	}
	return t.work(ctx, eng, def, log)
}

// openLog opens a log; a broker that is just being started again answers late.
func openLog(ctx context.Context, url string) (eventlog.Log, error) {
	for {
		openCtx, cancel := context.WithTimeout(ctx, 15*time.Second)
		log, err := eventlog.Open(openCtx, url)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, eventlog.ErrSettings) || errors.Is(err, eventlog.ErrPartitions) {
			return log, err
		}
		fmt.Fprintln(os.Stderr, "worker: open log:", err)
		pause(ctx, 200*time.Millisecond)
	}
}

// work does what the task says until all is done or ctx ends.
func (t *task) work(ctx context.Context, eng *workflow.Engine, def *workflow.Definition[order], log eventlog.Log) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	until := func(f func(context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	if t.Serve {
		until(eng.Run)
	}
	if t.Shop {
		until((&shop{log: log, dir: t.Dir}).run)
	}
	if t.Feed {
		until(func(ctx context.Context) error { return t.feed(ctx, eng, def) })
	}
	say("running")
	if t.Serve {
		until(func(ctx context.Context) error { return t.watch(ctx, eng, log, cancel) })
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, errAllCompleted) {
		return cause
	}
	return nil
}

var errAllCompleted = errors.New("all orders are completed")

// watch tells how many orders are completed, and ends everything when all are.
func (t *task) watch(ctx context.Context, eng *workflow.Engine, log eventlog.Log, end context.CancelCauseFunc) error {
	told, works := int64(-1), -1
	for ctx.Err() == nil {
		if n := ready(eng.Partitions()); n != works {
			works = n
			say("works on %d", works)
		}
		counts, err := eng.Count(ctx, workflow.Filter{})
		// The other worker's store has what is missing: each tells what it can count.
		if _, elsewhere := errors.AsType[*workflow.ElsewhereError](err); err != nil && !elsewhere {
			// Without a broker nobody knows who owns what this worker had to give up.
			fmt.Fprintln(os.Stderr, "worker: count:", err)
			pause(ctx, 200*time.Millisecond)
			continue
		}
		completed := int64(0)
		for _, byStatus := range counts.Of {
			completed += byStatus[workflow.Completed]
		}
		if completed != told {
			told = completed
			say("completed %d", completed)
		}
		if !t.Stay && completed >= int64(t.Orders) {
			say("all completed")
			if err := rest(ctx, log); err != nil {
				return err
			}
			end(errAllCompleted)
		}
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// feed starts the orders whose start nobody acknowledged yet, at the rate asked for. What was
// acknowledged is never started again: it must not be lost.
func (t *task) feed(ctx context.Context, eng *workflow.Engine, def *workflow.Definition[order]) error {
	name := filepath.Join(t.Dir, "acknowledged")
	acknowledged := map[string]bool{}
	if f, err := os.Open(name); err == nil {
		for lines := bufio.NewScanner(f); lines.Scan(); {
			acknowledged[lines.Text()] = true
		}
		f.Close()
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	tick := time.NewTicker(time.Duration(float64(time.Second) / t.Rate))
	defer tick.Stop()
	slots := make(chan struct{}, 64)
	var wg sync.WaitGroup
	defer wg.Wait()
	for n := range t.Orders {
		id := orderID(n)
		if acknowledged[id] {
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for {
				_, err := def.Start(ctx, eng, instanceID(id), order{OrderID: id})
				if err == nil {
					break
				}
				fmt.Fprintf(os.Stderr, "worker: start %s: %v\n", id, err)
				if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
					return
				}
			}
			if _, err := file.WriteString(id + "\n"); err != nil { // one write: whole or not at all
				fmt.Fprintln(os.Stderr, "worker:", err)
			}
			say("acknowledged %s", id)
		})
	}
	return nil
}
