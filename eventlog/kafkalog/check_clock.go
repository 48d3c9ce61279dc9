package kafkalog

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

const (
	// skewed clocks make timers late or early by as much; far apart they stop a partition
	// (protocol rule 11).
	skewSlow, skewWrong = time.Second, 30 * time.Second
	// lastRecords is how far back from the end the last event is looked for.
	lastRecords = 100
)

// clock compares the clocks of the broker, the worker that wrote last, and this machine,
// without writing anything: the brokers know by their clock when an owner's last transaction
// began, and its events have the worker's time.
func (x *exam) clock(ctx context.Context, partitions int32) {
	var newest time.Time
	var skew time.Duration
	compared := false
	for p := range partitions {
		began := x.lastTransaction(ctx, p)
		at := x.lastRecord(ctx, p)
		if at.After(newest) {
			newest = at
		}
		if began.IsZero() || at.IsZero() || compared && at.Sub(began).Abs() < skew.Abs() {
			continue
		}
		skew, compared = at.Sub(began), true
	}
	if newest.IsZero() {
		x.add(eventlog.LevelUnknown, "clocks", "there are no events yet to compare them by", "")
		return
	}
	level := func(d time.Duration) eventlog.Level {
		switch {
		case d.Abs() > skewWrong:
			return eventlog.LevelWrong
		case d.Abs() > skewSlow:
			return eventlog.LevelSlow
		}
		return eventlog.LevelOK
	}
	const do = "synchronize the clocks (NTP)"
	switch {
	case !compared:
		x.add(eventlog.LevelUnknown, "clocks", "the brokers no longer know when the last transactions began", "")
	case level(skew) != eventlog.LevelOK:
		x.add(level(skew), "clocks", fmt.Sprintf("the worker that wrote last and its broker are %v apart", skew.Abs().Round(time.Millisecond)), do)
	default:
		x.ok("clocks", "the worker that wrote last and its broker agree within %v", skewSlow)
	}
	if behind := time.Until(newest); level(behind) != eventlog.LevelOK && behind > 0 {
		x.add(level(behind), "clocks", fmt.Sprintf("the last event is %v ahead of this machine's clock", behind.Round(time.Millisecond)), do)
	}
}

// lastTransaction is when an owner's last transaction began, by the broker's clock.
func (x *exam) lastTransaction(ctx context.Context, partition int32) (began time.Time) {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{transactionalID(x.log.cfg.app, partition)}
	resp, err := req.RequestWith(ctx, x.log.cl)
	if err != nil || len(resp.TransactionStates) != 1 {
		return began
	}
	s := resp.TransactionStates[0]
	if kerr.ErrorForCode(s.ErrorCode) != nil || s.StartTimestamp <= 0 {
		return began
	}
	return time.UnixMilli(s.StartTimestamp)
}

// lastRecord is the time of a partition's last event, by its writer's clock.
func (x *exam) lastRecord(ctx context.Context, partition int32) (at time.Time) {
	name := eventlog.EventsTopic(x.log.cfg.app)
	topic, err := x.log.Topic(ctx, name)
	if err != nil || int(partition) >= len(topic.Partitions) {
		return at
	}
	part := topic.Partitions[partition]
	if part.Start == part.End {
		return at
	}
	r, err := x.log.Read(ctx, name, partition, max(part.Start, part.End-lastRecords), "", eventlog.ReadUncommitted)
	if err != nil {
		return at
	}
	defer r.Close()
	for next := part.Start; next < part.End; {
		var records []eventlog.Record
		if records, next, err = r.Next(ctx); err != nil {
			return at
		}
		if n := len(records); n > 0 {
			at = records[n-1].Time
		}
	}
	return at
}
