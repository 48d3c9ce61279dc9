package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// killVar tells the command "killed", which is daggerctl, at which of its writes to logs and
// stores under kill:URL it ends by SIGKILL: an odd number of half steps is after a write, and
// before its answer.
const killVar = "DAGGERCTL_KILL"

// killed is daggerctl with the scheme kill:.
func killed() {
	at, err := strconv.ParseInt(os.Getenv(killVar), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "killed:", err)
		os.Exit(2)
	}
	k := &killer{}
	k.left.Store(at)
	eventlog.Register("kill", func(ctx context.Context, u *url.URL) (eventlog.Log, error) {
		log, err := eventlog.Open(ctx, inner(u))
		if err != nil {
			return nil, err
		}
		return killedLog{log, k}, nil
	})
	projection.Register("kill", func(ctx context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
		store, err := projection.Open(ctx, inner(u), id)
		if err != nil {
			return nil, err
		}
		return killedStore{store, k}, nil
	})
	main()
}

// inner is the URL behind kill:.
func inner(u *url.URL) string {
	if u.RawQuery == "" {
		return u.Opaque
	}
	return u.Opaque + "?" + u.RawQuery
}

// killer counts half steps.
type killer struct{ left atomic.Int64 }

func (k *killer) half() {
	if k.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing comes after it
		select {}
	}
}

// step is a write.
func (k *killer) step(write func() error) error {
	k.half()
	err := write()
	k.half()
	return err
}

type killedLog struct {
	eventlog.Log
	k *killer
}

func (l killedLog) Publish(ctx context.Context, records ...eventlog.Record) error {
	return l.k.step(func() error { return l.Log.Publish(ctx, records...) })
}

func (l killedLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return killedOwner{o, l.k}, err
}

type killedOwner struct {
	eventlog.Owner
	k *killer
}

func (o killedOwner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (first int64, err error) {
	err = o.k.step(func() error {
		first, err = o.Owner.Append(ctx, events, types, messages)
		return err
	})
	return first, err
}

func (o killedOwner) Commit(ctx context.Context) error {
	return o.k.step(func() error { return o.Owner.Commit(ctx) })
}

// killedStore is a store that builds aside.
type killedStore struct {
	projection.Store
	k *killer
}

func (s killedStore) Stage(ctx context.Context, partition int32) (projection.Staged, error) {
	g, err := s.Store.(projection.Stager).Stage(ctx, partition)
	return killedStaged{g, s.k}, err
}

type killedStaged struct {
	projection.Staged
	k *killer
}

func (g killedStaged) Apply(ctx context.Context, b projection.Batch) error {
	return g.k.step(func() error { return g.Staged.Apply(ctx, b) })
}

func (g killedStaged) Replace(ctx context.Context) error {
	return g.k.step(func() error { return g.Staged.Replace(ctx) })
}

// child runs daggerctl as a process of its own that is killed after so many half steps (0 =
// never). It returns its exit status, -1 when it was killed.
func child(ctx context.Context, t *testing.T, halves int, args ...string) (status int, said string) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = append([]string{"killed"}, append(args, "--progress", "none")...)
	cmd.Env = append(os.Environ(), killVar+"="+strconv.Itoa(halves))
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return 0, out.String()
	case ctx.Err() != nil:
		t.Fatalf("%v: %v\n%s", args, context.Cause(ctx), out.String())
	case !ended:
		t.Fatalf("%v: %v", args, err)
	case exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return -1, out.String()
	}
	return exit.ExitCode(), out.String()
}

// killedUntilDone runs daggerctl again and again, killed at a random one of the first most half
// steps, at most kills times, and at last to its end. It returns what it said then.
func killedUntilDone(ctx context.Context, t *testing.T, random *rand.Rand, kills, most int, args ...string) string {
	t.Helper()
	n := 0
	for range kills {
		halves := 1 + random.IntN(most)
		status, said := child(ctx, t, halves, args...)
		if status == 0 {
			t.Logf("%s: killed %d times, and done before half step %d", args[0], n, halves)
			return said
		}
		if n > 0 && status == statusRefused && strings.Contains(said, "has ended") {
			break
		}
		if status > 0 {
			t.Fatalf("%v: status %d after %d kills: %s", args, status, n, said)
		}
		n++
	}
	status, said := child(ctx, t, 0, args...)
	if status == statusRefused && strings.Contains(said, "has ended") { // it was killed behind its last write
		t.Logf("%s: killed %d times, and it was done", args[0], n)
		return ""
	}
	if status != 0 {
		t.Fatalf("%v: status %d after %d kills: %s", args, status, n, said)
	}
	t.Logf("%s: killed %d times, then done", args[0], n)
	return said
}

// randomly is a source whose seed is printed; SEED repeats one.
func randomly(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(strings.TrimSpace(os.Getenv("SEED")), 10, 64); err == nil {
		seed = s
	}
	t.Logf("repeat with SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
