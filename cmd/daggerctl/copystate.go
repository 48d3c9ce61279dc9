package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/engine"
)

func copyStateCommand(e *env) *cobra.Command {
	var from, to string
	var parallel int
	c := &cobra.Command{
		Use: "copy-state --from URL --to URL", Short: "move the state of an application into another store", Args: noArgs,
		Annotations: map[string]string{without: "store"},
		Long: "copy-state makes the store --to from the log, which is named by --log, and then compares it byte for byte with the log and with the store --from; " +
			"where that stands at another event, it is compared with the log as of that one. The engine should be stopped; what it does meanwhile is missing in --to, and an engine on --to folds it. " +
			"A difference is exit status 5. Interrupted, the next copy-state goes on where it was.",
		RunE: func(c *cobra.Command, _ []string) error { return copyState(c.Context(), e, from, to, parallel) },
	}
	c.Flags().StringVar(&from, "from", "", "`URL` of the store that is copied")
	c.Flags().StringVar(&to, "to", "", "`URL` of the new store")
	c.Flags().IntVar(&parallel, "parallel", 0, "how many partitions at once (0: as many as there are processors)")
	return c
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
	total, err := records(ctx, log, nil)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	bar, verifies := with.newProgress("copy", total), false
	r, err := engine.CopyState(ctx, log, source, target, engine.CopyStateOptions{Parallel: parallel, Progress: func(compares bool, p int32, done, _ int64) {
		mu.Lock()
		defer mu.Unlock()
		if compares && !verifies {
			bar.end()
			bar, verifies = with.newProgress("verify", total), true
		}
		bar.set(p, done)
	}})
	bar.end()
	if err != nil {
		return err
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
