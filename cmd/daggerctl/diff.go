package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

type diffArgs struct {
	id       string
	from, to string
}

func diffCommand(e *env) *cobra.Command {
	var a diffArgs
	c := &cobra.Command{
		Use: "diff ID --from MOMENT [--to MOMENT]", Short: "show what is different in one instance between two moments", Args: oneID,
		Long: "diff prints what came (+), went (-) and changed (~) in the state of one instance between two moments, and the events that did it. " +
			"A difference is exit status 5.\n\n" + atHelp,
		Example: "  daggerctl diff order-42 --from 2h\n  daggerctl diff order-42 --from 117 --to 130\n  daggerctl diff order-42 --from 2026-11-24 --to 2026-11-25 -o json",
		RunE: func(c *cobra.Command, args []string) error {
			a.id = args[0]
			return diff(c.Context(), e, a)
		},
	}
	c.Flags().StringVar(&a.from, "from", "", "the earlier `MOMENT` (needed)")
	c.Flags().StringVar(&a.to, "to", "now", "the later `MOMENT`")
	complete(c, e)
	return c
}

// difference is the result as JSON.
type difference struct {
	ID      string            `json:"id"`
	Changes []engine.Change   `json:"changes"`
	Events  []json.RawMessage `json:"events"` // that the later moment has more
}

// diff compares an instance at two moments.
func diff(ctx context.Context, e *env, a diffArgs) (err error) {
	if a.from == "" {
		return failure(statusUsage, "--from is needed")
	}
	from, err := e.point("from", a.from)
	if err != nil {
		return err
	}
	to, err := e.point("to", a.to)
	if err != nil {
		return err
	}
	log, store, err := e.openToRead(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	was, errWas := stateAt(ctx, log, store, a.id, from)
	is, errIs := stateAt(ctx, log, store, a.id, to)
	for _, x := range []error{errWas, errIs} {
		if x != nil && !errors.Is(x, engine.ErrNotFound) {
			return fmt.Errorf("diff %s: %w", a.id, x)
		}
	}
	if errWas != nil && errIs != nil {
		return fmt.Errorf("diff %s: at neither moment: %w", a.id, engine.ErrNotFound)
	}
	d := difference{ID: a.id, Changes: engine.Changes(was, is), Events: []json.RawMessage{}}
	if d.Changes == nil {
		d.Changes = []engine.Change{}
	}
	events, err := engine.ReadEventsBetween(ctx, log, store, a.id, from, to)
	if err != nil {
		return fmt.Errorf("diff %s: %w", a.id, err)
	}
	if from.IsNow() {
		events = nil
	}
	for _, ev := range events {
		d.Events = append(d.Events, eventlog.AppendEvent(nil, ev))
	}
	if e.asJSON() {
		if err := e.print(d); err != nil {
			return err
		}
	} else {
		for _, c := range d.Changes {
			fmt.Fprintln(e.stdout, clean(c.String()))
		}
		if len(events) > 0 {
			fmt.Fprintln(e.stdout)
			if err := e.eventTable(events); err != nil {
				return err
			}
		}
	}
	if n := len(d.Changes); n > 0 {
		return failure(statusDifference, "%s differs in %d places", a.id, n)
	}
	return nil
}

// stateAt is the state of an instance as it is compared.
func stateAt(ctx context.Context, log eventlog.Log, store projection.Store, id string, p engine.Point) ([]byte, error) {
	i, _, err := engine.ReadInstanceAt(ctx, log, store, id, p)
	if err != nil {
		return nil, err
	}
	return engine.Comparable(i)
}
