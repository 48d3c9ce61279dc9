package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

func copyStateCommand(e *env) *cobra.Command {
	var from, to string
	var parallel int
	c := &cobra.Command{
		Use: "copy-state --from URL --to URL", Short: "move the state of an application into another store", Args: noArgs,
		Long: "copy-state makes the store --to from the log, which is named by --log, and then compares it byte for byte with the store --from, " +
			"where both stand at the same event, and with the log. The engine should be stopped; what it does meanwhile is missing in --to, and an engine on --to folds it. " +
			"A difference is exit status 5. Interrupted, the next copy-state goes on where it was.",
		RunE: func(c *cobra.Command, _ []string) error { return copyState(c.Context(), e, from, to, parallel) },
	}
	c.Flags().StringVar(&from, "from", "", "`URL` of the store that is copied")
	c.Flags().StringVar(&to, "to", "", "`URL` of the new store")
	c.Flags().IntVar(&parallel, "parallel", 0, "how many partitions at once (0: as many as there are processors)")
	return c
}

// copied is the result.
type copied struct {
	Partitions  int      `json:"partitions"`
	Events      int64    `json:"events"`
	Instances   int64    `json:"instances"`
	Compared    int      `json:"compared"` // partitions that were compared with --from
	Differences int64    `json:"differences"`
	First       []string `json:"first,omitempty"`
}

func copyState(ctx context.Context, e *env, from, to string, parallel int) (err error) {
	switch {
	case from == "" || to == "":
		return failure(statusUsage, "--from and --to are needed")
	case from == to:
		return failure(statusUsage, "--from and --to are the same store")
	case e.store != "":
		return failure(statusUsage, "copy-state has --from and --to instead of --store")
	}
	with := *e
	if with.log == "" {
		with.log = defaultLog
	}
	with.store = from
	log, source, err := with.open(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close(), log.Close()) }()
	with.store = to
	target, err := with.openStore(ctx, log, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	done, err := with.rebuild(ctx, "copy", log, target, engine.RebuildOptions{Parallel: parallel, Resume: true})
	if err != nil {
		return err
	}
	total, err := records(ctx, log, nil)
	if err != nil {
		return err
	}
	bar := with.newProgress("verify", total)
	v, err := engine.Verify(ctx, log, target, func(p int32, n, _ int64) { bar.set(p, n) })
	bar.end()
	if err != nil {
		return err
	}
	r := copied{Partitions: len(done), Instances: v.Instances, Differences: v.Differences, First: v.First}
	for _, x := range done {
		r.Events += x.Events
		same, err := sameRows(ctx, source, target, x.Partition)
		if err != nil {
			return err
		}
		if same == nil {
			continue
		}
		if r.Compared++; !*same {
			r.Differences++
			r.First = append(r.First, fmt.Sprintf("partition %d differs between the two stores", x.Partition))
		}
	}
	if e.asJSON() {
		if err := e.print(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.stdout, "%d partitions with %d instances; %d of them compared with %s, %d differences\n", r.Partitions, r.Instances, r.Compared, source.URL(), r.Differences)
		for _, d := range r.First {
			fmt.Fprintln(e.stdout, clean(d))
		}
	}
	if r.Differences > 0 {
		return failure(statusDifference, "the stores differ")
	}
	return nil
}

// sameRows compares a partition of two stores; nil when they stand at different events.
func sameRows(ctx context.Context, a, b projection.Store, p int32) (*bool, error) {
	x, n, err := engine.StoreSum(ctx, a, p)
	if err != nil {
		return nil, err
	}
	y, m, err := engine.StoreSum(ctx, b, p)
	if err != nil {
		return nil, err
	}
	if n != m {
		return nil, nil
	}
	same := x == y
	return &same, nil
}
