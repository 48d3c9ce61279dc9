package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// lives is a partition whose few instances are started, stopped, deleted, forgotten and started
// again, with calls that are refused in between.
type lives struct {
	s     *machine.State
	plan  *machine.Plan
	now   int64
	calls int
	r     *rand.Rand
}

func (l *lives) Current(string) *machine.Plan { return l.plan }
func (l *lives) Plan(string) *machine.Plan    { return l.plan }

func (l *lives) turn() []*eventlog.Event {
	before := l.s.N
	t := &machine.Turn{S: l.s, Registry: l, App: "app", Now: l.now}
	for range 1 + l.r.IntN(3) {
		q := eventlog.Request{V: 1, ID: fmt.Sprintf("i%d", l.r.IntN(6)), Made: l.now}
		i := l.s.Instances[q.ID]
		switch l.r.IntN(7) {
		case 0, 1:
			q.Type, q.Definition, q.Params = eventlog.StartInstance, "Short", []byte(`{"a":1}`)
		case 2:
			q.Type = eventlog.StopInstance
		case 3:
			q.Type = eventlog.DeleteInstance
		case 4:
			q = eventlog.Request{Type: machine.Forget, ID: q.ID}
		default:
			if i == nil || len(i.Works()) == 0 {
				continue
			}
			w := i.Works()[0]
			q = eventlog.Request{V: 1, Type: eventlog.Result, ID: q.ID, Run: i.Run, Path: w.Path, Act: w.Act, Attempt: w.Attempt, OK: true, Params: []byte(`{"a":2}`)}
		}
		if q.Type.IsCall() {
			l.calls++
			q.Request = fmt.Sprint("call-", l.calls)
		}
		t.Decide(&q)
	}
	t.Close(machine.Position{TopicID: "requests", Offset: l.s.Offset + 1, Forwarded: before})
	l.now += 1 + l.r.Int64N(10)
	if l.r.IntN(40) == 0 {
		l.now += 26 * 3600_000
	}
	l.s.ForgetChanged()
	return t.Events
}

