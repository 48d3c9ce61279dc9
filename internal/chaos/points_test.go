package chaos

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// failpoints are the steps at which a worker can be killed, in the order of the owner's loop.
// All lie on the two contracts that the engine works through, log and store, and in user code.
var failpoints = []string{
	"own.before", "own.after", // the fence
	"append.before", "append.after", // the barrier, PartitionOwned, and each turn
	"commit.before", "commit.after", // after: before the fold and the effects
	"acquire.before", "acquire.after", // the store is taken
	"read.before", "read.after", // reads that feed a decision
	"handler.before", "handler.after", // effects have started
	"publish.before", "publish.after", // the forwarder and the relays
	"position.before", "position.after", // a relay's or a proving member's commit
	"store.before", "store.after", // the projection
}

// points does something at the nth passage of one step; its zero value never does. What it
// guards tells it of refusals.
type points struct {
	name    string
	left    atomic.Int64
	do      func()
	refused func(step string, err error) // nil: on standard error
}

// parsePoint reads "name:nth", where the process is killed, and "stop name:nth", where it is
// frozen until somebody thaws it.
func parsePoint(s string) (*points, error) {
	p := &points{}
	spec, stop := strings.CutPrefix(s, "stop ")
	name, nth, found := strings.Cut(spec, ":")
	if !found {
		return p, nil
	}
	n, err := strconv.ParseInt(nth, 10, 64)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("failpoint %q is not name:nth", s)
	}
	p.name = name
	p.left.Store(n)
	p.do = func() {
		fmt.Fprintln(os.Stderr, "failpoint", name, "kills this process")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is under way
	}
	if stop {
		p.do = func() {
			fmt.Fprintln(os.Stderr, "failpoint", name, "freezes this process")
			began := time.Now()
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			for time.Since(began) < 2*time.Second { // the signal is under way
				pause(context.Background(), 10*time.Millisecond)
			}
			fmt.Fprintln(os.Stderr, "failpoint", name, "thawed after", time.Since(began).Round(time.Second))
		}
	}
	return p, nil
}

func (p *points) at(name string) { p.met(name) }

// met says whether something was done here.
func (p *points) met(name string) bool {
	met := name == p.name && p.left.Add(-1) == 0
	if met {
		p.do()
	}
	return met
}

// through is at, before a call with ctx. What was frozen goes on with its call: nothing cancels
// it, though the process learns first that it has lost the partition.
func (p *points) through(ctx context.Context, name string) context.Context {
	if p.met(name) {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// tell tells of a refusal.
func (p *points) tell(step string, err error) {
	switch {
	case err == nil:
	case p.refused != nil:
		p.refused(step, err)
	default:
		fmt.Fprintf(os.Stderr, "refused %s: %v\n", step, err)
	}
}

// faultLog passes the points of a log.
type faultLog struct {
	eventlog.Log
	p *points
}

func (l faultLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	l.p.at("own.before")
	o, err := l.Log.Own(ctx, partition)
	l.p.at("own.after")
	if err != nil {
		return nil, err
	}
	return faultOwner{o, l.p}, nil
}

func (l faultLog) Publisher(ctx context.Context) (eventlog.Publisher, error) {
	pub, err := l.Log.Publisher(ctx)
	if err != nil {
		return nil, err
	}
	return faultPublisher{pub, l.p}, nil
}

func (l faultLog) Join(ctx context.Context, group, topic string) (eventlog.Member, error) {
	m, err := l.Log.Join(ctx, group, topic)
	if err != nil {
		return nil, err
	}
	return faultMember{m, l.p}, nil
}

type faultOwner struct {
	eventlog.Owner
	p *points
}

func (o faultOwner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (int64, error) {
	ctx = o.p.through(ctx, "append.before")
	first, err := o.Owner.Append(ctx, events, types, messages)
	o.p.tell("append", err)
	o.p.at("append.after")
	return first, err
}

func (o faultOwner) Commit(ctx context.Context) error {
	ctx = o.p.through(ctx, "commit.before")
	err := o.Owner.Commit(ctx)
	o.p.tell("commit", err)
	o.p.at("commit.after")
	return err
}

type faultPublisher struct {
	eventlog.Publisher
	p *points
}

func (f faultPublisher) Publish(ctx context.Context, records ...eventlog.Record) error {
	f.p.at("publish.before")
	err := f.Publisher.Publish(ctx, records...)
	f.p.at("publish.after")
	return err
}

type faultMember struct {
	eventlog.Member
	p *points
}

func (m faultMember) Commit(ctx context.Context, partition int32, offset int64) error {
	m.p.at("position.before")
	err := m.Member.Commit(ctx, partition, offset)
	m.p.at("position.after")
	return err
}

// faultStore passes the points of a store.
type faultStore struct {
	projection.Store
	p *points
}

func (s faultStore) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	s.p.at("acquire.before")
	part, err := s.Store.Acquire(ctx, partition, epoch)
	s.p.at("acquire.after")
	if err != nil {
		return nil, err
	}
	return faultPartition{part, s.p}, nil
}

type faultPartition struct {
	projection.Partition
	p *points
}

func (f faultPartition) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	f.p.at("read.before")
	values, at, err := f.Partition.Get(ctx, kind, keys)
	f.p.at("read.after")
	return values, at, err
}

func (f faultPartition) Apply(ctx context.Context, b projection.Batch) error {
	ctx = f.p.through(ctx, "store.before")
	err := f.Partition.Apply(ctx, b)
	f.p.tell("store", err)
	f.p.at("store.after")
	return err
}
