package kafkalog

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/godagger/dagger/eventlog"
)

// TestLostRecordsAreNoticed: what was read of an earlier leader, beyond what the later one took
// over, is gone; a longer log shows nothing of that but its leader epochs.
func TestLostRecordsAreNoticed(t *testing.T) {
	c := fake(t, kfake.NumBrokers(2))
	l := openLog(t, strings.Join(c.ListenAddrs(), ","), newApp(), "partitions=1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topic := newApp()
	if err := l.EnsureTopic(ctx, topic, 1); err != nil {
		t.Fatal(err)
	}
	written := 0
	write := func(n int) {
		t.Helper()
		for range n {
			if err := l.Publish(ctx, eventlog.Record{Topic: topic, Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			written++
		}
	}
	terms := func() (l2 []int32) {
		t.Helper()
		r, err := l.Read(ctx, topic, 0, 0, "", eventlog.ReadCommitted)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for len(l2) < written {
			records, _, err := r.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range records {
				l2 = append(l2, x.Term)
			}
		}
		return l2
	}
	write(3)
	leader := c.LeaderFor(topic, 0)
	if err := c.MoveTopicPartition(topic, 0, 1-leader); err != nil {
		t.Fatal(err)
	}
	write(4)
	all := terms()
	first, second := all[2], all[3]
	if first <= 0 || second <= first || all[6] != second {
		t.Fatalf("terms %v", all)
	}
	m, err := l.Join(ctx, newApp(), topic)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Assigned(ctx); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		offset int64
		term   int32
		upto   int64
	}{{3, first, 3}, {2, first, 2}, {7, second, 7}, {5, second, 5}, {5, first, 3}, {9, second, 7}, {9, 0, 9}} {
		if upto, err := l.Kept(ctx, topic, 0, x.offset, x.term); err != nil || upto != x.upto {
			t.Errorf("read up to %d of term %d: kept up to %d, %v; want %d", x.offset, x.term, upto, err, x.upto)
		}
		if err := m.(eventlog.TermMember).CommitTerm(ctx, 0, x.offset, x.term); err != nil {
			t.Fatal(err)
		}
		if at, err := m.Committed(ctx, 0); at != x.offset || errors.Is(err, eventlog.ErrTruncated) != (x.upto < x.offset) || err != nil && x.upto == x.offset {
			t.Errorf("committed %d of term %d: %d, %v", x.offset, x.term, at, err)
		}
	}
}
