package engine

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// waitingOwner is one in its loop, with nothing to do.
func waitingOwner() *owner {
	o := newOwner(ownerConfig{app: "app", partitions: 1, horizon: 2000, rescan: 1000, maxTurn: 100, cacheSize: 1000})
	o.st, o.cache, o.phase = machine.NewState(0, 1), newCache(), ready
	return o
}

// request is one of which nothing comes.
func request() unit { return unit{offset: -1, request: eventlog.Request{Type: eventlog.Ack}} }

// TestInboxIsBounded: what the owner has not got round to stays with the reader, which waits.
func TestInboxIsBounded(t *testing.T) {
	r := &runner{e: &Engine{cfg: Config{Now: time.Now}}, o: waitingOwner(), wake: make(chan struct{}, 1)}
	r.room = sync.NewCond(&r.mu)
	r.o.inbox = make([]unit, inboxLimit)
	r.mail.inbox = []unit{request(), request()}
	collect := func(owner, mail int) {
		t.Helper()
		if err := r.collect(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(r.o.inbox) != owner || len(r.mail.inbox) != mail {
			t.Errorf("%d requests are the owner's and %d in the mail, want %d and %d", len(r.o.inbox), len(r.mail.inbox), owner, mail)
		}
	}
	collect(inboxLimit, 2)
	r.o.inbox = r.o.inbox[:10]
	collect(12, 0)
	r.o.inboxed = inboxBytes // few, but large
	r.mail.inbox, r.mail.inboxed = []unit{request()}, 1
	collect(12, 1)
	r.o.inboxed -= inboxBytes
	for k := range r.o.inbox {
		r.o.inbox[k].size = 100
		r.o.inboxed += 100
	}
	if r.o.gather(); len(r.o.inbox) > 0 || r.o.inboxed != 0 {
		t.Errorf("of %d requests that are left %d bytes are counted", len(r.o.inbox), r.o.inboxed)
	}
	collect(1, 0)
	if r.o.inboxed != 1 {
		t.Errorf("%d bytes are counted, not 1", r.o.inboxed)
	}
}

// TestSwampedOwnerTakesNothing: while a batch is on its way to the store, no more changes than
// memory should hold.
func TestSwampedOwnerTakesNothing(t *testing.T) {
	o := waitingOwner()
	o.timers.ReadNow(0)
	o.inbox = []unit{request()}
	o.flight, o.cache.total = &projection.Batch{}, swampedBytes
	if op, idle := o.loop().(opIdle); !idle || op.until != ackDelay || len(o.inbox) != 1 {
		t.Errorf("a swamped owner is idle: %v, until %d, and leaves %d requests", idle, op.until, len(o.inbox))
	}
	o.applied(nil)
	if o.loop(); len(o.inbox) != 0 {
		t.Errorf("%d requests are left when the store has answered", len(o.inbox))
	}
}

// TestFullOutboxTakesNothing: while the inboxes of others take nothing, memory does not fill with
// what they should be told.
func TestFullOutboxTakesNothing(t *testing.T) {
	o := waitingOwner()
	o.timers.ReadNow(0)
	o.inbox = []unit{request()}
	for n := range uint64(swampedOutbox) {
		o.outbox = append(o.outbox, told{n: n + 1})
	}
	if _, idle := o.loop().(opIdle); !idle || len(o.inbox) != 1 {
		t.Errorf("with a full outbox it is idle: %v, and leaves %d requests", idle, len(o.inbox))
	}
	o.forwarded(1)
	if o.loop(); len(o.inbox) != 0 {
		t.Errorf("%d requests are left when something was taken", len(o.inbox))
	}
}

// TestWorkBetweenTwoLooks: a look at the due index that takes longer than the time between two
// of them does not keep the owner from its work.
func TestWorkBetweenTwoLooks(t *testing.T) {
	o := waitingOwner()
	o.inbox = []unit{request()}
	if _, look := o.loop().(opIndex); !look {
		t.Fatal("the owner does not look at the due index")
	}
	o.step(5000, result{at: o.mark.N})
	if len(o.inbox) != 0 {
		t.Error("the owner looks again and leaves its work")
	}
}

// TestLeavingOwnerBeginsNothing: it records what handlers have done, and leaves the rest.
func TestLeavingOwnerBeginsNothing(t *testing.T) {
	o := waitingOwner()
	o.leaving = true
	o.inbox, o.calls, o.results = []unit{request()}, []unit{request()}, []unit{request(), request()}
	if o.gather(); len(o.queue) != 2 || len(o.inbox) != 1 || len(o.calls) != 1 {
		t.Errorf("it takes %d units and leaves %d requests and %d calls", len(o.queue), len(o.inbox), len(o.calls))
	}
}
