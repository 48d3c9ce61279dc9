package engine

import (
	"bytes"
	"context"
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// prefix is what an earlier attempt to fill a log has appended to a partition. What is
// appended now is compared with it, record by record, and not appended a second time.
type prefix struct {
	log     eventlog.Log
	topic   string
	at, end int64 // offsets
	reader  eventlog.Reader
	have    []eventlog.Record
}

// prefixOf looks at a partition as it is now.
func prefixOf(ctx context.Context, log eventlog.Log, topic string, partition int32, isolation eventlog.Isolation) (*prefix, error) {
	t, err := log.Topic(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	x := &prefix{log: log, topic: topic, at: t.Partitions[partition].Start, end: t.Partitions[partition].End}
	if x.at < x.end {
		if x.reader, err = log.Read(ctx, topic, partition, x.at, t.ID, isolation); err != nil {
			return nil, fmt.Errorf("read topic %s: %w", topic, err)
		}
	}
	return x, nil
}

// next is the next record of the earlier attempt; nil when there is none left.
func (x *prefix) next(ctx context.Context) (*eventlog.Record, error) {
	for len(x.have) == 0 {
		if x.at >= x.end {
			return nil, nil
		}
		records, next, err := x.reader.Next(ctx)
		if err != nil {
			return nil, fmt.Errorf("read topic %s: %w", x.topic, err)
		}
		x.at = next
		for _, r := range records {
			if r.Offset < x.end && !eventlog.IsBarrier(r.Value) {
				x.have = append(x.have, r)
			}
		}
	}
	r := x.have[0]
	x.have = x.have[1:]
	return &r, nil
}

// has says whether the earlier attempt has appended a record. ErrNotEmpty: it, or somebody
// else, has appended another one there.
func (x *prefix) has(ctx context.Context, r *eventlog.Record) (bool, error) {
	is, err := x.next(ctx)
	if err != nil || is == nil {
		return false, err
	}
	if !bytes.Equal(is.Key, r.Key) || !bytes.Equal(is.Value, r.Value) {
		return false, x.other(is)
	}
	return true, nil
}

func (x *prefix) other(is *eventlog.Record) error {
	return fmt.Errorf("%w: offset %d of partition %d of topic %s of %s is not what this would write; throw the log away and begin again with an empty one",
		ErrNotEmpty, is.Offset, is.Partition, x.topic, x.log.URL())
}

// ended refuses what is left over.
func (x *prefix) ended(ctx context.Context) error {
	is, err := x.next(ctx)
	if err == nil && is != nil {
		err = x.other(is)
	}
	return err
}

func (x *prefix) close() {
	if x.reader != nil {
		x.reader.Close()
		x.reader = nil
	}
}

// publishKeyed appends records of a compacted topic of one partition whose keys are not there
// yet.
func publishKeyed(ctx context.Context, log eventlog.Log, records []eventlog.Record) error {
	if len(records) == 0 {
		return nil
	}
	x, err := prefixOf(ctx, log, records[0].Topic, 0, eventlog.ReadUncommitted)
	if err != nil {
		return err
	}
	defer x.close()
	there := map[string]*eventlog.Record{}
	for {
		r, err := x.next(ctx)
		if err != nil {
			return err
		}
		if r == nil {
			break
		}
		there[string(r.Key)] = r
	}
	var missing []eventlog.Record
	for k := range records {
		switch is := there[string(records[k].Key)]; {
		case is == nil:
			missing = append(missing, records[k])
		case !bytes.Equal(is.Value, records[k].Value):
			return x.other(is)
		}
	}
	return publish(ctx, log, missing)
}

// appender appends records to a partition behind those that an earlier attempt has appended.
type appender struct {
	log    eventlog.Log
	before *prefix
}

func newAppender(ctx context.Context, log eventlog.Log, topic string, partition int32) (*appender, error) {
	before, err := prefixOf(ctx, log, topic, partition, eventlog.ReadUncommitted)
	if err != nil {
		return nil, err
	}
	return &appender{log, before}, nil
}

func (a *appender) add(ctx context.Context, records []eventlog.Record) error {
	for len(records) > 0 {
		has, err := a.before.has(ctx, &records[0])
		if err != nil {
			return err
		}
		if !has {
			return publish(ctx, a.log, records)
		}
		records = records[1:]
	}
	return nil
}

// end refuses what is left over, and closes.
func (a *appender) end(ctx context.Context) error {
	defer a.before.close()
	return a.before.ended(ctx)
}

func (a *appender) close() { a.before.close() }
