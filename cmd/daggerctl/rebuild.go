package main

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/engine"
)

type rebuildArgs struct{ partitions []int }

func rebuildCommand(e *env) *cobra.Command {
	var a rebuildArgs
	c := &cobra.Command{
		Use: "rebuild", Short: "make the store anew from the log", Args: noArgs,
		Long: "rebuild empties partitions of the store and folds them again from the beginning of the log. It may be a new store. " +
			"When it is interrupted, the partition at work stands at an earlier event: rebuild it again, or let an engine go on from there.",
		RunE: func(c *cobra.Command, _ []string) error { return rebuild(c.Context(), e, a) },
	}
	c.Flags().IntSliceVar(&a.partitions, "partition", nil, "only the partition `N`; may be repeated")
	return c
}

// rebuilt is the result of one partition.
type rebuilt struct {
	Partition int32  `json:"partition"`
	Events    int64  `json:"events"`
	AsOf      uint64 `json:"as_of"`
}

// rebuild folds partitions of the store again.
func rebuild(ctx context.Context, e *env, a rebuildArgs) (err error) {
	log, store, err := e.open(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), log.Close()) }()
	var partitions []int32
	for _, p := range a.partitions {
		if p < 0 || p >= int(log.Partitions()) {
			return failure(statusUsage, "--partition %d: the log has partitions 0 to %d", p, log.Partitions()-1)
		}
		if !slices.Contains(partitions, int32(p)) {
			partitions = append(partitions, int32(p))
		}
	}
	if len(partitions) == 0 {
		for p := range log.Partitions() {
			partitions = append(partitions, p)
		}
	}
	total, err := records(ctx, log, partitions)
	if err != nil {
		return err
	}
	bar := e.newProgress("rebuild", total)
	done := []rebuilt{}
	for _, p := range partitions {
		r, err := engine.Rebuild(ctx, log, store, p, func(n, _ int64) { bar.set(p, n) })
		if err != nil {
			bar.end()
			return err
		}
		done = append(done, rebuilt{p, r.Events, r.AsOf})
	}
	bar.end()
	switch e.output {
	case "json":
		return e.print(done)
	case "jsonl":
		for _, r := range done {
			if err := e.print(r); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("PARTITION", "EVENTS", "AS OF")
	for _, r := range done {
		t.row(strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Events, 10), strconv.FormatUint(r.AsOf, 10))
	}
	return t.end()
}
