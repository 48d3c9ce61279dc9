package kafkalog

import (
	"fmt"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestPeek: a peek begins where Read does, goes on to the end as that does, and gives less at once.
func TestPeek(t *testing.T) {
	addrs, _ := brokers(t)
	l := openLog(t, addrs, newApp(), "partitions=1&replication=1")
	o := own(t, l, 0)
	var offsets []int64
	for k := range 60 {
		offsets = append(offsets, add(t, o, fmt.Sprintf(`{"v":1,"n":%d,"type":"Checkpoint","at":1,"worker":"%x"}`, k+1, incompressible(8_000))))
		commit(t, o)
	}
	topic := eventlog.EventsTopic(l.App())
	read, err := l.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Peek(t.Context(), topic, 0, offsets[30], read.ID, eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []int64
	for len(got) < 30 {
		records, _, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(records) > 15 {
			t.Errorf("%d records of 8 kB at once", len(records))
		}
		for _, x := range records {
			got = append(got, x.Offset)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(offsets[30:]) {
		t.Errorf("peeked at %v, appended at %v", got, offsets[30:])
	}
}
