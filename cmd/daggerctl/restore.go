package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

func restoreCommand(e *env) *cobra.Command {
	var from string
	var parallel int
	c := &cobra.Command{
		Use: "restore --from URL", Short: "make the store anew from snapshots and the rest of the log", Args: noArgs,
		Long: "restore fills the store of a whole application from the newest valid snapshots in a bucket, and folds the rest of the log. " +
			"A snapshot whose checksum is wrong, or which is not of this log, is passed over for an older one; a partition without any is folded from the log alone. " +
			"The store may be of another kind than the one the snapshots were taken from.",
		RunE: func(c *cobra.Command, _ []string) error { return restore(c.Context(), e, from, parallel) },
	}
	c.Flags().StringVar(&from, "from", "", "the bucket's `URL`, e.g. file:DIR")
	c.Flags().IntVar(&parallel, "parallel", 0, "how many partitions at once (0: as many as there are processors)")
	return c
}

func restore(ctx context.Context, e *env, from string, parallel int) (err error) {
	if from == "" {
		return failure(statusUsage, "--from is needed: the bucket with the snapshots")
	}
	log, store, err := e.open(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), log.Close()) }()
	b, err := openBucket(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	any := 0
	for p := range log.Partitions() {
		list, _, err := snapshot.List(ctx, b, id, p, "")
		if err != nil {
			return unreachable(err)
		}
		any += len(list)
	}
	if any == 0 {
		return failure(statusNotFound, "%s has no snapshots of %s; rebuild makes the store from the log alone", b.URL(), log.App())
	}
	done, err := e.rebuild(ctx, "restore", log, store, engine.RebuildOptions{Snapshots: b, Parallel: parallel})
	if err != nil {
		return err
	}
	return e.printRebuilt(done)
}

func snapshotCommand(e *env) *cobra.Command {
	var to string
	var keep int
	var trim bool
	c := &cobra.Command{
		Use: "snapshot --to URL", Short: "copy the store's partitions into a bucket", Args: noArgs,
		Long: "snapshot copies each partition of the store as of one event into a bucket, in a form that can be restored into any store. " +
			"An engine does the same by itself with Config.Snapshots. " +
			"With --trim the log then drops the events that are needed neither beside the oldest kept snapshot, nor beside this store, nor by a cursor in the bucket.",
		RunE: func(c *cobra.Command, _ []string) error { return takeSnapshots(c.Context(), e, to, keep, trim) },
	}
	c.Flags().StringVar(&to, "to", "", "the bucket's `URL`, e.g. file:DIR")
	c.Flags().IntVar(&keep, "keep", 3, "how many snapshots of a partition stay")
	c.Flags().BoolVar(&trim, "trim", false, "let the log drop events that no kept snapshot needs")
	return c
}

// taken is the snapshot of one partition.
type taken struct {
	Partition int32  `json:"partition"`
	AsOf      uint64 `json:"asOf"`
	Rows      int64  `json:"rows"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
	Object    string `json:"object"`
}

func takeSnapshots(ctx context.Context, e *env, to string, keep int, trim bool) (err error) {
	if to == "" || keep < 1 {
		return failure(statusUsage, "--to is needed, and --keep is at least 1")
	}
	log, store, err := e.open(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), log.Close()) }()
	b, err := openBucket(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	list := []taken{}
	bar := e.newProgress("snapshot", int64(log.Partitions()))
	defer bar.end()
	for p := range log.Partitions() {
		m, err := engine.TakeSnapshot(ctx, log, store, p, engine.Snapshots{Bucket: b, Keep: keep, Trim: trim})
		if err != nil {
			return err
		}
		if m.N > 0 {
			list = append(list, taken{p, m.N, m.Rows, m.Bytes, m.SHA256, m.Object})
		}
		bar.set(p, 1)
	}
	bar.end()
	if e.asJSON() {
		return e.print(list)
	}
	t := e.table("PARTITION", "AS OF", "ROWS", "BYTES", "OBJECT")
	for _, x := range list {
		t.row(strconv.Itoa(int(x.Partition)), strconv.FormatUint(x.AsOf, 10), strconv.FormatInt(x.Rows, 10), strconv.FormatInt(x.Bytes, 10), x.Object)
	}
	return t.end()
}
