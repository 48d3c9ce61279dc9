package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/engine"
)

func snapshotsCommand(e *env) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use: "snapshots --from URL", Short: "list the snapshots of this log in a bucket", Args: noArgs,
		Long: "snapshots prints what restore and rebuild --snapshots would begin with: of each partition the newest first. " +
			"Whether a snapshot is whole is checked only when it is used.",
		RunE: func(c *cobra.Command, _ []string) error { return listSnapshots(c.Context(), e, from) },
	}
	c.Flags().StringVar(&from, "from", "", "the bucket's `URL`, e.g. file:DIR (needed)")
	return c
}

// kept is a snapshot in a bucket.
type kept struct {
	taken
	Taken time.Time `json:"taken"`
}

func listSnapshots(ctx context.Context, e *env, from string) (err error) {
	if from == "" {
		return failure(statusUsage, "--from is needed: the bucket with the snapshots")
	}
	log, err := e.openLog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	b, err := openBucket(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	found, damaged, err := engine.ListSnapshots(ctx, log, b)
	if err != nil {
		return unreachable(err)
	}
	for _, name := range damaged {
		e.note("%s can't be read", clean(name))
	}
	if len(found) == 0 {
		e.note("there are no snapshots of %s in %s", log.App(), b.URL())
	}
	list := []kept{}
	for _, m := range found {
		list = append(list, kept{taken{m.Partition, m.N, m.Rows, m.Bytes, m.SHA256, m.Object}, m.Taken})
	}
	switch e.output {
	case "json":
		return e.print(list)
	case "jsonl":
		for _, x := range list {
			if err := e.print(x); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("PARTITION", "AS OF", "TAKEN", "ROWS", "BYTES", "OBJECT")
	for _, x := range list {
		t.row(strconv.Itoa(int(x.Partition)), strconv.FormatUint(x.AsOf, 10), e.time(x.Taken), strconv.FormatInt(x.Rows, 10), strconv.FormatInt(x.Bytes, 10), x.Object)
	}
	return t.end()
}
