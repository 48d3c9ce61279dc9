package eventlogtest

import (
	"github.com/godagger/dagger/eventlog"
)

var trimCases = []contract{
	{"trim/events", "DeleteRecords of the events topic drops events below an offset, under an owner that goes on: what is kept stays readable at its offsets, and what is dropped is ErrOffsetGone.", trimEvents},
	{"trim/reopen", "What DeleteRecords has dropped stays dropped when the log is opened again, and the offsets go on.", trimReopen},
}

func trimEvents(s *suite) {
	if s.h.Features.NoDeleteRecords {
		s.Skip("the driver can't delete records")
	}
	l := s.open(2)
	topic := eventlog.EventsTopic(s.h.App)
	o := s.own(l, 0)
	other := s.own(l, 1)
	s.commit(o, numbered("a", 10)...)
	s.commit(other, "untouched")
	keep := s.commit(o, "b1", "b2")
	s.append(o, "c1") // open while the log is trimmed
	s.ok(l.DeleteRecords(s.ctx, topic, 0, keep), "trim events")
	s.equal(s.describe(l, topic).Partitions[0].Start, keep, "start after the trim")
	s.ok(o.Commit(s.ctx), "commit what was open")
	s.commit(o, "d1")
	_, err := s.readFrom(l, topic, 0, keep-1)
	s.is(err, eventlog.ErrOffsetGone, "read below the start")
	all := s.read(l, topic, 0, keep, eventlog.ReadCommitted, func(r eventlog.Record) bool { return string(r.Value) == event("d1") })
	s.equal(all[0].Offset, keep, "offset of the first event kept")
	s.equal(values(all), eventValues("b1", "b2", "c1", "d1"), "events kept")
	got, next := s.events(l, 0) // a new owner, whose barrier comes behind
	s.equal(got, eventValues("b1", "b2", "c1", "d1"), "events that a new owner finds")
	s.commit(next, "e1")
	got, _ = s.events(l, 1)
	s.equal(got, eventValues("untouched"), "events of the other partition")
}

// readFrom opens a reader and asks it once; a driver may tell at either.
func (s *suite) readFrom(l eventlog.Log, topic string, partition int32, from int64) ([]eventlog.Record, error) {
	r, err := l.Read(s.ctx, topic, partition, from, "", eventlog.ReadCommitted)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	records, _, err := r.Next(s.ctx)
	return records, err
}

func trimReopen(s *suite) {
	if s.h.Features.NoDeleteRecords || s.h.Features.NoReopen {
		s.Skip("the driver can't delete records, or can't open a log again")
	}
	l := s.open(1)
	topic := eventlog.EventsTopic(s.h.App)
	o := s.own(l, 0)
	s.commit(o, numbered("a", 5)...)
	keep := s.commit(o, "b")
	s.ok(l.DeleteRecords(s.ctx, topic, 0, keep), "trim events")
	s.ok(o.Close(), "close owner")
	s.ok(l.Close(), "close the log")
	l = s.open(1)
	s.equal(s.describe(l, topic).Partitions[0].Start, keep, "start after opening again")
	got, o := s.events(l, 0)
	s.equal(got, eventValues("b"), "events")
	if first := s.commit(o, "c"); first <= keep {
		s.Errorf("offset %d after %d", first, keep)
	}
	_, err := s.readFrom(l, topic, 0, 0)
	s.is(err, eventlog.ErrOffsetGone, "read below the start")
}
