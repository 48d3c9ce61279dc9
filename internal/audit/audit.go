// Package audit checks a log against the promises that the engine makes. It reads nothing
// but the log and shares no code with the engine's own fold: it has its own, smaller idea of
// which event may follow which, so that a mistake in the engine does not excuse itself.
//
// What it looks at: event numbers and sequence numbers without gap or fork, events that name
// the ones before them of their instances, times that never go back, positions and watermarks
// that only rise, calls applied once, tasks that follow the allowed transitions and results that
// belong to the live attempt, timers that are not early, subscriptions and messages that balance
// on both sides of a partition boundary, everything that crosses partitions counted once, and
// messages of Command tasks exactly once.
package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

// Options of an audit. The zero value reads the events and nothing else.
type Options struct {
	// App is the application whose messages are compared; "" = all messages are its own. Those
	// that do not say whose they are count as its own. Log fills it in.
	App string
	// Topics are topics that Command tasks send to; their messages are compared with the
	// events. A topic that lost its oldest records is not searched for missing ones.
	Topics []string
	// Settled says that the engine has come to rest: everything that an instance or a key was
	// told must have been decided.
	Settled bool
	// Limit is how many violations are kept in Report.First; 0 = 100. All are counted.
	Limit int
	// Buffered is how many messages of one key an instance keeps; 0 = 100, as the engine does.
	Buffered int
	// Progress is told how far the audit is, in offsets; may be nil.
	Progress func(done, total int64)
	// Each sees every event before it is checked; may be nil. It must not keep the event.
	Each func(partition int32, offset int64, e *eventlog.Event)
}

// Report is what an audit found.
type Report struct {
	Partitions int32       `json:"partitions"`
	Events     int64       `json:"events"`
	Instances  int64       `json:"instances"` // that ran
	Messages   int64       `json:"messages"`  // of Command tasks, found in Options.Topics
	Moved      bool        `json:"moved"`     // the log grew meanwhile: what crosses partitions was judged in part only
	Violations int64       `json:"violations"`
	First      []Violation `json:"first,omitempty"`
}

// Violation is a broken promise.
type Violation struct {
	Topic     string `json:"topic,omitempty"` // "" = the events topic
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // of the record; -1 = it concerns no single one
	N         uint64 `json:"n,omitempty"`
	ID        string `json:"id,omitempty"`
	Text      string `json:"text"`
}

// String is the violation in one line.
func (v Violation) String() string {
	s := fmt.Sprintf("partition %d", v.Partition)
	if v.Topic != "" {
		s = "topic " + v.Topic + " " + s
	}
	if v.Offset >= 0 {
		s += fmt.Sprintf(" offset %d", v.Offset)
	}
	if v.N > 0 {
		s += fmt.Sprintf(" event %d", v.N)
	}
	if v.ID != "" {
		s += fmt.Sprintf(" instance %q", v.ID)
	}
	return s + ": " + v.Text
}

// Err is nil for a clean log, else an error that names the first violations.
func (r Report) Err() error {
	if r.Violations == 0 {
		return nil
	}
	text := fmt.Sprintf("audit: %d violations", r.Violations)
	for _, v := range r.First[:min(len(r.First), 5)] {
		text += "\n" + v.String()
	}
	return errors.New(text)
}

// Log audits the events of the log as they stand when it begins. An error says that the log
// could not be read to that point; violations are in the report.
func Log(ctx context.Context, log eventlog.Log, o Options) (Report, error) {
	o.App = log.App()
	a := New(log.Partitions(), o)
	before, err := describe(ctx, log, o.Topics)
	if err != nil {
		return a.Report(), err
	}
	events, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return a.Report(), fmt.Errorf("describe the events topic: %w", err)
	}
	var done, total int64
	for _, p := range events.Partitions {
		total += p.End - p.Start
	}
	for k, p := range events.Partitions {
		if p.Start > 0 {
			return a.Report(), fmt.Errorf("audit partition %d: its log begins at offset %d; an audit needs all of it", k, p.Start)
		}
		err := read(ctx, log, events.Name, int32(k), p, func(r *eventlog.Record) {
			a.Record(int32(k), r.Offset, r.Value)
		}, func(n int64) {
			done += n
			if o.Progress != nil {
				o.Progress(done, total)
			}
		})
		if err != nil {
			return a.Report(), fmt.Errorf("audit partition %d: %w", k, err)
		}
	}
	after, err := log.Topic(ctx, events.Name)
	if err != nil {
		return a.Report(), fmt.Errorf("describe the events topic: %w", err)
	}
	a.moved = !slices.Equal(after.Partitions, events.Partitions)
	now, err := describe(ctx, log, o.Topics)
	if err != nil {
		return a.Report(), err
	}
	for _, t := range now {
		whole := true
		for k, p := range t.Partitions {
			whole = whole && p.Start == 0
			known := int64(0)
			if was := before[t.Name]; k < len(was.Partitions) {
				known = was.Partitions[k].End
			}
			err := read(ctx, log, t.Name, int32(k), p, func(r *eventlog.Record) {
				a.message(r, r.Offset < known)
			}, func(int64) {})
			if err != nil {
				return a.Report(), fmt.Errorf("audit topic %s: %w", t.Name, err)
			}
		}
		a.sentAll(t.Name, whole)
	}
	if err := a.letters(ctx, log); err != nil {
		return a.Report(), err
	}
	return a.Finish(), nil
}

// letters compares the dead-letter topic with the events, where both stood still and the
// topic still has its first records.
func (a *Auditor) letters(ctx context.Context, log eventlog.Log) error {
	t, err := log.Topic(ctx, eventlog.DeadLetterTopic(log.App()))
	if err != nil {
		return fmt.Errorf("describe the dead-letter topic: %w", err)
	}
	for _, p := range t.Partitions {
		if a.moved || p.Start > 0 {
			return nil
		}
	}
	for k, p := range t.Partitions {
		if err := read(ctx, log, t.Name, int32(k), p, a.deadLetter, func(int64) {}); err != nil {
			return fmt.Errorf("audit the dead-letter topic: %w", err)
		}
	}
	a.lettersAll(t.Name)
	return nil
}

func describe(ctx context.Context, log eventlog.Log, topics []string) (map[string]eventlog.Topic, error) {
	m := map[string]eventlog.Topic{}
	for _, name := range topics {
		t, err := log.Topic(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", name, err)
		}
		m[name] = t
	}
	return m, nil
}

// read gives the committed records of a partition to f, up to the end that is known.
func read(ctx context.Context, log eventlog.Log, topic string, partition int32, p eventlog.Partition, f func(*eventlog.Record), step func(int64)) error {
	if p.End <= p.Start {
		return nil
	}
	r, err := log.Read(ctx, topic, partition, p.Start, "", eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	for at := p.Start; at < p.End; {
		records, next, err := r.Next(ctx)
		if err != nil {
			return err
		}
		for k := range records {
			if records[k].Offset < p.End {
				f(&records[k])
			}
		}
		step(min(next, p.End) - at)
		at = min(next, p.End)
	}
	return nil
}
