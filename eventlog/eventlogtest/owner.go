package eventlogtest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

var ownerCases = []contract{
	{"owner/atomic", "Commit makes events and messages in all topics visible as one; before it nothing is.", ownerAtomic},
	{"owner/abort", "Abort drops what was appended since the last Commit; the owner goes on.", ownerAbort},
	{"owner/offsets", "Append returns the offset of the first event, also for the second Append of a transaction.", ownerOffsets},
	{"owner/headers", "Events carry the headers content-type and type.", ownerHeaders},
	{"owner/late-append", "Once another Owner exists, Append and Commit of the old one fail with ErrFenced.", lateAppend},
	{"owner/late-commit", "Nothing of a fenced owner's open transaction ever becomes visible.", lateCommit},
	{"owner/late-abort", "What a fenced owner still does harms the new one in nothing.", lateAbort},
	{"owner/barrier", "A new owner sees all that was committed before it by reading up to its barrier.", ownerBarrier},
	{"owner/refused", "RefusedError names the message; after Abort the owner goes on, and nothing of the refused transaction is visible.", ownerRefused},
	{"owner/large-event", "An event that does not fit is ErrTooLarge and nothing of the transaction becomes visible.", ownerLargeEvent},
	{"owner/dead-letter", "An owner may send to the application's dead-letter topic.", ownerDeadLetter},
	{"owner/large-transaction", "A transaction of thousands of events is one.", ownerLargeTransaction},
	{"owner/contest", "A commit that meets the Own of another is either whole and before the other's barrier, or ErrFenced and never visible.", ownerContest},
	{"owner/many", "Owners of different partitions do not disturb each other.", ownerMany},
}

func ownerAtomic(s *suite) {
	l := s.open(2)
	a, b := s.topic(l, "a", 1), s.topic(l, "b", 2)
	o := s.own(l, 1)
	_, err := o.Append(s.ctx, bodies("1", "2"), types(2), []eventlog.Record{message(a, 0, "m1"), message(b, 1, "m2")})
	s.ok(err, "append")
	_, err = o.Append(s.ctx, bodies("3"), types(1), []eventlog.Record{message(a, 0, "m3")})
	s.ok(err, "append again")
	// A reader of everything sees a record published meanwhile; one of committed records
	// sees neither what is open nor, where the log keeps order by it, what lies behind.
	s.ok(l.Publish(s.ctx, message(b, 1, "meanwhile")), "publish meanwhile")
	s.read(l, b, 1, 0, eventlog.ReadUncommitted, func(r eventlog.Record) bool { return string(r.Value) == "meanwhile" })
	s.equal(s.settled(l, b, 0), []string{}, "partition without open records")

	s.ok(o.Commit(s.ctx), "commit")
	s.equal(s.settled(l, a, 0), []string{"m1", "m3"}, "messages to a")
	got := s.settled(l, b, 1)
	if len(got) != 2 || len(withPrefix(got, "m2")) != 1 || len(withPrefix(got, "meanwhile")) != 1 {
		s.Errorf("messages to b: %q", got)
	}
	got, _ = s.events(l, 1)
	s.equal(got, eventValues("1", "2", "3"), "events")
	got, _ = s.events(l, 0)
	s.equal(got, []string{}, "events of the other partition")
}

func ownerAbort(s *suite) {
	l := s.open(1)
	a := s.topic(l, "a", 1)
	o := s.own(l, 0)
	s.commit(o, "1")
	_, err := o.Append(s.ctx, bodies("2"), types(1), []eventlog.Record{message(a, 0, "m2")})
	s.ok(err, "append")
	s.ok(o.Abort(s.ctx), "abort")
	s.ok(o.Abort(s.ctx), "abort of nothing")
	_, err = o.Append(s.ctx, bodies("3"), types(1), []eventlog.Record{message(a, 0, "m3")})
	s.ok(err, "append after abort")
	s.ok(o.Commit(s.ctx), "commit after abort")
	s.ok(o.Commit(s.ctx), "commit of nothing")
	s.equal(s.settled(l, a, 0), []string{"m3"}, "messages")
	got, _ := s.events(l, 0)
	s.equal(got, eventValues("1", "3"), "events")
}

