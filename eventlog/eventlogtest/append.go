package eventlogtest

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

var appendCases = []contract{
	{"append/order", "Publish appends in order for each partition; what is read has the offsets of its order, and key, value, headers and time as written.", appendOrder},
	{"append/placement", "Partition -1 is the murmur2 of the key, as the Java client has it; a record without a key goes anywhere.", appendPlacement},
	{"append/size", "What is as large as Topic.MaxRecord is accepted; ErrTooLarge: nothing was written.", appendSize},
	{"append/no-topic", "Publish to a topic that does not exist is ErrNoTopic, and nothing was written.", appendNoTopic},
	{"append/concurrent", "Concurrent publishers and owners of one partition each keep their own order, and nothing is lost or doubled.", appendConcurrent},
	{"append/publisher-stops", "A Publisher stops for good at its first error.", publisherStops},
}

func appendOrder(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "order", 2)
	at := time.UnixMilli(1_700_000_000_123).UTC()
	full := eventlog.Record{Topic: topic, Partition: 1, Time: at, Key: []byte("k"), Value: []byte(`{"a":1}`),
		Headers: []eventlog.Header{{Key: "h", Value: []byte("v")}, {Key: "h", Value: []byte{}}, {Key: "empty", Value: nil}}}
	s.ok(l.Publish(s.ctx, full, message(topic, 0, "first"), message(topic, 1, "second")), "publish")
	tombstone := eventlog.Record{Topic: topic, Partition: 1, Key: []byte{}}
	s.ok(l.Publish(s.ctx, tombstone, message(topic, 1, "")), "publish")

	got := s.readN(l, topic, 1, 4)
	s.equal(values(got), []string{`{"a":1}`, "second", "", ""}, "values of partition 1")
	s.equal(string(got[0].Key), "k", "key")
	if !s.h.Features.NoRecordTime && !got[0].Time.Equal(at) {
		s.Errorf("time %v, written as %v", got[0].Time, at)
	}
	if age := time.Since(got[1].Time); age < -time.Minute || age > time.Hour {
		s.Errorf("a record without a time has %v", got[1].Time)
	}
	if len(got[0].Headers) != 3 || got[0].Headers[0].Key != "h" || string(got[0].Headers[0].Value) != "v" || got[0].Headers[2].Key != "empty" {
		s.Errorf("headers %q", got[0].Headers)
	}
	if got[2].Value != nil {
		s.Errorf("a nil value came back as %q", got[2].Value)
	}
	if got[3].Value == nil || got[3].Key != nil {
		s.Errorf("an empty value came back as nil, or a nil key as %q", got[3].Key)
	}
	s.equal(values(s.readN(l, topic, 0, 1)), []string{"first"}, "values of partition 0")
	end := s.describe(l, topic).Partitions
	if end[1].End < got[3].Offset+1 || end[0].End < 1 {
		s.Errorf("ends %v do not include what was published", end)
	}
}

func appendPlacement(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "placement", 7)
	// What the Java client's Utils.murmur2 gives for these keys, as its own test has it.
	var records []eventlog.Record
	want := map[string]int32{}
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	} {
		want[key] = hash & 0x7fffffff % 7
		records = append(records, eventlog.Record{Topic: topic, Partition: -1, Key: []byte(key), Value: []byte(key)})
	}
	records = append(records, message(topic, -1, "no key"))
	s.ok(l.Publish(s.ctx, records...), "publish")
	got, free := map[string]int32{}, 0
	for p := range int32(7) {
		for _, r := range s.settledRecords(l, topic, p) {
			if r.Key == nil {
				free++
				continue
			}
			got[string(r.Key)] = r.Partition
		}
	}
	s.equal(got, want, "partitions of keys")
	s.equal(free, 1, "records without a key")
}

