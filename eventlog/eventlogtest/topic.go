package eventlogtest

import (
	"errors"
	"time"

	"github.com/godagger/dagger/eventlog"
)

var topicCases = []contract{
	{"topic/own", "Opening made sure that the application's own topics exist with the right partition counts.", topicOwn},
	{"topic/ensure", "EnsureTopic creates a topic unless it exists, and does not change an existing one.", topicEnsure},
	{"topic/partitions", "Opening with another partition count is refused with ErrPartitions and changes nothing.", topicPartitions},
	{"topic/shrunk", "An application's own topic that was created again with fewer partitions is ErrPartitions to who describes it.", topicShrunk},
	{"topic/reopen", "Opened again, the log has all that was acknowledged: records, topic ids, positions.", topicReopen},
	{"topic/closed-owner", "An owner of the log as it was opened before is fenced by one of the log opened again.", closedOwner},
}

func topicOwn(s *suite) {
	l := s.open(3)
	s.equal(l.App(), s.h.App, "App")
	s.equal(l.Partitions(), int32(3), "Partitions")
	if l.URL() == "" {
		s.Error("URL is empty")
	}
	for name, want := range map[string]int{
		eventlog.RequestsTopic(s.h.App): 3, eventlog.EventsTopic(s.h.App): 3,
		eventlog.DefinitionsTopic(s.h.App): 1, eventlog.DeadLetterTopic(s.h.App): 1,
	} {
		d := s.describe(l, name)
		if d.Name != name || d.ID == "" || len(d.Partitions) != want || d.MaxRecord <= 0 {
			s.Errorf("%s: %+v, want %d partitions", name, d, want)
		}
	}
}

func topicEnsure(s *suite) {
	l := s.open(1)
	topic := s.topic(l, "twice", 2)
	before := s.describe(l, topic)
	s.ok(l.EnsureTopic(s.ctx, topic, 5), "ensure an existing topic")
	s.equal(s.describe(l, topic), before, "the topic")
}

func topicPartitions(s *suite) {
	if s.h.Features.NoReopen {
		s.Skip("the driver can't open a log again")
	}
	l := s.open(2)
	s.ok(l.Close(), "close the log")
	other, err := s.h.Open(s.ctx, 3)
	if err == nil {
		_ = other.Close()
	}
	s.is(err, eventlog.ErrPartitions, "open with 3 partitions what has 2")
	l = s.open(2)
	s.equal(len(s.describe(l, eventlog.EventsTopic(s.h.App)).Partitions), 2, "partitions")
}

func topicShrunk(s *suite) {
	l := s.open(3)
	for _, name := range []string{eventlog.EventsTopic(s.h.App), eventlog.RequestsTopic(s.h.App)} {
		s.ok(s.h.DeleteTopic(s.ctx, l, name), "delete "+name)
		s.until(name+" has one partition", func() (bool, error) { // what deletes it may take its time
			if err := l.EnsureTopic(s.ctx, name, 1); err != nil && !errors.Is(err, eventlog.ErrPartitions) {
				return false, err
			}
			d, err := l.Topic(s.ctx, name)
			return errors.Is(err, eventlog.ErrPartitions) || len(d.Partitions) == 1, err
		})
		_, err := l.Topic(s.ctx, name)
		s.is(err, eventlog.ErrPartitions, "describe "+name)
		_, err = l.OffsetAt(s.ctx, name, time.Now())
		s.is(err, eventlog.ErrPartitions, "offsets of "+name)
	}
}

func topicReopen(s *suite) {
	if s.h.Features.NoReopen {
		s.Skip("the driver can't open a log again")
	}
	l := s.open(2)
	topic := s.topic(l, "kept", 2)
	s.ok(l.Publish(s.ctx, message(topic, 0, "a"), message(topic, 1, "b")), "publish")
	o := s.own(l, 1)
	s.commit(o, "1", "2")
	s.append(o, "never committed")
	m, err := l.Join(s.ctx, s.h.App+"-g", topic)
	s.ok(err, "join")
	if _, err := m.Assigned(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.ok(m.Commit(s.ctx, 1, 1), "commit position")
	id := s.describe(l, topic).ID
	s.ok(m.Close(), "leave the group")
	s.ok(o.Close(), "close owner")
	s.ok(l.Close(), "close the log")
	s.ok(l.Close(), "close the log twice")

	l = s.open(2)
	s.equal(s.describe(l, topic).ID, id, "topic id")
	s.equal(s.settled(l, topic, 0), []string{"a"}, "records")
	s.equal(s.settled(l, topic, 1), []string{"b"}, "records")
	got, o := s.events(l, 1)
	s.equal(got, eventValues("1", "2"), "events")
	s.commit(o, "3")
	if m, err = l.Join(s.ctx, s.h.App+"-g", topic); err != nil {
		s.Fatal(err)
	}
	defer m.Close()
	position, err := m.Committed(s.ctx, 1)
	s.ok(err, "committed position")
	s.equal(position, int64(1), "position")
	position, err = m.Committed(s.ctx, 0)
	s.ok(err, "committed position")
	s.equal(position, int64(-1), "position that nobody stored")
}

func closedOwner(s *suite) {
	if s.h.Features.NoReopen {
		s.Skip("the driver can't open a log again")
	}
	l := s.open(1)
	old := s.own(l, 0)
	s.append(old, "open")
	again := l
	if s.h.Features.SingleOpen {
		s.ok(l.Close(), "close the log")
		again = s.open(1)
	} else {
		again = s.open(1)
	}
	_, o := s.events(again, 0)
	if err := old.Commit(s.ctx); !errors.Is(err, eventlog.ErrFenced) && !errors.Is(err, eventlog.ErrClosed) {
		s.Errorf("commit of the old owner: %v", err)
	}
	s.commit(o, "1")
	got, _ := s.events(again, 0)
	s.equal(got, eventValues("barrier", "1"), "events")
}