func ownerOffsets(s *suite) {
	l := s.open(1)
	o := s.own(l, 0)
	want := map[string]int64{}
	for _, round := range [][2]string{{"a", "b"}, {"c", "d"}, {"e", "f"}} {
		want[event(round[0])] = s.append(o, round[0], "filler")
		want[event(round[1])] = s.append(o, round[1])
		if round[0] == "c" {
			s.ok(o.Abort(s.ctx), "abort")
			delete(want, event("c"))
			delete(want, event("d"))
			continue
		}
		s.ok(o.Commit(s.ctx), "commit")
	}
	got := map[string]int64{}
	for _, r := range s.readN(l, eventlog.EventsTopic(l.App()), 0, 6) {
		if string(r.Value) != event("filler") {
			got[string(r.Value)] = r.Offset
		}
	}
	s.equal(got, want, "offsets")
}

func ownerHeaders(s *suite) {
	l := s.open(1)
	o := s.own(l, 0)
	_, err := o.Append(s.ctx, bodies("x", "y"), []eventlog.Type{eventlog.TaskCompleted, eventlog.TaskFailed}, nil)
	s.ok(err, "append")
	s.ok(o.Commit(s.ctx), "commit")
	for i, r := range s.readN(l, eventlog.EventsTopic(l.App()), 0, 2) {
		want := map[string]string{"content-type": "application/json", "type": []string{"TaskCompleted", "TaskFailed"}[i]}
		got := map[string]string{}
		for _, h := range r.Headers {
			got[h.Key] = string(h.Value)
		}
		s.equal(got, want, "headers of an event")
	}
}

func lateAppend(s *suite) {
	l := s.open(1)
	a := s.topic(l, "a", 1)
	old := s.own(l, 0)
	s.commit(old, "1")
	_, o := s.events(l, 0)
	_, err := old.Append(s.ctx, bodies("late"), types(1), []eventlog.Record{message(a, 0, "late")})
	if err == nil {
		err = old.Commit(s.ctx)
	}
	s.is(err, eventlog.ErrFenced, "append and commit of the old owner")
	if err := old.Commit(s.ctx); err == nil {
		s.Error("the old owner commits after it was fenced")
	}
	s.commit(o, "2")
	s.equal(s.settled(l, a, 0), []string{}, "messages")
	got, _ := s.events(l, 0)
	s.equal(got, eventValues("1", "barrier", "2"), "events")
}

func lateCommit(s *suite) {
	l := s.open(1)
	a := s.topic(l, "a", 1)
	old := s.own(l, 0)
	_, err := old.Append(s.ctx, bodies("open"), types(1), []eventlog.Record{message(a, 0, "open")})
	s.ok(err, "append")
	before, o := s.events(l, 0)
	s.equal(before, []string{}, "events before the new owner's barrier")
	s.is(old.Commit(s.ctx), eventlog.ErrFenced, "commit of what was appended before the new Own")
	if err := old.Commit(s.ctx); err == nil {
		s.Error("the second commit of the old owner succeeds")
	}
	s.commit(o, "2")
	s.equal(s.settled(l, a, 0), []string{}, "messages")
	got, _ := s.events(l, 0)
	s.equal(got, eventValues("barrier", "2"), "events")
}

func lateAbort(s *suite) {
	l := s.open(1)
	old := s.own(l, 0)
	s.append(old, "open")
	o := s.own(l, 0)
	s.append(o, "1")
	_ = old.Abort(s.ctx) // whatever it says
	s.append(o, "2")
	s.ok(old.Close(), "close the old owner")
	s.ok(o.Commit(s.ctx), "commit of the new owner")
	got, _ := s.events(l, 0)
	s.equal(got, eventValues("1", "2"), "events")
}

func ownerBarrier(s *suite) {
	l := s.open(1)
	var want []string
	for i := range 4 {
		got, o := s.events(l, 0)
		s.equal(got, append([]string{}, want...), "events before the barrier")
		want = append(want, event("barrier"))
		for _, n := range numbered("e", i+1) {
			s.commit(o, n)
			want = append(want, event(n))
		}
		s.append(o, "left open")
	}
}