// TestWalk goes back through histories, and compares what it says of instances with a fold of the
// whole log; also where events do not say what was before them.
func TestWalk(t *testing.T) {
	for _, unchained := range []bool{false, true} {
		t.Run(fmt.Sprintf("unchained=%t", unchained), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			log, err := embedlog.OpenMemory(embedlog.Options{App: "test", Partitions: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			testWalk(t, log, rand.New(rand.NewPCG(seed, 1)), unchained, walkEvents, 4)
		})
	}
}

// fillLives appends so many events of a few instances.
func fillLives(t *testing.T, log eventlog.Log, r *rand.Rand, unchained bool, total int) (*lives, []*eventlog.Event) {
	t.Helper()
	ctx := t.Context()
	plan, err := machine.NewPlan("Short", 1, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: []machine.Node{{Path: "P/a", Kind: eventlog.Execute}, {Path: "P/b", Kind: eventlog.Execute}}}})
	if err != nil {
		t.Fatal(err)
	}
	l := &lives{s: machine.NewState(0, 1), plan: plan, now: 1_700_000_000_000, r: r}
	var events []*eventlog.Event
	owned := &eventlog.Event{V: 1, N: 1, Type: eventlog.PartitionOwned, At: l.now, Worker: "test"}
	if err := l.s.Evolve(owned); err != nil {
		t.Fatal(err)
	}
	events = append(events, owned)
	for len(events) < total {
		events = append(events, l.turn()...)
	}
	w, err := newEventWriter(ctx, log, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for k, ev := range events {
		if unchained {
			ev.Prev = 0
			if ev.Pos != nil {
				for k := range ev.Pos.Refused {
					ev.Pos.Refused[k].Prev = 0
				}
			}
		}
		if err := w.add(ctx, eventlog.AppendEvent(nil, ev), ev.Type); err != nil {
			t.Fatal(err)
		}
		if k%7 == 0 || k == len(events)-1 {
			if err := w.flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	return l, events
}

// testWalk appends so many events, and looks at one of so many points.
func testWalk(t *testing.T, log eventlog.Log, r *rand.Rand, unchained bool, total, oneOf int) {
	ctx := t.Context()
	l, events := fillLives(t, log, r, unchained, total)
	store := memstore.New(projection.Identity{App: log.App(), Partitions: 1})
	if _, err := Rebuild(ctx, log, store, RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	walked := 0
	for k := range 7 { // the last one is nobody
		id := fmt.Sprintf("i%d", k)
		if i := l.s.Instances[id]; i != nil && !unchained {
			walked += checkChain(ctx, t, pages{log, r}, events, i)
		}
		f := newFold(1, id)
		for k, ev := range events {
			if err := f.event(ev); err != nil {
				t.Fatal(err)
			}
			if r.IntN(oneOf) > 0 && (ev.ID != id || oneOf > 10) {
				continue
			}
			points := []Point{AtEvent(ev.N)}
			if k+1 == len(events) || events[k+1].At > ev.At {
				points = append(points, AtTime(time.UnixMilli(ev.At)))
			}
			want, wantErr := f.instance()
			for _, p := range points {
				checkAsOf(ctx, t, log, store, id, p, want, wantErr)
			}
		}
	}
	if walked == 0 && !unchained {
		t.Error("no instance was there at the end")
	}
}

func checkAsOf(ctx context.Context, t *testing.T, log eventlog.Log, store projection.Store, id string, p Point, want *machine.Instance, wantErr error) {
	t.Helper()
	have, plan, err := ReadInstanceAt(ctx, log, store, id, p)
	if !errors.Is(err, wantErr) || wantErr == nil && err != nil {
		t.Fatalf("%s as of %+v: %v, want %v", id, p, err, wantErr)
	}
	// What is remembered of calls may be newer, or left out.
	if diff := cmp.Diff(want, have, cmpopts.IgnoreUnexported(machine.Instance{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(machine.Mailbox{}, "Refused", "Applied", "Floor"), cmpopts.IgnoreFields(machine.Instance{}, "N")); diff != "" {
		t.Fatalf("%s as of %+v: %s", id, p, diff)
	}
	if have != nil && (plan == nil || plan.Hash() != have.Plan) {
		t.Fatalf("%s as of %+v: plan %v", id, p, plan)
	}
}

// checkChain compares the way back with the events that changed the instance.
func checkChain(ctx context.Context, t *testing.T, log eventlog.Log, events []*eventlog.Event, i *machine.Instance) int {
	t.Helper()
	var want []uint64
	for _, ev := range events {
		ids, _, _ := machine.Touches(ev)
		for _, id := range ids {
			if id == i.ID && (len(want) == 0 || want[len(want)-1] != ev.N) {
				want = append(want, ev.N)
			}
		}
	}
	s, err := newFinder(ctx, log, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := walk{s: s, hint: found{n: uint64(len(events)), offset: s.end}}
	l, ok, err := w.backwards(ctx, i.ID, i.N, 0)
	if err != nil || !ok {
		t.Fatalf("back from event %d: %t, %v", i.N, ok, err)
	}
	var have []uint64
	for _, ev := range l {
		have = append(have, ev.N)
	}
	if want = want[len(want)-len(have):]; !cmp.Equal(want, have) {
		t.Errorf("%s: %s", i.ID, cmp.Diff(want, have))
	}
	return len(have)
}

// pages is a log whose readers give few records at a time.
type pages struct {
	eventlog.Log
	r *rand.Rand
}

func (l pages) Read(ctx context.Context, topic string, partition int32, from int64, topicID string, isolation eventlog.Isolation) (eventlog.Reader, error) {
	r, err := l.Log.Read(ctx, topic, partition, from, topicID, isolation)
	return &pageReader{Reader: r, r: l.r}, err
}

type pageReader struct {
	eventlog.Reader
	r    *rand.Rand
	rest []eventlog.Record
	next int64
}

func (p *pageReader) Next(ctx context.Context) (l []eventlog.Record, next int64, err error) {
	if len(p.rest) == 0 {
		if p.rest, p.next, err = p.Reader.Next(ctx); err != nil {
			return nil, p.next, err
		}
	}
	n := min(1+p.r.IntN(20), len(p.rest))
	l, p.rest = p.rest[:n:n], p.rest[n:]
	if len(p.rest) > 0 {
		return l, p.rest[0].Offset, nil
	}
	return l, p.next, nil
}
