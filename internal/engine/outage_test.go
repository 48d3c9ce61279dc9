package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// outageStore is away when it is told to be: a batch that it is given then hangs, and ends with
// an error, or is applied, when it is told that.
type outageStore struct {
	projection.Store
	mu      sync.Mutex
	away    chan struct{} // closed when it is back
	lost    error         // what batches end with that an owner has sent while it was away
	owner   uint64        // the epoch of that one
	batches []projection.Batch
}

func (s *outageStore) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = make(chan struct{})
}

func (s *outageStore) comeBack(lost error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = lost
	close(s.away)
}

func (s *outageStore) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	p, err := s.Store.Acquire(ctx, partition, epoch)
	return outagePartition{p, s}, err
}

type outagePartition struct {
	projection.Partition
	s *outageStore
}

func (p outagePartition) Apply(ctx context.Context, b projection.Batch) error {
	p.s.mu.Lock()
	away := p.s.away
	p.s.mu.Unlock()
	if away != nil {
		p.s.mu.Lock()
		p.s.owner = cmp.Or(p.s.owner, b.New.Epoch)
		p.s.mu.Unlock()
		select {
		case <-away:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.s.lost != nil && p.s.owner == b.New.Epoch {
		return p.s.lost
	}
	p.s.batches = append(p.s.batches, b)
	return p.Partition.Apply(ctx, b)
}

// TestOutageIsCaughtUpInPieces: however long the store was away, and whether the owner still has
// what it lacks or folds it again from the log, no batch has more than a bound of rows and bytes,
// each is the state at an event, and what the owner holds meanwhile is bounded too.
func TestOutageIsCaughtUpInPieces(t *testing.T) {
	const turn = turnUnits + 1 // of an engine that has one partition; and its position
	small, large := `{"a":1}`, `{"a":"`+strings.Repeat("x", 60_000)+`"}`
	for _, test := range []struct {
		name   string
		starts int
		params string
		lost   error
	}{
		{"kept", 5 * gatherRows / 2, small, nil},
		{"lost", 5 * gatherRows / 2, small, errors.New("connection reset")},
		{"kept, large", 400, large, nil},
		{"lost, large", 400, large, errors.New("connection reset")},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			store := &outageStore{Store: memstore.New(projection.Identity{App: "test", Partitions: 1})}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			e, stop := runEngine(t, log, store, waitingCode(t))
			until(t, ctx, "the owner is ready", func() bool { return len(e.Partitions()) == 1 && e.Partitions()[0].Ready })
			store.leave()
			publishStarts(t, log, test.starts, test.params)

			status := func() PartitionStatus { return e.Partitions()[0] }
			until(t, ctx, "the owner has them all, or waits for the store", func() bool {
				s := status()
				return s.Queued == 0 && s.Event > uint64(test.starts)
			})
			ahead := status()
			store.comeBack(test.lost)
			until(t, ctx, "the store has caught up", func() bool {
				s := status()
				return s.Ready && s.Stored == s.Event && s.Event >= ahead.Event
			})
			stop()
			rows, bytes, at := 0, int64(0), uint64(0)
			for _, b := range store.batches {
				if b.Expected != at {
					t.Errorf("a batch follows event %d, not %d", b.Expected, at)
				}
				at = b.New.N
				instances := 0
				for _, r := range b.Put {
					if r.Kind == projection.KindInstance {
						instances++
					}
				}
				rows, bytes = max(rows, instances), max(bytes, batchBytes(&b))
			}
			t.Logf("%d events ahead of the store; %d batches, of %d instances and %d KB at most", ahead.Event-ahead.Stored, len(store.batches), rows, bytes>>10)
			if rows > gatherRows+turn {
				t.Errorf("a batch has %d instances", rows)
			}
			if most := int64(gatherRows*gatherBytes + turnBytes + 1<<20); bytes > most {
				t.Errorf("a batch has %d bytes, more than %d", bytes, most)
			}
			v, err := Verify(ctx, log, store, nil)
			if err != nil || v.Differences > 0 || v.Instances != int64(test.starts) {
				t.Errorf("verify: %+v, %v", v, err)
			}
		})
	}
}

// waitingCode is a definition whose handler waits until it is told to end.
func waitingCode(t *testing.T) *Code {
	t.Helper()
	plan, err := machine.NewPlan("Waits", 1, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: []machine.Node{{Path: "P/t", Kind: eventlog.Execute}}}})
	if err != nil {
		t.Fatal(err)
	}
	return &Code{Plan: plan, Handlers: map[string]Handler{"P/t": func(ctx context.Context, a Attempt) (Outcome, error) {
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}}}
}

// publishStarts asks for instances, with a few large calls of the log.
func publishStarts(t *testing.T, log eventlog.Log, starts int, params string) {
	t.Helper()
	var records []eventlog.Record
	for n := range starts {
		id := fmt.Sprintf("i-%06d", n)
		r := eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: id, Made: time.Now().UnixMilli(), Definition: "Waits", Params: json.RawMessage(params)}
		value, err := eventlog.AppendRequest(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, eventlog.Record{Topic: eventlog.RequestsTopic(log.App()), Key: []byte(id), Value: value})
	}
	for some := range slices.Chunk(records, 100) {
		if err := log.Publish(t.Context(), some...); err != nil {
			t.Fatal(err)
		}
	}
}