func ownerRefused(s *suite) {
	l := s.open(1)
	a := s.topic(l, "a", 1)
	limit := s.describe(l, a).MaxRecord
	o := s.own(l, 0)
	s.commit(o, "1")
	for _, c := range []struct {
		bad  eventlog.Record
		want error
	}{
		{eventlog.Record{Topic: a, Value: bytes.Repeat([]byte("x"), limit+1)}, eventlog.ErrTooLarge},
		{message(s.h.App+"-missing", -1, "x"), eventlog.ErrNoTopic},
	} {
		_, err := o.Append(s.ctx, bodies("earlier"), types(1), []eventlog.Record{message(a, 0, "earlier")})
		s.ok(err, "append")
		_, err = o.Append(s.ctx, bodies("2"), types(1), []eventlog.Record{message(a, 0, "with it"), c.bad})
		var refused *eventlog.RefusedError
		if !errors.As(err, &refused) || refused.Index != 1 || !errors.Is(err, c.want) {
			s.Fatalf("append: got error %v, want RefusedError of message 1 with %v", err, c.want)
		}
		s.ok(o.Abort(s.ctx), "abort")
		_, err = o.Append(s.ctx, bodies("2"), types(1), []eventlog.Record{message(a, 0, "good")})
		s.ok(err, "append the rest")
		s.ok(o.Commit(s.ctx), "commit the rest")
	}
	s.equal(s.settled(l, a, 0), []string{"good", "good"}, "messages")
	got, _ := s.events(l, 0)
	s.equal(got, eventValues("1", "2", "2"), "events")
}

func ownerLargeEvent(s *suite) {
	l := s.open(1)
	limit := s.describe(l, eventlog.EventsTopic(l.App())).MaxRecord
	o := s.own(l, 0)
	s.append(o, "with it")
	large := append(append([]byte(`{"x":"`), bytes.Repeat([]byte("x"), limit)...), `"}`...)
	_, err := o.Append(s.ctx, [][]byte{[]byte(event("first")), large}, types(2), nil)
	s.is(err, eventlog.ErrTooLarge, "append an event above MaxRecord")
	_ = o.Abort(s.ctx)
	_ = o.Close()
	got, _ := s.events(l, 0)
	s.equal(got, []string{}, "events")
}

func ownerDeadLetter(s *suite) {
	l := s.open(1)
	o := s.own(l, 0)
	dead := eventlog.DeadLetterTopic(l.App())
	_, err := o.Append(s.ctx, bodies("1"), types(1), []eventlog.Record{{Topic: dead, Partition: 0, Value: []byte("dead"),
		Headers: []eventlog.Header{{Key: "reason", Value: []byte("why")}}}})
	s.ok(err, "append")
	s.ok(o.Commit(s.ctx), "commit")
	got := s.readN(l, dead, 0, 1)
	s.equal(string(got[0].Value), "dead", "value")
	if len(got[0].Headers) != 1 || string(got[0].Headers[0].Value) != "why" {
		s.Errorf("headers %q", got[0].Headers)
	}
}

func ownerMany(s *suite) {
	const partitions = 4
	l := s.open(partitions)
	done := make(chan error, partitions)
	for p := range int32(partitions) {
		o := s.own(l, p)
		go func() {
			for _, n := range numbered("e", 20) {
				if _, err := o.Append(s.ctx, bodies(n), types(1), nil); err != nil {
					done <- err
					return
				}
				if err := o.Commit(s.ctx); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range partitions {
		s.ok(<-done, "append and commit")
	}
	for p := range int32(partitions) {
		got, _ := s.events(l, p)
		s.equal(got, eventValues(numbered("e", 20)...), "events")
	}
}

func ownerLargeTransaction(s *suite) {
	l := s.open(1)
	o := s.own(l, 0)
	var want []string
	first := int64(-1)
	for i := range 3 {
		names := numbered(fmt.Sprintf("part-%d-", i), 2000)
		at := s.append(o, names...)
		if first < 0 {
			first = at
		}
		s.equal(at, first+int64(2000*i), "offset of the part")
		want = append(want, eventValues(names...)...)
	}
	s.ok(o.Commit(s.ctx), "commit")
	got, _ := s.events(l, 0)
	s.equal(got, want, "events")
}

func ownerContest(s *suite) {
	l := s.open(1)
	a := s.topic(l, "a", 1)
	var want []string // events that must be there, or not be there
	var sent []string
	o := s.own(l, 0)
	for i := range 12 {
		name := fmt.Sprint("e", i)
		_, err := o.Append(s.ctx, bodies(name), types(1), []eventlog.Record{message(a, 0, name)})
		s.ok(err, "append")
		result := make(chan error, 1)
		go func(o eventlog.Owner) { result <- o.Commit(s.ctx) }(o)
		got, next := s.events(l, 0)
		err = <-result
		_ = o.Close()
		o = next
		switch {
		case err == nil:
			want = append(want, event(name))
			sent = append(sent, name)
		case !errors.Is(err, eventlog.ErrFenced):
			s.Fatalf("the old owner's commit: %v", err)
		}
		s.equal(got, append([]string{}, want...), "events before the new owner's barrier")
		want = append(want, event("barrier"))
	}
	s.equal(s.settled(l, a, 0), append([]string{}, sent...), "messages")
}
