package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
)

var readCases = []contract{
	{"read/go-on", "A later reader goes on from the offset that Next returned, without a gap or a double.", readGoOn},
	{"read/wait", "Next waits until there is something.", readWait},
	{"read/cancel", "Cancelling the context ends Next with its cause; the reader can go on.", readCancel},
	{"read/close", "Close of the reader, and of the log, ends a waiting Next with ErrClosed.", readClose},
	{"read/bulk", "A long partition is read completely and in order.", readBulk},
	{"read/owned-by-caller", "Readers own what Next gave them: changing it changes nothing for others.", readOwned},
	{"read/offset-gone", "Below the first record: ErrOffsetGone.", readOffsetGone},
	{"read/no-topic", "Reading a topic that does not exist is ErrNoTopic.", readNoTopic},
	{"read/recreated", "With the id of a topic that was deleted and created again: ErrTopicChanged, never a silent reset.", readRecreated},
	{"read/offset-at", "OffsetAt is the first offset of each partition whose record is not older; the end where there is none.", readOffsetAt},
}

func readGoOn(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "go-on", 1)
	want := numbered("v", 30)
	for _, v := range want {
		s.ok(l.Publish(s.ctx, message(topic, 0, v)), "publish")
	}
	var got []string
	next := int64(0)
	for len(got) < len(want) {
		r, err := l.Read(s.ctx, topic, 0, next, "", eventlog.ReadCommitted)
		s.ok(err, "read")
		records, n, err := r.Next(s.ctx)
		s.ok(err, "next")
		s.ok(r.Close(), "close reader")
		if n < next || len(records) > 0 && n <= records[len(records)-1].Offset {
			s.Fatalf("next went from %d to %d with %d records", next, n, len(records))
		}
		next = n
		got = append(got, values(records)...)
		if len(records) > 1 { // go on from within what was read
			next = records[0].Offset + 1
			got = got[:len(got)-len(records)+1]
		}
	}
	s.equal(got, want, "values")
}

func readWait(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "wait", 1)
	got := make(chan string, 1)
	started := make(chan struct{})
	go func() {
		defer close(got)
		r, err := l.Read(s.ctx, topic, 0, 0, "", eventlog.ReadCommitted)
		close(started)
		if err != nil {
			s.Errorf("read: %v", err)
			return
		}
		defer r.Close()
		for {
			records, _, err := r.Next(s.ctx)
			if err != nil {
				s.Errorf("next: %v", err)
				return
			}
			if len(records) > 0 {
				got <- string(records[0].Value)
				return
			}
		}
	}()
	<-started
	s.ok(l.Publish(s.ctx, message(topic, 0, "here")), "publish")
	s.equal(<-got, "here", "value")
}

// next calls Next until it gives records or an error.
func (s *suite) next(ctx context.Context, r eventlog.Reader) ([]eventlog.Record, error) {
	for {
		records, _, err := r.Next(ctx)
		if err != nil || len(records) > 0 {
			return records, err
		}
	}
}

func readCancel(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "cancel", 1)
	r, err := l.Read(s.ctx, topic, 0, 0, "", eventlog.ReadCommitted)
	s.ok(err, "read")
	defer r.Close()
	cause := errors.New("the suite's cause")
	ctx, cancel := context.WithCancelCause(s.ctx)
	result := make(chan error, 1)
	go func() { _, err := s.next(ctx, r); result <- err }()
	cancel(cause)
	s.is(<-result, cause, "a cancelled Next")
	s.ok(l.Publish(s.ctx, message(topic, 0, "after")), "publish")
	records, err := s.next(s.ctx, r)
	s.ok(err, "next after a cancelled one")
	s.equal(values(records), []string{"after"}, "values")
	// Calls with a context that has ended do nothing.
	for what, call := range map[string]func() error{
		"Publish": func() error { return l.Publish(ctx, message(topic, 0, "x")) },
		"Own":     func() error { _, err := l.Own(ctx, 0); return err },
		"Topic":   func() error { _, err := l.Topic(ctx, topic); return err },
	} {
		s.is(call(), cause, what)
	}
}

func readClose(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "close", 1)
	result := make(chan error, 2)
	r, err := l.Read(s.ctx, topic, 0, 0, "", eventlog.ReadCommitted)
	s.ok(err, "read")
	go func() { _, err := s.next(s.ctx, r); result <- err }()
	s.ok(r.Close(), "close reader")
	s.is(<-result, eventlog.ErrClosed, "Next of a closed reader")

	if r, err = l.Read(s.ctx, topic, 0, 0, "", eventlog.ReadCommitted); err != nil {
		s.Fatal(err)
	}
	m, err := l.Join(s.ctx, s.h.App+"-close", topic)
	s.ok(err, "join")
	go func() { _, err := s.next(s.ctx, r); result <- err }()
	go func() {
		for {
			if _, err := m.Assigned(s.ctx); err != nil {
				result <- err
				return
			}
		}
	}()
	s.ok(l.Close(), "close the log")
	s.is(<-result, eventlog.ErrClosed, "a call that waits when the log is closed")
	s.is(<-result, eventlog.ErrClosed, "a call that waits when the log is closed")
	s.is(l.Publish(s.ctx, message(topic, 0, "x")), eventlog.ErrClosed, "Publish after Close")
	if _, err := l.Own(s.ctx, 0); !errors.Is(err, eventlog.ErrClosed) {
		s.Errorf("Own after Close: %v", err)
	}
}

func readBulk(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "bulk", 1)
	const calls, size = 20, 700
	want := numbered("value-of-some-length-", calls*size)
	for i := range calls {
		var records []eventlog.Record
		for _, v := range want[i*size : (i+1)*size] {
			records = append(records, message(topic, 0, v))
		}
		s.ok(l.Publish(s.ctx, records...), "publish")
	}
	s.equal(values(s.readN(l, topic, 0, len(want))), want, "values")
}

