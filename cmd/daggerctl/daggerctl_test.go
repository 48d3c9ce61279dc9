package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/workflow"
)

// noLeaks is a testing.M that looks for goroutines left behind.
type noLeaks struct{ *testing.M }

func (m noLeaks) Run() int {
	status := m.M.Run()
	if err := goleak.Find(); status == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func TestMain(m *testing.M) {
	testscript.Main(noLeaks{m}, map[string]func(){
		"daggerctl": main,
		"killed":    killed,
		"fixture":   fixture,
	})
}

// The scripts work on an embedded pair that the command "fixture make" fills. "status N
// command..." runs a command that must end with the exit status N.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: status N command [arguments]")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				have := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					exit, ok := errors.AsType[*exec.ExitError](err)
					if !ok {
						ts.Fatalf("%v", err)
					}
					have = exit.ExitCode()
				}
				if have != want {
					ts.Fatalf("exit status %d, want %d", have, want)
				}
			},
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				file := ts.MkAbs(args[0])
				for end := time.Now().Add(5 * time.Minute); ; {
					if _, err := os.Stat(file); err == nil {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s does not come", file)
					}
					<-time.After(10 * time.Millisecond)
				}
			},
		},
	})
}

// fixture makes and spoils embedded pairs.
func fixture() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "make":
		err = makePair(ctx)
	case "hold":
		err = hold(ctx, os.Args[2])
	case "damage":
		err = damage(os.Args[2])
	case "spoil":
		err = spoil(ctx)
	case "rest":
		err = rest(ctx)
	case "tamper":
		err = tamper(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fixture:", err)
		os.Exit(1)
	}
}

type job struct {
	Order string `json:"order"`
	Fail  bool   `json:"fail,omitempty"`
}

type notice struct {
	Order string `json:"order"`
}

var (
	jobs = workflow.New("Job", workflow.Process("Work", workflow.Execute("do", func(_ context.Context, j *job) error {
		if j.Fail {
			return errors.New("no driver")
		}
		return nil
	})))
	waiters = waitersOn("signals")
)

func waitersOn(topic string) *workflow.Definition[job] {
	return workflow.New("Waiter", workflow.Process("Wait", workflow.Listen("signal", topic, workflow.By("order",
		func(j *job) string { return j.Order }, func(s *notice) string { return s.Order }),
		func(context.Context, *job, notice) (bool, error) { return true, nil })))
}

