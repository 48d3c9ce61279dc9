package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/drawing"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
)

type drawArgs struct {
	id, definition, at string
	mermaid            bool
}

func drawCommand(e *env) *cobra.Command {
	var a drawArgs
	c := &cobra.Command{
		Use: "draw (ID | --definition NAME)", Short: "draw what an instance or a definition consists of",
		Long: "draw prints the tree of a definition: kinds, policies and, of an instance, the status of each node. Of what runs more than once, as in a ForEach, " +
			"the worst status is printed. --mermaid prints a flowchart for Mermaid instead.",
		Example: "  daggerctl draw order-42\n  daggerctl draw --definition OrderWorkflow --mermaid",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (a.definition != "") {
				return failure(statusUsage, "either one instance id or --definition is needed")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.id = args[0]
			}
			return draw(c.Context(), e, a)
		},
	}
	c.Flags().StringVar(&a.definition, "definition", "", "the newest version of the definition with this `NAME`, or NAME@HASH")
	c.Flags().StringVar(&a.at, "at", "now", "the instance as it was at the `MOMENT`")
	c.Flags().BoolVar(&a.mermaid, "mermaid", false, "print a flowchart for Mermaid")
	complete(c, e)
	return c
}

// draw prints a plan.
func draw(ctx context.Context, e *env, a drawArgs) (err error) {
	p, err := e.point("at", a.at)
	if err != nil {
		return err
	}
	log, store, err := e.openToRead(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	var plan *machine.Plan
	var i *machine.Instance
	if a.id != "" {
		if i, plan, err = engine.ReadInstanceAt(ctx, log, store, a.id, p); err != nil {
			return fmt.Errorf("draw %s: %w", a.id, err)
		}
		if plan == nil {
			return fmt.Errorf("draw %s: its plan is unknown", a.id)
		}
	} else if plan, err = engine.ReadDefinition(ctx, log, a.definition); err != nil {
		return fmt.Errorf("draw %s: %w", a.definition, err)
	}
	if a.mermaid {
		_, err = fmt.Fprint(e.stdout, drawing.Mermaid(plan, i))
		return err
	}
	lines := drawing.Tree(plan, i)
	if e.asJSON() {
		return e.print(lines)
	}
	t := e.table("NODE", "KIND", "STATUS", "POLICIES")
	for _, l := range lines {
		t.row(strings.Repeat("  ", l.Depth)+l.Name, string(l.Kind), string(l.Status), l.Says)
	}
	return t.end()
}
