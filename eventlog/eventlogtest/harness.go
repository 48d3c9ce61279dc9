// Package eventlogtest is the contract of an eventlog.Log as a test suite. A driver's test
// is one call of Run; a failure prints the sentence of the contract that was broken.
package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// Harness is what the suite needs of a driver. Each case gets one of its own.
type Harness struct {
	// App is an application name that nobody has used; the names of the case's topics
	// begin with it.
	App string
	// Open opens the log of App with that many partitions, again on each call: what a
	// log that was closed or crashed had acknowledged is there. The suite closes it.
	Open func(ctx context.Context, partitions int32) (eventlog.Log, error)
	// DeleteTopic deletes a user's topic behind the log's back, or by it.
	DeleteTopic func(ctx context.Context, l eventlog.Log, name string) error
	// Crash ends a log as kill -9 or a loss of power would, and leaves of what was not
	// acknowledged what such a crash may leave: some of it, torn anywhere. Not needed
	// with Features.NoCrash.
	Crash func(l eventlog.Log) error
	// Features says what the driver lacks.
	Features Features
}

// Features are what a driver lacks. Cases that need it are skipped.
type Features struct {
	NoReopen        bool // Open of the same App while or after another was open
	SingleOpen      bool // a second Open while the first is open is refused
	NoCrash         bool // Crash
	NoDeleteRecords bool // DeleteRecords takes effect
	NoRecordTime    bool // Record.Time is kept as written
}

// caseLimit is how long a case may take. It is generous: a rebalance of a real broker takes
// seconds.
const caseLimit = 5 * time.Minute

// contract is one case.
type contract struct {
	name     string
	sentence string
	run      func(s *suite)
}

// Run tests a driver against the contract.
func Run(t *testing.T, open func(t *testing.T) *Harness) {
	all := slices.Concat(appendCases, ownerCases, readCases, groupCases, topicCases, trimCases, crashCases)
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), caseLimit, fmt.Errorf("the case took more than %v", caseLimit))
			defer cancel()
			s := &suite{T: t, h: open(t), ctx: ctx}
			defer func() {
				if t.Failed() {
					t.Logf("the contract says: %s", c.sentence)
				}
			}()
			c.run(s)
		})
	}
}

// suite is one running case.
type suite struct {
	*testing.T
	h     *Harness
	ctx   context.Context
	marks int
}

// open opens the log; it is closed with the case.
func (s *suite) open(partitions int32) eventlog.Log {
	s.Helper()
	l, err := s.h.Open(s.ctx, partitions)
	s.ok(err, "open the log")
	s.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.Errorf("close the log: %v", err)
		}
	})
	return l
}

// topic creates a topic of the case and returns its name.
func (s *suite) topic(l eventlog.Log, name string, partitions int32) string {
	s.Helper()
	name = s.h.App + "-" + name
	s.ok(l.EnsureTopic(s.ctx, name, partitions), "create topic")
	return name
}

func (s *suite) ok(err error, what string) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

