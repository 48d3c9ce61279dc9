package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

func newMemLog(t *testing.T, app string, partitions int32) *embedlog.Log {
	t.Helper()
	log, err := embedlog.OpenMemory(embedlog.Options{App: app, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

func memStoreOf(t *testing.T, partitions int32) *memstore.Store {
	t.Helper()
	return memstore.New(projection.Identity{App: "test", Partitions: partitions})
}

// settledLog waits until everything that was told has been decided.
func settledLog(ctx context.Context, t *testing.T, log eventlog.Log) {
	t.Helper()
	until(t, ctx, "the log is settled", func() bool {
		r, err := audit.Log(ctx, log, audit.Options{Settled: true})
		if err != nil {
			t.Fatal(err)
		}
		return r.Violations == 0 && !r.Moved
	})
}

// TestImport moves an application with instances that wait, messages that wait for somebody,
// and buffered ones, into others with more and with fewer partitions: the auditor finds
// nothing, and everything goes on.
func TestImport(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	log := newMemLog(t, "first", 4)
	code := runOrders(t)
	hold := make(chan struct{})
	price := code.Handlers["P/price"]
	code.Handlers["P/price"] = func(ctx context.Context, a Attempt) (Outcome, error) { // some are still at their first task
		if strings.HasPrefix(a.Instance, "slow-") {
			select {
			case <-hold:
			case <-ctx.Done():
				return Outcome{}, context.Cause(ctx)
			}
		}
		return price(ctx, a)
	}
	first := memStoreOf(t, 4)
	e, stop := runEngine(t, log, first, code)
	start := func(id, order string) {
		t.Helper()
		if a, err := startOrder(ctx, e, id, order); err != nil || a.Answer != machine.OK {
			t.Fatalf("start %s: %+v, %v", id, a, err)
		}
	}
	for k := range 20 {
		start(fmt.Sprintf("i-%02d", k), fmt.Sprintf("o-%d", k%10)) // two for each message
		start(fmt.Sprintf("slow-%d", k), fmt.Sprintf("s-%d", k))
	}
	until(t, ctx, "the others wait", func() bool {
		for k := range 20 {
			i, err := e.Get(ctx, fmt.Sprintf("i-%02d", k))
			if err != nil {
				t.Fatal(err)
			}
			if x := i.Task("P/ready"); x == nil || x.Phase != machine.Waiting {
				return false
			}
		}
		return true
	})
	settledLog(ctx, t, log) // both waiters of a message are at its key
	for k := range 5 {
		say(t, log, fmt.Sprintf("o-%d", k), "first")
		say(t, log, fmt.Sprintf("s-%d", k), "early, and kept in the instance")
		say(t, log, fmt.Sprintf("u-%d", k), "for one that is not there yet")
	}
	for k := range 5 {
		for _, id := range []string{fmt.Sprintf("i-%02d", k), fmt.Sprintf("i-%02d", k+10)} {
			if i, err := e.Wait(ctx, id); err != nil || i.Status != machine.Completed {
				t.Fatalf("%s: %+v, %v", id, i, err)
			}
		}
	}
	until(t, ctx, "the early messages are there", func() bool {
		n := 0
		for k := range 5 {
			i, err := e.Get(ctx, fmt.Sprintf("slow-%d", k))
			if err != nil {
				t.Fatal(err)
			}
			n += len(i.Buffer)
		}
		return n == 5
	})
	until(t, ctx, "the relay has told of the last message", func() bool { return kept(t, first) == 5 })
	if a, err := e.Call(ctx, &eventlog.Request{Type: eventlog.StopInstance, ID: "i-09"}); err != nil || a.Answer != machine.OK {
		t.Fatalf("stop: %+v, %v", a, err)
	}
	untilAtRest(t, log, first)
	settledLog(ctx, t, log)
	stop()
	close(hold)

	for _, partitions := range []int32{7, 1} {
		var file bytes.Buffer
		if _, err := Export(ctx, log, &file, ExportOptions{AtRest: true}); err != nil {
			t.Fatal(err)
		}
		to := newMemLog(t, fmt.Sprintf("with-%d", partitions), partitions)
		for _, topic := range []string{"status", "told"} {
			if err := to.EnsureTopic(ctx, topic, 1); err != nil {
				t.Fatal(err)
			}
		}
		done, err := Import(ctx, to, bytes.NewReader(file.Bytes()), ImportOptions{Now: time.Now().UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", done)
		if r, err := audit.Log(ctx, to, audit.Options{}); err != nil || r.Violations > 0 || r.Instances != 40 {
			t.Fatalf("%+v, %v", r, err)
		}
		was, is := instancesOf(ctx, t, log), instancesOf(ctx, t, to)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(was)), slices.Sorted(maps.Keys(is))); diff != "" {
			t.Fatal(diff)
		}
		for id, a := range was {
			b := is[id]
			if a.Status != b.Status || string(a.Params) != string(b.Params) || a.Created != b.Created || len(a.Tasks) != len(b.Tasks) || len(a.Subs) != len(b.Subs) || len(a.Buffer) != len(b.Buffer) {
				t.Errorf("%s was %+v and is %+v", id, a, b)
			}
		}
		if _, err := Import(ctx, to, bytes.NewReader(file.Bytes()), ImportOptions{}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second import: %v", err)
		}
		log = to
	}

	// The last one goes on.
	store := memStoreOf(t, 1)
	e, stop = runEngine(t, log, store, runOrders(t))
	for k := 5; k < 20; k++ {
		if k < 9 {
			say(t, log, fmt.Sprintf("o-%d", k), "second")
		}
		say(t, log, fmt.Sprintf("s-%d", k), "second")
	}
	for k := range 20 {
		ids := []string{fmt.Sprintf("slow-%d", k)}
		if k >= 5 && k < 9 {
			ids = append(ids, fmt.Sprintf("i-%02d", k), fmt.Sprintf("i-%02d", k+10))
		}
		for _, id := range ids {
			i, err := e.Wait(ctx, id)
			if err != nil || i.Status != machine.Completed {
				t.Fatalf("%s: %+v, %v", id, i, err)
			}
			if k < 5 && !strings.Contains(string(i.Params), "early") {
				t.Errorf("%s did not get its own message: %s", id, i.Params)
			}
		}
	}
	start("late", "u-3")
	if i, err := e.Wait(ctx, "late"); err != nil || !strings.Contains(string(i.Params), "for one that is not there yet") {
		t.Errorf("a message that waited: %+v, %v", i, err)
	}
	settledLog(ctx, t, log)
	stop()
	if v, err := Verify(ctx, log, store, nil); err != nil || v.Differences > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestImportOne takes a single instance, as the report of a mistake would have it.
func TestImportOne(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	log := newMemLog(t, "first", 4)
	ordersDone(t, log, memStore(t))
	var file bytes.Buffer
	if _, err := Export(ctx, log, &file, ExportOptions{ID: "i-07"}); err != nil {
		t.Fatal(err)
	}
	to := newMemLog(t, "one", 2)
	done, err := Import(ctx, to, bytes.NewReader(file.Bytes()), ImportOptions{})
	if err != nil || done.Instances != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if r, err := audit.Log(ctx, to, audit.Options{}); err != nil || r.Violations > 0 || r.Instances != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	e, stop := runEngine(t, to, memStoreOf(t, 2), runOrders(t))
	say(t, to, "o-7", "mended")
	if i, err := e.Wait(ctx, "i-07"); err != nil || !strings.Contains(string(i.Params), "mended") {
		t.Errorf("%+v, %v", i, err)
	}
	stop()

	// A partition.
	file.Reset()
	p := eventlog.PartitionOf("i-07", 4)
	if _, err := Export(ctx, log, &file, ExportOptions{Partition: &p}); err != nil {
		t.Fatal(err)
	}
	part := newMemLog(t, "part", 3)
	if done, err := Import(ctx, part, bytes.NewReader(file.Bytes()), ImportOptions{}); err != nil || done.Instances < 2 || done.Instances == 30 {
		t.Fatalf("%+v, %v", done, err)
	}
	if r, err := audit.Log(ctx, part, audit.Options{}); err != nil || r.Violations > 0 {
		t.Fatalf("%+v, %v", r, err)
	}

	if _, err := Export(ctx, log, &file, ExportOptions{ID: "nobody"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	text := file.String()
	for _, bad := range []string{"", "nonsense\n", `{"event":{}}` + "\n", text[:len(text)/2], strings.Replace(text, `"v":1`, `"v":9`, 1), text + text,
		strings.Replace(text, `"seq":2`, `"seq":3`, 1), strings.Replace(text, "\n", "\n{}\x00", 1)} {
		if _, err := Import(ctx, newMemLog(t, "bad", 2), strings.NewReader(bad), ImportOptions{}); !errors.Is(err, ErrExport) {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
}

// TestImportNotAtRest refuses an application of which something is under way.
func TestImportNotAtRest(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	log := newMemLog(t, "first", 4)
	e, stop := runEngine(t, log, memStore(t), runOrders(t))
	if _, err := startOrder(ctx, e, "i-1", "o-1"); err != nil {
		t.Fatal(err)
	}
	stop()
	q := eventlog.Request{V: 1, Type: eventlog.StopInstance, ID: "i-1", Request: "r", Made: 1}
	value, err := eventlog.AppendRequest(nil, &q)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic("first"), Partition: eventlog.PartitionOf("i-1", 4), Key: []byte("i-1"), Value: value}); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := Export(ctx, log, &file, ExportOptions{AtRest: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(ctx, newMemLog(t, "to", 2), &file, ImportOptions{}); !errors.Is(err, ErrNotAtRest) {
		t.Errorf("a request that is not consumed: %v", err)
	}
	file.Reset()
	if _, err := Export(ctx, log, &file, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(ctx, newMemLog(t, "to", 2), &file, ImportOptions{}); !errors.Is(err, ErrNotAtRest) {
		t.Errorf("an export of a log that may have been in use: %v", err)
	}
}

// TestImportOnItsWay: what one partition had told another, and that had not arrived.
func TestImportOnItsWay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	log := newMemLog(t, "first", 4)
	ordersDone(t, log, memStore(t))
	var file bytes.Buffer
	if _, err := Export(ctx, log, &file, ExportOptions{AtRest: true}); err != nil {
		t.Fatal(err)
	}
	events := map[int32]int{}
	lines := bytes.SplitAfter(file.Bytes(), []byte("\n"))
	decoded := make([]exportLine, len(lines))
	for k, line := range lines {
		if len(line) > 0 {
			if err := json.Unmarshal(line, &decoded[k]); err != nil {
				t.Fatal(err)
			}
		}
		if decoded[k].Event != nil {
			events[decoded[k].Partition]++
		}
	}
	for p, n := range events {
		var cut bytes.Buffer
		had := 0
		for k, line := range lines {
			x := decoded[k]
			switch {
			case x.Event != nil && x.Partition == p:
				if had++; had > n/2 {
					continue
				}
			case x.End != nil:
				end, err := *x.End, error(nil)
				end.Events -= int64(n - n/2)
				x.End = &end
				if line, err = json.Marshal(x); err != nil {
					t.Fatal(err)
				}
			}
			cut.Write(line)
		}
		_, err := Import(ctx, newMemLog(t, "to", 2), &cut, ImportOptions{})
		if want := fmt.Sprintf("tells partition %d had not arrived", p); !errors.Is(err, ErrNotAtRest) || !strings.Contains(err.Error(), want) {
			t.Errorf("with half of the events of partition %d: %v, want %q", p, err, want)
		}
	}
}

// TestImportEndsWithItsContext: also while it reads, before it writes anything.
func TestImportEndsWithItsContext(t *testing.T) {
	log := newMemLog(t, "first", 4)
	ordersDone(t, log, memStore(t))
	var file bytes.Buffer
	if _, err := Export(t.Context(), log, &file, ExportOptions{AtRest: true}); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	to := newMemLog(t, "to", 2)
	_, err := Import(ctx, to, &cancelledReader{&file, file.Len() / 2, func() { cancel(enough) }}, ImportOptions{})
	if !errors.Is(err, enough) {
		t.Errorf("the context ended while it read: %v", err)
	}
	if err := empty(t.Context(), to); err != nil {
		t.Errorf("something was written: %v", err)
	}
}

// cancelledReader ends a context when so many bytes are left.
type cancelledReader struct {
	*bytes.Buffer
	left   int
	cancel func()
}

func (r *cancelledReader) Read(b []byte) (int, error) {
	if r.Len() <= r.left {
		r.cancel()
	}
	return r.Buffer.Read(b[:min(len(b), 512)])
}