func appendSize(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "size", 1)
	limit := s.describe(l, topic).MaxRecord
	if limit < 1024 {
		s.Fatalf("MaxRecord is %d", limit)
	}
	record := func(n int) eventlog.Record {
		return eventlog.Record{Topic: topic, Key: []byte("key"), Value: bytes.Repeat([]byte("x"), n-3)}
	}
	s.ok(l.Publish(s.ctx, record(limit)), "publish a record of MaxRecord bytes")
	err := l.Publish(s.ctx, message(topic, 0, "small"), record(limit+1))
	s.is(err, eventlog.ErrTooLarge, "publish a record of MaxRecord+1 bytes")

	o := s.own(l, 0)
	_, err = o.Append(s.ctx, bodies("fits"), types(1), []eventlog.Record{record(limit)})
	s.ok(err, "append a message of MaxRecord bytes")
	s.ok(o.Commit(s.ctx), "commit")
	got := s.settledRecords(l, topic, 0)
	if len(got) != 2 || len(got[0].Value) != limit-3 || len(got[1].Value) != limit-3 {
		s.Errorf("%d records were written, want the two that fit", len(got))
	}
}

func appendNoTopic(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "there", 1)
	err := l.Publish(s.ctx, message(topic, 0, "a"), message(s.h.App+"-missing", 0, "b"))
	s.is(err, eventlog.ErrNoTopic, "publish to a missing topic")
	s.equal(s.settled(l, topic, 0), []string{}, "records of the other topic")
}

func appendConcurrent(s *suite) {
	l := s.open(2)
	topic := s.topic(l, "concurrent", 2)
	const writers, rounds = 6, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				r0 := message(topic, 0, fmt.Sprintf("p%d-%d", w, i))
				r1 := message(topic, 1, fmt.Sprintf("p%d-%d", w, i))
				if err := l.Publish(s.ctx, r0, r1); err != nil {
					s.Errorf("publish: %v", err)
					return
				}
			}
		})
	}
	for p := range int32(2) {
		o := s.own(l, p)
		wg.Go(func() {
			for i := range rounds {
				m := []eventlog.Record{message(topic, 0, fmt.Sprintf("o%d-%d", p, i)), message(topic, 1, fmt.Sprintf("o%d-%d", p, i))}
				if _, err := o.Append(s.ctx, bodies(fmt.Sprint(i)), types(1), m); err != nil {
					s.Errorf("append: %v", err)
					return
				}
				if err := o.Commit(s.ctx); err != nil {
					s.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if s.Failed() {
		return
	}
	for p := range int32(2) {
		all := s.settled(l, topic, p)
		s.equal(len(all), (writers+2)*rounds, "records")
		for w := range writers {
			prefix := fmt.Sprintf("p%d-", w)
			s.equal(withPrefix(all, prefix), numbered(prefix, rounds), "records of a publisher")
		}
		for w := range 2 {
			prefix := fmt.Sprintf("o%d-", w)
			s.equal(withPrefix(all, prefix), numbered(prefix, rounds), "messages of an owner")
		}
	}
}

func publisherStops(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "publisher", 1)
	p, err := l.Publisher(s.ctx)
	s.ok(err, "make publisher")
	s.ok(p.Publish(s.ctx, message(topic, 0, "a"), message(topic, 0, "b")), "publish")
	s.is(p.Publish(s.ctx, message(s.h.App+"-missing", 0, "c")), eventlog.ErrNoTopic, "publish to a missing topic")
	if err := p.Publish(s.ctx, message(topic, 0, "d")); err == nil {
		s.Error("the publisher goes on after an error")
	}
	s.ok(p.Close(), "close publisher")
	q, err := l.Publisher(s.ctx)
	s.ok(err, "make another publisher")
	s.ok(q.Publish(s.ctx, message(topic, 0, "e")), "publish with another")
	s.ok(q.Close(), "close publisher")
	if err := q.Publish(s.ctx, message(topic, 0, "f")); err == nil {
		s.Error("a closed publisher goes on")
	}
	s.equal(s.settled(l, topic, 0), []string{"a", "b", "e"}, "records")
}