func (s *suite) is(err, want error, what string) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func (s *suite) equal(got, want any, what string) {
	s.Helper()
	if d := cmp.Diff(want, got); d != "" {
		s.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func (s *suite) describe(l eventlog.Log, topic string) eventlog.Topic {
	s.Helper()
	d, err := l.Topic(s.ctx, topic)
	s.ok(err, "describe topic")
	return d
}

// read reads a partition from an offset on until a record satisfies last.
func (s *suite) read(l eventlog.Log, topic string, partition int32, from int64, isolation eventlog.Isolation, last func(eventlog.Record) bool) []eventlog.Record {
	s.Helper()
	r, err := l.Read(s.ctx, topic, partition, from, "", isolation)
	s.ok(err, "read "+topic)
	defer r.Close()
	var all []eventlog.Record
	for {
		records, next, err := r.Next(s.ctx)
		if err != nil {
			s.Fatalf("read %s/%d after %d records: %v", topic, partition, len(all), err)
		}
		for _, rec := range records {
			if n := len(all); rec.Offset < from || n > 0 && rec.Offset <= all[n-1].Offset || rec.Offset >= next {
				s.Fatalf("offset %d of %s/%d is not between what came before and next %d", rec.Offset, topic, partition, next)
			}
			if rec.Topic != topic || rec.Partition != partition {
				s.Fatalf("a record of %s/%d was read from %s/%d", rec.Topic, rec.Partition, topic, partition)
			}
			all = append(all, rec)
			if last(rec) {
				return all
			}
		}
	}
}

// readN reads the first n records of a partition.
func (s *suite) readN(l eventlog.Log, topic string, partition int32, n int) []eventlog.Record {
	s.Helper()
	return s.read(l, topic, partition, s.describe(l, topic).Partitions[partition].Start, eventlog.ReadCommitted, func(eventlog.Record) bool {
		n--
		return n == 0
	})
}

const endMark = "end of what came before "

// settled publishes a mark to a partition of a user's topic and returns the values of all
// committed records before it: no wait for something that must not come is needed.
func (s *suite) settled(l eventlog.Log, topic string, partition int32) []string {
	s.Helper()
	return values(s.settledRecords(l, topic, partition))
}

// settledRecords is settled with the records.
func (s *suite) settledRecords(l eventlog.Log, topic string, partition int32) []eventlog.Record {
	s.Helper()
	s.marks++
	mark := fmt.Sprint(endMark, s.marks)
	s.ok(l.Publish(s.ctx, message(topic, partition, mark)), "publish mark")
	start := s.describe(l, topic).Partitions[partition].Start
	all := s.read(l, topic, partition, start, eventlog.ReadCommitted, func(r eventlog.Record) bool { return string(r.Value) == mark })
	return slices.DeleteFunc(all, func(r eventlog.Record) bool { return strings.HasPrefix(string(r.Value), endMark) })
}

// events owns a partition, commits a barrier, and returns the values of all committed
// events before it, and the owner.
func (s *suite) events(l eventlog.Log, partition int32) ([]string, eventlog.Owner) {
	s.Helper()
	o := s.own(l, partition)
	barrier := s.append(o, "barrier")
	s.ok(o.Commit(s.ctx), "commit barrier")
	topic := eventlog.EventsTopic(l.App())
	start := s.describe(l, topic).Partitions[partition].Start
	all := s.read(l, topic, partition, start, eventlog.ReadCommitted, func(r eventlog.Record) bool { return r.Offset == barrier })
	if last := string(all[len(all)-1].Value); last != event("barrier") {
		s.Fatalf("the barrier's offset %d holds %s", barrier, last)
	}
	return values(all[:len(all)-1]), o
}

// own owns a partition; the owner is closed with the case.
func (s *suite) own(l eventlog.Log, partition int32) eventlog.Owner {
	s.Helper()
	o, err := l.Own(s.ctx, partition)
	s.ok(err, "own")
	s.Cleanup(func() { _ = o.Close() })
	return o
}

// append appends events to the owner's open transaction.
func (s *suite) append(o eventlog.Owner, names ...string) int64 {
	s.Helper()
	first, err := o.Append(s.ctx, bodies(names...), types(len(names)), nil)
	s.ok(err, "append events")
	return first
}

// commit appends events and commits them.
func (s *suite) commit(o eventlog.Owner, names ...string) int64 {
	s.Helper()
	first := s.append(o, names...)
	s.ok(o.Commit(s.ctx), "commit")
	return first
}

// event is the body of an event of the suite.
func event(name string) string { return `{"name":"` + name + `"}` }

func bodies(names ...string) [][]byte {
	var b [][]byte
	for _, n := range names {
		b = append(b, []byte(event(n)))
	}
	return b
}

func types(n int) []eventlog.Type {
	return slices.Repeat([]eventlog.Type{eventlog.Checkpoint}, n)
}

func values(records []eventlog.Record) []string {
	v := []string{}
	for _, r := range records {
		v = append(v, string(r.Value))
	}
	return v
}

func eventValues(names ...string) []string {
	v := []string{}
	for _, n := range names {
		v = append(v, event(n))
	}
	return v
}

// message is a record of the suite.
func message(topic string, partition int32, value string) eventlog.Record {
	return eventlog.Record{Topic: topic, Partition: partition, Value: []byte(value)}
}

// numbered are n values with a prefix.
func numbered(prefix string, n int) []string {
	v := make([]string, n)
	for i := range v {
		v[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return v
}

func withPrefix(v []string, prefix string) []string {
	out := []string{}
	for _, s := range v {
		if strings.HasPrefix(s, prefix) {
			out = append(out, s)
		}
	}
	return out
}
