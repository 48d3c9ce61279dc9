package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// member stands in for a group that has committed an offset.
type fixedMember struct {
	eventlog.Member
	committed int64
}

func (m fixedMember) Committed(context.Context, int32) (int64, error) { return m.committed, nil }

func openRelay(t *testing.T, e *Engine, partition int32, committed int64) (*relayDriver, error) {
	t.Helper()
	d := &relayDriver{e: e, member: fixedMember{committed: committed}, logger: slog.Default(),
		r: &relay{app: "test", tk: TopicKey{"status", "order"}, partition: partition, partitions: 4}}
	t.Cleanup(d.close)
	_, err := d.open(t.Context())
	return d, err
}

// TestRelayStopsLoudly keeps protocol rule 18: where messages would be lost or told twice the
// relay does not go on, and says why.
func TestRelayStopsLoudly(t *testing.T) {
	log := memLog(t)
	e := newEngine(t, log)
	if err := e.Register(t.Context(), orderCode(t, 1, time.Hour)); err != nil {
		t.Fatal(err)
	}
	for k := range 5 {
		say(t, log, fmt.Sprint(k), "")
	}
	for _, c := range []struct {
		committed int64
		first     int64
	}{{-1, 0}, {0, 0}, {3, 3}} {
		d, err := openRelay(t, e, 0, c.committed)
		if err != nil {
			t.Fatalf("committed %d: %v", c.committed, err)
		}
		records, _, err := d.reader.Next(t.Context())
		if err != nil || records[0].Offset != c.first {
			t.Errorf("committed %d: %v, %v", c.committed, records, err)
		}
	}
	if d, err := openRelay(t, e, 0, 5); err != nil || d.reader == nil {
		t.Errorf("at the end: %v", err)
	}
	stopped := func(what string, partition int32, committed int64, words string) {
		t.Helper()
		if _, err := openRelay(t, e, partition, committed); !errors.Is(err, errRelayStopped) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stopped("an offset beyond the end", 0, 6, "beyond the end 5")
	stopped("a partition that is not there", 1, -1, "has no partition 1")
	if err := log.DeleteRecords(t.Context(), "status", 0, 3); err != nil {
		t.Fatal(err)
	}
	stopped("a start below the topic's", 0, -1, "messages 0 to 2 are lost")
	stopped("an offset below the topic's start", 0, 2, "messages 2 to 2 are lost")
	e.registry.recorded = map[string]*definition{} // as when the topic has another id
	stopped("a topic that was created again", 0, 3, "created again")
}

// TestRelaySaysItEachMinute has a relay that can't start.
func TestRelaySaysItEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memLog(t)
		var out lockedBuffer
		e, err := New(t.Context(), Config{Log: log, Store: memStore(t), Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Register(t.Context(), runOrders(t)); err != nil {
			t.Fatal(err)
		}
		say(t, log, "1", "")
		if err := log.DeleteRecords(t.Context(), "status", 0, 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+30*time.Second)
		defer cancel()
		if err := e.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "messages are not delivered"); n != 4 {
			t.Errorf("said %d times in three and a half minutes:\n%s", n, out.String())
		}
	})
}

// openedLog has a topic on which a transaction was left open.
type openedLog struct {
	eventlog.Log
	since atomic.Pointer[time.Time]
}

func (l *openedLog) Stable(context.Context, string, int32) (int64, time.Time, error) {
	if at := l.since.Load(); at != nil {
		return 7, *at, nil
	}
	return 7, time.Time{}, nil
}

// TestRelayBehindAnOpenTransaction: a relay that waits for messages which are there says so.
func TestRelayBehindAnOpenTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &openedLog{Log: memLog(t)}
		e, stop := runEngine(t, log, memStore(t), runOrders(t))
		time.Sleep(10 * time.Minute)
		if p := e.Problems(); len(p) > 0 {
			t.Errorf("nothing is open: %q", p)
		}
		now := time.Now()
		log.since.Store(&now)
		time.Sleep(3 * time.Minute)
		if p := e.Problems(); len(p) != 1 || !strings.HasPrefix(p[0], "the relay of topic status for order, partition 0: messages from offset 7 on wait for the end of a transaction that is open since 2000-01-01") {
			t.Errorf("problems: %q", p)
		}
		say(t, log, "1", "") // it has ended
		synctest.Wait()
		if p := e.Problems(); len(p) > 0 {
			t.Errorf("it has ended: %q", p)
		}
		stop()
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestRelayToTheDeadLetters has messages that concern nobody by mistake of theirs or of ours.
func TestRelayToTheDeadLetters(t *testing.T) {
	log, store := memLog(t), memStore(t)
	e, _ := runEngine(t, log, store, runOrders(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if a, err := startOrder(ctx, e, "a", "1"); err != nil || a.Answer != machine.OK {
		t.Fatal(a, err)
	}
	if err := log.Publish(ctx, eventlog.Record{Topic: "status", Key: []byte("k"), Value: []byte("no JSON")}); err != nil {
		t.Fatal(err)
	}
	say(t, log, "1", strings.Repeat("x", 1<<20-200)) // fits its topic, but no request
	say(t, log, "1", "ready")                        // what comes behind is not held up
	if i, err := e.Wait(ctx, "a"); err != nil || i.Status != machine.Completed {
		t.Fatalf("%+v, %v", i, err)
	}
	reader, err := log.Read(ctx, eventlog.DeadLetterTopic("test"), 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var letters []eventlog.Record
	for len(letters) < 2 {
		records, _, err := reader.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		letters = append(letters, records...)
	}
	if string(letters[0].Value) != "no JSON" || string(letters[0].Key) != "k" || len(letters[1].Value) != 0 {
		t.Errorf("dead letters of %d and %d bytes", len(letters[0].Value), len(letters[1].Value))
	}
	if h := letters[1].Headers; string(h[0].Value)[:15] != "it is too large" {
		t.Errorf("reason %q", h[0].Value)
	}
}
