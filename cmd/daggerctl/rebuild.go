package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

type rebuildArgs struct {
	partitions []int
	parallel   int
	resume     bool
	snapshots  string
}

func rebuildCommand(e *env) *cobra.Command {
	var a rebuildArgs
	c := &cobra.Command{
		Use: "rebuild", Short: "make the store anew from the log", Args: noArgs,
		Long: "rebuild folds partitions of the store again, from the beginning of the log or from snapshots. It may be a new store.\n\n" +
			"A partition is built beside the old one and replaces it in one step; interrupted, the next rebuild goes on where it was. " +
			"An engine may work on the store meanwhile, where it lets a second process in: Redis does. " +
			"In a store that can't build aside the partition is emptied first; interrupted, it stands at an earlier event, from which --resume or an engine goes on. " +
			"An engine that works on that folds the partition itself, and rebuild waits for it.",
		RunE: func(c *cobra.Command, _ []string) error { return rebuild(c.Context(), e, a) },
	}
	f := c.Flags()
	f.IntSliceVar(&a.partitions, "partition", nil, "only the partition `N`; may be repeated")
	f.IntVar(&a.parallel, "parallel", 0, "how many partitions at once (0: as many as there are processors)")
	f.BoolVar(&a.resume, "resume", false, "go on from where the store stands instead of emptying it")
	f.StringVar(&a.snapshots, "snapshots", "", "begin with the newest valid snapshots in the bucket `URL`, e.g. file:DIR")
	return c
}

// rebuilt is the result of one partition.
type rebuilt struct {
	Partition int32  `json:"partition"`
	Events    int64  `json:"events"`
	AsOf      uint64 `json:"asOf"`
	From      uint64 `json:"from,omitempty"`
	ByOwner   bool   `json:"byOwner,omitempty"`
}

// rebuild folds partitions of the store again.
func rebuild(ctx context.Context, e *env, a rebuildArgs) (err error) {
	log, store, err := e.open(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), log.Close()) }()
	o := engine.RebuildOptions{Parallel: a.parallel, Resume: a.resume}
	if o.Partitions, err = partitionsOf(log, a.partitions); err != nil {
		return err
	}
	if a.snapshots != "" {
		if o.Snapshots, err = openBucket(ctx, a.snapshots); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Snapshots.Close()) }()
	}
	done, err := e.rebuild(ctx, "rebuild", log, store, o)
	if err != nil {
		return err
	}
	return e.printRebuilt(done)
}

// partitionsOf are those that --partition names; nil is all.
func partitionsOf(log eventlog.Log, given []int) (l []int32, err error) {
	for _, p := range given {
		if p < 0 || p >= int(log.Partitions()) {
			return nil, failure(statusUsage, "--partition %d: the log has partitions 0 to %d", p, log.Partitions()-1)
		}
		if !slices.Contains(l, int32(p)) {
			l = append(l, int32(p))
		}
	}
	return l, nil
}

// rebuild rebuilds and shows how far it is.
func (e *env) rebuild(ctx context.Context, what string, log eventlog.Log, store projection.Store, o engine.RebuildOptions) ([]engine.Rebuilt, error) {
	total, err := records(ctx, log, o.Partitions)
	if err != nil {
		return nil, err
	}
	bar := e.newProgress(what, total)
	defer bar.end()
	o.Progress = func(p int32, n, _ int64) { bar.set(p, n) }
	return engine.Rebuild(ctx, log, store, o)
}

func (e *env) printRebuilt(list []engine.Rebuilt) error {
	done := []rebuilt{}
	for _, r := range list {
		done = append(done, rebuilt{r.Partition, r.Events, r.AsOf, r.From, r.ByOwner})
	}
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
	t := e.table("PARTITION", "FROM", "EVENTS", "AS OF")
	for _, r := range done {
		from := "the beginning"
		switch {
		case r.ByOwner:
			from = "its owner"
		case r.From > 0:
			from = fmt.Sprintf("event %d", r.From)
		}
		t.row(strconv.Itoa(int(r.Partition)), from, strconv.FormatInt(r.Events, 10), strconv.FormatUint(r.AsOf, 10))
	}
	return t.end()
}

// openBucket opens a bucket of snapshots.
func openBucket(ctx context.Context, raw string) (snapshot.Bucket, error) {
	b, err := snapshot.OpenBucket(ctx, raw)
	if scheme, _, _ := strings.Cut(raw, ":"); errors.Is(err, snapshot.ErrURL) || !slices.Contains(snapshot.Schemes(), scheme) {
		return nil, &statusError{statusUsage, err}
	}
	if err != nil {
		return nil, unreachable(err)
	}
	return b, nil
}
