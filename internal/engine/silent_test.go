package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// silence keeps calls without an answer from a time on: until their contexts end.
type silence struct{ on atomic.Bool }

func (s *silence) keep(ctx context.Context) error {
	if !s.on.Load() {
		return nil
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// silentStore does not answer reads of its owner.
type silentStore struct {
	projection.Store
	silence
}

func (s *silentStore) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	p, err := s.Store.Acquire(ctx, partition, epoch)
	return silentPartition{p, s}, err
}

type silentPartition struct {
	projection.Partition
	s *silentStore
}

func (p silentPartition) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	if err := p.s.keep(ctx); err != nil {
		return nil, 0, err
	}
	return p.Partition.Get(ctx, kind, keys)
}

// silentLog does not answer commits.
type silentLog struct {
	eventlog.Log
	silence
}

func (l *silentLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return silentOwner{o, l}, err
}

type silentOwner struct {
	eventlog.Owner
	l *silentLog
}

func (o silentOwner) Commit(ctx context.Context) error {
	if err := o.l.keep(ctx); err != nil {
		return err
	}
	return o.Owner.Commit(ctx)
}

// TestHandOverThoughNothingAnswers: an owner in the middle of a turn waits for its store or log
// when it is told to end. It does not wait for ever: another worker has the partition by then.
func TestHandOverThoughNothingAnswers(t *testing.T) {
	for _, silent := range []string{"store", "log"} {
		t.Run(silent, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, store := &silentLog{Log: memLog(t)}, &silentStore{Store: memStore(t)}
				e, err := New(t.Context(), Config{Log: log, Store: store, ShutdownTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				if err != nil {
					t.Fatal(err)
				}
				if err := e.Register(t.Context(), runOrders(t)); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- e.Run(ctx) }()
				if _, err := startOrder(t.Context(), e, "{x}1", "1"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second) // the store has it
				if silent == "store" {
					store.on.Store(true)
				} else {
					log.on.Store(true)
				}
				impatient, end := context.WithTimeout(t.Context(), time.Second)
				if _, err := startOrder(impatient, e, "{x}2", "2"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a call while nothing answers: %v", err)
				}
				end()
				began := time.Now()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("Run took %v to end", took)
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestHandlerThatDoesNotEnd: a handler that goes on although its context has ended does not keep
// the partitions of a worker that is told to end; what it has done is recorded by the next owner.
func TestHandlerThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memLog(t)
		release := make(chan struct{})
		stuck := runOrders(t)
		stuck.Handlers["P/price"] = func(context.Context, Attempt) (Outcome, error) {
			<-release
			return Outcome{Patch: []byte(`{"by":"the first"}`)}, nil
		}
		var said bytes.Buffer // read when the engine has said it
		e, err := New(t.Context(), Config{Log: log, Store: memStore(t), ShutdownTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(&said, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Register(t.Context(), stuck); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		if _, err := startOrder(t.Context(), e, "i", "o"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		cancel()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if !strings.Contains(said.String(), "Run waits for them\" running=1 some=\"[i P/price]\"") {
			t.Errorf("the log does not name the handler: %s", said.String())
		}
		if n := len(e.Partitions()); n > 0 {
			t.Errorf("30 s later it still has %d partitions", n)
		}
		select {
		case <-done:
			t.Error("Run has returned while a handler runs")
		default:
		}
		next := runOrders(t)
		waits := next.Handlers["P/price"]
		next.Handlers["P/price"] = func(ctx context.Context, a Attempt) (Outcome, error) {
			select {
			case <-time.After(time.Hour):
			case <-ctx.Done():
			}
			return waits(ctx, a)
		}
		other, stop := runEngine(t, log, memStore(t), next)
		time.Sleep(time.Second)
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		say(t, log, "o", "ready")
		limit, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		if i, err := other.Wait(limit, "i"); err != nil || string(i.Params) == "" || !strings.Contains(string(i.Params), "the first") {
			t.Errorf("the instance: %+v, %v", i, err)
		}
		stop()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// deafLog acknowledges nothing that publishers send.
type deafLog struct {
	eventlog.Log
	silence
}

func (l *deafLog) Publisher(ctx context.Context) (eventlog.Publisher, error) {
	p, err := l.Log.Publisher(ctx)
	return deafPublisher{p, l}, err
}

type deafPublisher struct {
	eventlog.Publisher
	l *deafLog
}

func (p deafPublisher) Publish(ctx context.Context, records ...eventlog.Record) error {
	if err := p.l.keep(ctx); err != nil {
		return err
	}
	return p.Publisher.Publish(ctx, records...)
}

// TestUnansweredForwardsAreAProblem: what other partitions are not told, and messages that a relay
// can't deliver, stand in the problems, and no more when the log answers again.
func TestUnansweredForwardsAreAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &deafLog{Log: memLog(t)}
		e, stop := runEngine(t, log, memStore(t), runOrders(t))
		defer stop()
		time.Sleep(time.Second)
		for k := range 20 { // of which some have their keys elsewhere
			if _, err := startOrder(t.Context(), e, fmt.Sprint("i", k), fmt.Sprint("o", k)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * answerAfter)
		if p := e.Problems(); len(p) > 0 {
			t.Errorf("problems while all is well: %q", p)
		}
		log.on.Store(true)
		for k := range 20 {
			if _, err := startOrder(t.Context(), e, fmt.Sprint("j", k), fmt.Sprint("p", k)); err != nil {
				t.Fatal(err)
			}
		}
		say(t, log, "o1", "ready")
		time.Sleep(2 * answerAfter)
		all := strings.Join(e.Problems(), "\n")
		for _, part := range []string{"what partition ", "the relay of topic status for order, partition 0"} {
			if !strings.Contains(all, part) || !strings.Contains(all, errUnanswered.Error()) {
				t.Errorf("problems: %s", all)
			}
		}
	})
}

// keepingLog does not answer who deletes records.
type keepingLog struct {
	eventlog.Log
	silence
	asked atomic.Int32
}

func (l *keepingLog) DeleteRecords(ctx context.Context, topic string, partition int32, below int64) error {
	l.asked.Add(1)
	if err := l.keep(ctx); err != nil {
		return err
	}
	return l.Log.DeleteRecords(ctx, topic, partition, below)
}

// TestTrimKeepsNobodyWaiting: consumed requests that can't be deleted, since their partition has
// no leader, cost space and no more.
func TestTrimKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keepingLog{Log: memLog(t)}
		log.on.Store(true)
		e, stop := runEngine(t, log, memStore(t), runOrders(t))
		defer stop()
		time.Sleep(time.Second)
		for hour := range 2 {
			for k := range 20 { // of which some have their keys elsewhere
				ctx, cancel := context.WithTimeout(t.Context(), 2*trimTime)
				if _, err := startOrder(ctx, e, fmt.Sprint("i", hour, "-", k), fmt.Sprint("o", hour, "-", k)); err != nil {
					t.Fatalf("%d were asked to delete: %v", log.asked.Load(), err)
				}
				cancel()
			}
			time.Sleep(trimAfter + 5*time.Minute)
		}
		if log.asked.Load() == 0 {
			t.Error("nothing was to be deleted")
		}
	})
}