func engineConfig() workflow.Config {
	return workflow.Config{Log: defaultLog + "?partitions=2", Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

// withEngine runs an engine on the pair of the working directory.
func withEngine(ctx context.Context, f func(*workflow.Engine) error) error {
	e, err := workflow.Open(ctx, engineConfig())
	if err != nil {
		return err
	}
	if err := e.Register(jobs, waiters); err != nil {
		return errors.Join(err, e.Close())
	}
	life, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(life) }()
	err = f(e)
	stop()
	return errors.Join(err, <-ended, e.Close())
}

// makePair has job-1 to job-3 completed, job-4 failed, waiter-1 waiting and broken-1 in
// quarantine.
func makePair(ctx context.Context) error {
	if err := withEngine(ctx, func(e *workflow.Engine) error {
		for k := range 4 {
			h, err := jobs.Start(ctx, e, fmt.Sprintf("job-%d", k+1), job{Order: strconv.Itoa(k + 1), Fail: k == 3})
			if err != nil {
				return err
			}
			if _, err := h.Wait(ctx); (err != nil) != (k == 3) {
				return fmt.Errorf("job-%d: %v", k+1, err)
			}
		}
		_, err := waiters.Start(ctx, e, "waiter-1", job{Order: "77"})
		return err
	}); err != nil {
		return err
	}
	if err := quarantine(ctx); err != nil {
		return err
	}
	return withEngine(ctx, func(e *workflow.Engine) error { // brings the store up to date
		for {
			c, err := e.Count(ctx, workflow.Filter{})
			if err != nil || c.Total() == 6 && stored(e) == 2 {
				return err
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

// stored is how many partitions are worked on and have all in the store.
func stored(e *workflow.Engine) (n int) {
	for _, p := range e.Partitions() {
		if p.Ready && p.Stored == p.Event {
			n++
		}
	}
	return n
}

// quarantine appends what an owner would have written when a fold failed.
func quarantine(ctx context.Context) error {
	log, err := eventlog.Open(ctx, defaultLog)
	if err != nil {
		return err
	}
	defer log.Close()
	plan, err := machine.NewPlan("Broken", 1, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: []machine.Node{{Path: "P/do", Kind: eventlog.Execute}}}})
	if err != nil {
		return err
	}
	p := eventlog.PartitionOf("broken-1", log.Partitions())
	n, at, err := last(ctx, log, p)
	if err != nil {
		return err
	}
	run := n + 2
	return appendEvents(ctx, log, p,
		&eventlog.Event{V: 1, N: n + 1, At: at, Type: eventlog.PlanUsed, Plan: plan.Hash(), PlanData: plan.Recorded()},
		&eventlog.Event{V: 1, N: run, At: at, Type: eventlog.InstanceStarted, ID: "broken-1", Seq: 1, Run: run, Definition: "Broken", Plan: plan.Hash(), Params: []byte(`{}`),
			Starts: []eventlog.Start{{Path: "P/do", Kind: eventlog.Execute}}},
		&eventlog.Event{V: 1, N: n + 3, At: at, Type: eventlog.InstanceQuarantined, ID: "broken-1", Seq: 2, Run: run, Act: 1, Prev: run, Reason: "fold: planted"})
}

func last(ctx context.Context, log eventlog.Log, p int32) (n uint64, at int64, err error) {
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return 0, 0, err
	}
	err = follow(ctx, log, topic, p, 0, topic.Partitions[p].End, func(r *eventlog.Record) error {
		var ev eventlog.Event
		if err := eventlog.DecodeEvent(r.Value, &ev); err != nil {
			return err
		}
		n, at = ev.N, ev.At
		return nil
	})
	return n, at, err
}

func appendEvents(ctx context.Context, log eventlog.Log, p int32, events ...*eventlog.Event) error {
	owner, err := log.Own(ctx, p)
	if err != nil {
		return err
	}
	defer owner.Close()
	for _, ev := range events {
		if _, err := owner.Append(ctx, [][]byte{eventlog.AppendEvent(nil, ev)}, []eventlog.Type{ev.Type}, nil); err != nil {
			return err
		}
	}
	return owner.Commit(ctx)
}

// spoil appends an event that no engine would: job-1 completes again.
func spoil(ctx context.Context) error {
	log, err := eventlog.Open(ctx, defaultLog)
	if err != nil {
		return err
	}
	defer log.Close()
	p := eventlog.PartitionOf("job-1", log.Partitions())
	n, at, err := last(ctx, log, p)
	if err != nil {
		return err
	}
	return appendEvents(ctx, log, p, &eventlog.Event{V: 1, N: n + 1, At: at, Type: eventlog.InstanceCompleted, ID: "job-1", Seq: 4, Run: 3})
}

// hold keeps the pair open until it is killed.
func hold(ctx context.Context, ready string) error {
	e, err := workflow.Open(ctx, engineConfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return e.Close()
}

// tamper changes an instance in the store alone.
func tamper(ctx context.Context) (err error) {
	log, err := eventlog.Open(ctx, defaultLog)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	store, err := projection.Open(ctx, defaultStore, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p := eventlog.PartitionOf("job-2", log.Partitions())
	w, err := watermark(ctx, store, p)
	if err != nil {
		return err
	}
	part, err := store.Acquire(ctx, p, w.Epoch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, part.Close()) }()
	values, _, err := part.Get(ctx, projection.KindInstance, [][]byte{[]byte("job-2")})
	if err != nil {
		return err
	}
	value := bytes.Replace(values[0], []byte(`"status":"COMPLETED","params"`), []byte(`"status":"EXECUTING","reason":"tampered","params"`), 1)
	// A store changes with an event only: it is told of one that the log does not have.
	next := w
	next.N++
	return part.Apply(ctx, projection.Batch{Expected: w.N, New: next, Put: []projection.Row{{Kind: projection.KindInstance, Key: []byte("job-2"), Value: value}}})
}

// rest runs an engine until everything that was told has been decided.
func rest(ctx context.Context) error {
	return withEngine(ctx, func(e *workflow.Engine) error {
		// What is owed to other partitions is told a second later.
		for still, last := 0, int64(-1); ; {
			r, err := audit.Log(ctx, e.Log(), audit.Options{Settled: true})
			if err != nil {
				return err
			}
			end, err := written(ctx, e.Log())
			if err != nil {
				return err
			}
			if still++; r.Violations > 0 || r.Moved || end != last {
				still, last = 0, end
			}
			if still == 30 {
				return nil
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return r.Err()
			}
		}
	})
}

// written is how much the application's log has.
func written(ctx context.Context, log eventlog.Log) (n int64, err error) {
	for _, name := range []string{eventlog.EventsTopic(log.App()), eventlog.RequestsTopic(log.App())} {
		topic, err := log.Topic(ctx, name)
		if err != nil {
			return 0, err
		}
		for _, p := range topic.Partitions {
			n += p.End
		}
	}
	return n, nil
}
