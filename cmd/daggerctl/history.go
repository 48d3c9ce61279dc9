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

type historyArgs struct {
	id string
	at string
}

func historyCommand(e *env) *cobra.Command {
	var a historyArgs
	c := &cobra.Command{
		Use: "history ID", Short: "show what happened to one instance, who did it, and what it waited for and how long", Args: oneID,
		Long: "history prints the events of one instance as a timeline: when, who made it happen (a call, a handler, a message, a timer, or the engine, " +
			"which goes on from what was there), and under each event what ended with it and how long that took. What goes on stands at the end.\n\n" + atHelp,
		Example: "  daggerctl history order-42\n  daggerctl history order-42 --at 2026-11-24T10:00:00Z\n  daggerctl history order-42 -o jsonl",
		RunE: func(c *cobra.Command, args []string) error {
			a.id = args[0]
			return history(c.Context(), e, a)
		},
	}
	c.Flags().StringVar(&a.at, "at", "now", "up to the `MOMENT`")
	complete(c, e)
	return c
}

// step is an entry of the timeline as JSON.
type step struct {
	N      uint64          `json:"n"`
	Seq    uint64          `json:"seq,omitempty"`
	At     time.Time       `json:"at"`
	Type   string          `json:"type"`
	Path   string          `json:"path,omitempty"`
	By     string          `json:"by"`
	Caller string          `json:"caller,omitempty"`
	Worker string          `json:"worker,omitempty"`
	Text   string          `json:"text,omitempty"`
	Ended  []spent         `json:"ended,omitempty"`
	Event  json.RawMessage `json:"event"`
}

// spent is how long a task did one thing.
type spent struct {
	Path    string     `json:"path,omitempty"`
	What    string     `json:"what"`
	From    time.Time  `json:"from"`
	To      *time.Time `json:"to,omitempty"`
	Seconds float64    `json:"seconds"`
}

// timeline is the result as JSON.
type timeline struct {
	ID         string  `json:"id"`
	Definition string  `json:"definition"`
	Status     string  `json:"status"`
	Steps      []step  `json:"steps"`
	Open       []spent `json:"open"` // what goes on
}

// history prints the timeline of an instance.
func history(ctx context.Context, e *env, a historyArgs) (err error) {
	p, err := e.point("at", a.at)
	if err != nil {
		return err
	}
	log, store, err := e.openToRead(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	t, err := engine.ReadTimeline(ctx, log, store, a.id, p)
	if err != nil {
		return fmt.Errorf("history of %s: %w", a.id, err)
	}
	now := e.now()
	r := timeline{ID: a.id, Definition: t.Instance.Definition, Status: t.Instance.StatusName(), Open: []spent{}}
	for _, s := range t.Steps {
		x := step{N: s.N, Seq: s.Seq, At: s.At, Type: string(s.Type), Path: s.Path, By: s.By, Caller: s.Event.Caller, Worker: s.Worker, Text: s.Text, Event: eventlog.AppendEvent(nil, s.Event)}
		for _, k := range s.Spans {
			x.Ended = append(x.Ended, spentOn(k, now))
		}
		r.Steps = append(r.Steps, x)
	}
	for _, k := range t.Open {
		r.Open = append(r.Open, spentOn(k, now))
	}
	switch e.output {
	case "json":
		return e.print(r)
	case "jsonl":
		for _, x := range r.Steps {
			if err := e.print(x); err != nil {
				return err
			}
		}
		return nil
	}
	return e.printTimeline(r, p.IsNow())
}

func spentOn(s engine.Span, now time.Time) spent {
	x := spent{Path: s.Path, What: s.What, From: s.From, Seconds: s.Duration(now).Seconds()}
	if !s.To.IsZero() {
		x.To = &s.To
	}
	return x
}

func (x spent) String() string {
	s := x.What
	if x.Path != "" {
		s = x.Path + " " + s
	}
	return s + " for " + span(time.Duration(x.Seconds*float64(time.Second)))
}

func (e *env) printTimeline(r timeline, now bool) error {
	t := e.table("N", "AT", "AFTER", "EVENT", "TASK", "BY", "WHAT")
	var last time.Time
	for _, s := range r.Steps {
		after := ""
		if d := s.At.Sub(last); !last.IsZero() && d >= 0 {
			after = "+" + span(d)
		}
		last = s.At
		who := s.By
		if s.Caller != "" {
			who += " of " + s.Caller
		}
		if who == engine.ByEngine || who == engine.ByHandler {
			who += " at " + s.Worker
		}
		t.row(strconv.FormatUint(s.N, 10), e.time(s.At), after, s.Type, s.Path, who, line(s.Text))
		for _, x := range s.Ended {
			path := x.Path
			x.Path = ""
			t.row("", "", "", "", path, "", "  "+x.String())
		}
	}
	if err := t.end(); err != nil {
		return err
	}
	for _, x := range r.Open {
		if !now {
			x.Seconds = last.Sub(x.From).Seconds()
		}
		if _, err := fmt.Fprintln(e.stdout, "still: "+clean(x.String())); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	return nil
}
