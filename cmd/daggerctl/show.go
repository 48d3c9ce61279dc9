package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

type showArgs struct {
	id     string
	at     string
	events bool
}

func showCommand(e *env) *cobra.Command {
	var a showArgs
	c := &cobra.Command{
		Use: "show ID", Short: "show one instance: its tasks, and what it waits for", Args: oneID,
		Long: "show prints one instance as the log has it now, or as it was at a moment. The store only makes it faster: without --store the log is enough. " +
			"Whether a handler really runs only its worker knows: the log says when its attempt began.\n\n" + atHelp,
		Example: "  daggerctl show order-42\n  daggerctl show order-42 --at 2026-11-24T10:00:00Z\n  daggerctl show order-42 --at 117 --events",
		RunE: func(c *cobra.Command, args []string) error {
			a.id = args[0]
			return show(c.Context(), e, a)
		},
	}
	c.Flags().StringVar(&a.at, "at", "now", "as it was at the `MOMENT`")
	c.Flags().BoolVar(&a.events, "events", false, "print its events too")
	complete(c, e)
	return c
}

// show prints one instance.
func show(ctx context.Context, e *env, a showArgs) (err error) {
	p, err := e.point("at", a.at)
	if err != nil {
		return err
	}
	log, store, err := e.openToRead(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	i, plan, err := engine.ReadInstanceAt(ctx, log, store, a.id, p)
	if err != nil {
		return fmt.Errorf("show %s: %w", a.id, err)
	}
	v := view(i, plan)
	var events []*eventlog.Event
	if a.events {
		if events, err = engine.ReadEventsBetween(ctx, log, store, a.id, engine.AtEvent(0), p); err != nil {
			return fmt.Errorf("show %s: %w", a.id, err)
		}
	}
	if e.asJSON() {
		for _, ev := range events {
			v.Events = append(v.Events, json.RawMessage(eventlog.AppendEvent(nil, ev)))
		}
		return e.print(v)
	}
	return e.showTable(v, events, eventlog.PartitionOf(a.id, log.Partitions()))
}

func (e *env) showTable(v instance, events []*eventlog.Event, partition int32) error {
	t := e.table()
	definition := v.Definition
	if v.Version > 0 {
		definition += " version " + strconv.Itoa(v.Version)
	}
	t.row("Instance", v.ID)
	t.row("Definition", definition+" ("+v.Plan+")")
	t.row("Status", v.Status)
	t.row("Partition", strconv.Itoa(int(partition)))
	t.row("Created", e.time(v.Created))
	t.row("Updated", e.time(v.Updated))
	for _, r := range [][2]string{{"Ended", e.timep(v.Ended)}, {"Failed at", v.FailedPath}, {"Error", v.Error}, {"Reason", v.Reason}, {"Parameters", string(v.Parameters)}} {
		if r[1] != "" {
			t.row(r[0], r[1])
		}
	}
	if err := t.end(); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout)
	t = e.table("TASK", "KIND", "STATUS", "ATTEMPT", "SINCE", "DUE", "NOTE")
	for _, k := range v.Tasks {
		attempt := ""
		if k.Attempt > 0 {
			attempt = strconv.Itoa(k.Attempt)
		}
		note := k.WaitsFor
		if note == "" {
			note = k.Error
		}
		t.row(k.Path, k.Kind, k.Status, attempt, e.timep(k.Since), e.timep(k.Due), note)
	}
	if err := t.end(); err != nil || events == nil {
		return err
	}
	fmt.Fprintln(e.stdout)
	return e.eventTable(events)
}

// eventTable prints events.
func (e *env) eventTable(events []*eventlog.Event) error {
	t := e.table("N", "SEQ", "AT", "EVENT", "PATH", "DETAIL")
	for _, ev := range events {
		seq := ""
		if ev.Seq > 0 {
			seq = strconv.FormatUint(ev.Seq, 10)
		}
		t.row(strconv.FormatUint(ev.N, 10), seq, e.time(time.UnixMilli(ev.At)), string(ev.Type), ev.Path, e.detail(ev))
	}
	return t.end()
}

// detail is what is worth a look in an event, in few words.
func (e *env) detail(ev *eventlog.Event) string {
	switch {
	case ev.Error != "":
		s := line(ev.Error)
		if ev.Attempt > 0 {
			s = fmt.Sprintf("attempt %d: %s", ev.Attempt, s)
		}
		return s
	case ev.Reason != "":
		return line(ev.Reason)
	case ev.Sent != nil:
		return fmt.Sprintf("sent %d bytes to %s", ev.Sent.Size, ev.Sent.Topic)
	case ev.Topic != "":
		return fmt.Sprintf("%s %s=%s", ev.Topic, ev.Key, ev.Value)
	case len(ev.Starts) > 0:
		s := "starts"
		for _, x := range ev.Starts {
			s += " " + x.Path
		}
		return s
	case ev.Type == eventlog.PartitionOwned:
		return ev.Worker
	case ev.Type == eventlog.PlanUsed:
		return ev.Plan
	case ev.Attempt > 1:
		return fmt.Sprintf("attempt %d", ev.Attempt)
	}
	return ""
}