func readOwned(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "owned", 1)
	s.ok(l.Publish(s.ctx, eventlog.Record{Topic: topic, Key: []byte("key"), Value: []byte("value"), Headers: []eventlog.Header{{Key: "h", Value: []byte("v")}}}), "publish")
	for range 3 {
		r := s.readN(l, topic, 0, 1)[0]
		s.equal([]string{string(r.Key), string(r.Value), string(r.Headers[0].Value)}, []string{"key", "value", "v"}, "record")
		clear(r.Key)
		clear(r.Value)
		clear(r.Headers[0].Value)
		clear(r.Headers)
	}
}

// readErr is the error of Read, or of the first Next.
func (s *suite) readErr(l eventlog.Log, topic string, from int64, id string) error {
	r, err := l.Read(s.ctx, topic, 0, from, id, eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = s.next(s.ctx, r)
	return err
}

func readOffsetGone(s *suite) {
	if s.h.Features.NoDeleteRecords {
		s.Skip("the driver can't delete records")
	}
	l := s.open(1)
	topic := s.topic(l, "gone", 1)
	for _, v := range numbered("v", 5) {
		s.ok(l.Publish(s.ctx, message(topic, 0, v)), "publish")
	}
	three := s.readN(l, topic, 0, 5)[3].Offset
	s.ok(l.DeleteRecords(s.ctx, topic, 0, three), "delete records")
	s.equal(s.describe(l, topic).Partitions[0].Start, three, "start after DeleteRecords")
	s.is(s.readErr(l, topic, 0, ""), eventlog.ErrOffsetGone, "read below the start")
	s.equal(s.settled(l, topic, 0), []string{"v3", "v4"}, "what is left")
	// Deleting less than was deleted changes nothing.
	s.ok(l.DeleteRecords(s.ctx, topic, 0, 1), "delete records again")
	s.equal(s.settled(l, topic, 0)[:2], []string{"v3", "v4"}, "what is left")
	end := s.describe(l, topic).Partitions[0].End
	s.ok(l.DeleteRecords(s.ctx, topic, 0, end), "delete all records")
	s.ok(l.Publish(s.ctx, message(topic, 0, "next")), "publish")
	got := s.readN(l, topic, 0, 1)
	if string(got[0].Value) != "next" || got[0].Offset < end {
		s.Errorf("after all was deleted: %q at %d, the end was %d", got[0].Value, got[0].Offset, end)
	}
}

func readNoTopic(s *suite) {
	l := s.open(1)
	missing := s.h.App + "-missing"
	_, err := l.Topic(s.ctx, missing)
	s.is(err, eventlog.ErrNoTopic, "describe a missing topic")
	s.is(s.readErr(l, missing, 0, ""), eventlog.ErrNoTopic, "read a missing topic")
	_, err = l.OffsetAt(s.ctx, missing, time.Now())
	s.is(err, eventlog.ErrNoTopic, "OffsetAt of a missing topic")
}

func readRecreated(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "recreated", 1)
	old := s.describe(l, topic).ID
	if old == "" {
		s.Fatal("a topic has no id")
	}
	s.ok(l.Publish(s.ctx, message(topic, 0, "old")), "publish")
	s.equal(s.readErr(l, topic, 0, old), error(nil), "read with the right id")
	s.ok(s.h.DeleteTopic(s.ctx, l, topic), "delete topic")
	s.until("the topic is gone", func() (bool, error) {
		_, err := l.Topic(s.ctx, topic)
		if errors.Is(err, eventlog.ErrNoTopic) {
			return true, nil
		}
		return false, err
	})
	s.until("the topic is there again", func() (bool, error) {
		if err := l.EnsureTopic(s.ctx, topic, 1); err != nil {
			return false, err
		}
		d, err := l.Topic(s.ctx, topic)
		return err == nil && d.ID != old, err
	})
	s.ok(l.Publish(s.ctx, message(topic, 0, "new")), "publish")
	s.is(s.readErr(l, topic, 0, old), eventlog.ErrTopicChanged, "read with the id of the deleted topic")
	s.equal(values(s.readN(l, topic, 0, 1)), []string{"new"}, "values of the new topic")
}

// until asks again until it is true; errors are shown when time is up.
func (s *suite) until(what string, f func() (bool, error)) {
	s.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := f()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.Fatalf("never true: %s (last error: %v)", what, err)
		}
	}
}

func readOffsetAt(s *suite) {
	if s.h.Features.NoRecordTime {
		s.Skip("the driver does not keep times as written")
	}
	l := s.open(1)
	topic := s.topic(l, "time", 2)
	base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	at := func(minutes int) time.Time { return base.Add(time.Duration(minutes) * time.Minute) }
	for i := range 10 {
		r := message(topic, 0, fmt.Sprint(i))
		r.Time = at(i)
		s.ok(l.Publish(s.ctx, r), "publish")
	}
	offsets := map[string]int64{}
	for _, r := range s.readN(l, topic, 0, 10) {
		offsets[string(r.Value)] = r.Offset
	}
	ends := s.describe(l, topic).Partitions
	for _, c := range []struct {
		t    time.Time
		want int64
	}{
		{at(-5), offsets["0"]}, {at(0), offsets["0"]}, {at(3), offsets["3"]},
		{at(3).Add(time.Millisecond), offsets["4"]}, {at(9), offsets["9"]}, {at(10), ends[0].End},
	} {
		got, err := l.OffsetAt(s.ctx, topic, c.t)
		s.ok(err, "OffsetAt")
		s.equal(got, []int64{c.want, ends[1].End}, fmt.Sprintf("offsets at minute %v", c.t.Sub(base).Minutes()))
	}
}
