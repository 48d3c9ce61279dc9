package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
)

type tailArgs struct {
	fromStart  bool
	follow     bool
	id         string
	types      []string
	partitions []int
}

func tailCommand(e *env) *cobra.Command {
	var a tailArgs
	c := &cobra.Command{
		Use: "tail", Short: "follow the events", Args: noArgs,
		Long: "tail prints events as they come, until it is interrupted: each partition in order, partitions as they come. " +
			"With -o jsonl (or json) a line is {\"partition\":…,\"offset\":…,\"event\":{…}}.",
		RunE: func(c *cobra.Command, _ []string) error { return tail(c.Context(), e, a) },
	}
	f := c.Flags()
	f.BoolVar(&a.fromStart, "from-start", false, "begin with the first event, not with the next one")
	f.BoolVar(&a.follow, "follow", true, "wait for more at the end; --follow=false ends there")
	f.StringVar(&a.id, "id", "", "only events about the instance `ID`")
	f.StringSliceVar(&a.types, "type", nil, "only events of the `TYPE`; may be repeated")
	f.IntSliceVar(&a.partitions, "partition", nil, "only the partition `N`; may be repeated")
	return c
}

// tailed is an event as JSON.
type tailed struct {
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Event     json.RawMessage `json:"event"`
}

// tail prints events until ctx ends or, without follow, the end is reached.
func tail(ctx context.Context, e *env, a tailArgs) (err error) {
	for _, t := range a.types {
		if eventlog.MaxVersion(eventlog.Type(t)) == 0 {
			return failure(statusUsage, "--type: no event is a %q; docs/event-log.md lists the types", t)
		}
	}
	log, err := e.openLog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return fmt.Errorf("describe the events topic: %w", err)
	}
	for _, p := range a.partitions {
		if p < 0 || p >= len(topic.Partitions) {
			return failure(statusUsage, "--partition %d: the log has partitions 0 to %d", p, len(topic.Partitions)-1)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var out sync.Mutex
	for k, p := range topic.Partitions {
		if len(a.partitions) > 0 && !slices.Contains(a.partitions, k) {
			continue
		}
		if a.id != "" && len(a.types) == 0 && int32(k) != eventlog.PartitionOf(a.id, log.Partitions()) {
			continue // its history is in one partition
		}
		from, until := p.End, p.End
		if a.fromStart {
			from = p.Start
		}
		if a.follow {
			until = -1
		}
		one := func() {
			if err := follow(ctx, log, topic, int32(k), from, until, func(r *eventlog.Record) error {
				out.Lock()
				defer out.Unlock()
				return e.printEvent(r, a)
			}); err != nil {
				cancel(err) // the first one counts
			}
		}
		if a.follow {
			wg.Go(one)
		} else {
			one()
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}

// follow gives the records of a partition to f, up to an offset; -1 = for ever.
func follow(ctx context.Context, log eventlog.Log, topic eventlog.Topic, partition int32, from, until int64, f func(*eventlog.Record) error) error {
	if until >= 0 && from >= until {
		return nil
	}
	r, err := log.Read(ctx, topic.Name, partition, from, topic.ID, eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read %s/%d: %w", topic.Name, partition, err)
	}
	defer r.Close()
	for at := from; until < 0 || at < until; {
		var records []eventlog.Record
		if records, at, err = r.Next(ctx); err != nil {
			return fmt.Errorf("read %s/%d: %w", topic.Name, partition, err)
		}
		for k := range records {
			if until >= 0 && records[k].Offset >= until {
				return nil
			}
			if eventlog.IsBarrier(records[k].Value) {
				continue
			}
			if err := f(&records[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *env) printEvent(r *eventlog.Record, a tailArgs) error {
	var ev eventlog.Event
	if err := eventlog.DecodeEvent(r.Value, &ev); err != nil {
		return fmt.Errorf("partition %d offset %d: %w", r.Partition, r.Offset, err)
	}
	if a.id != "" && ev.ID != a.id {
		return nil
	}
	if len(a.types) > 0 && !slices.Contains(a.types, string(ev.Type)) {
		return nil
	}
	var err error
	if e.asJSON() {
		enc := json.NewEncoder(e.stdout)
		enc.SetEscapeHTML(false)
		err = enc.Encode(tailed{r.Partition, r.Offset, r.Value})
	} else {
		seq := ""
		if ev.Seq > 0 {
			seq = strconv.FormatUint(ev.Seq, 10)
		}
		at := time.UnixMilli(ev.At).UTC().Format("2006-01-02T15:04:05.000Z")
		_, err = fmt.Fprintf(e.stdout, "%s  %2d  %8d  %-20s  %s  %s  %s  %s\n", at, r.Partition, ev.N, ev.Type, clean(ev.ID), seq, clean(ev.Path), clean(e.detail(&ev)))
	}
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
