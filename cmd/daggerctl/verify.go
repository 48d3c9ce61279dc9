package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/engine"
)

// shownChanges of a row are printed.
const shownChanges = 20

type verifyArgs struct {
	partitions []int
	audit      bool
	topics     []string
	settled    bool
}

func verifyCommand(e *env) *cobra.Command {
	var a verifyArgs
	c := &cobra.Command{
		Use: "verify", Short: "fold the log from its beginning and compare the store byte for byte", Args: noArgs,
		Long: "verify folds each partition of the log from its beginning up to where the store stands, and compares all rows byte for byte. " +
			"It changes nothing, and an engine may work meanwhile. The first ten rows that differ are printed with what differs: " +
			"~ from what the log says to what the store has, + the store alone has it, - the log alone. A difference is exit status 5: rebuild then makes the store anew.\n\n" +
			"With --audit it also checks the log itself, event by event, against the promises of the engine.",
		Example: "  daggerctl verify\n  daggerctl verify --audit --settled -o json",
		RunE:    func(c *cobra.Command, _ []string) error { return verify(c.Context(), e, a) },
	}
	f := c.Flags()
	f.IntSliceVar(&a.partitions, "partition", nil, "compare only the partition `N`; may be repeated")
	f.BoolVar(&a.audit, "audit", false, "check the log itself too")
	f.StringSliceVar(&a.topics, "audit-topic", nil, "with --audit: compare the messages in the `TOPIC` of a Command task with the events; those of other applications are left out")
	f.BoolVar(&a.settled, "settled", false, "with --audit: nothing is under way, so everything that was told must have been decided")
	return c
}

// verified is the result as JSON.
type verified struct {
	Partitions  int               `json:"partitions"`
	Events      int64             `json:"events"`
	Instances   int64             `json:"instances"`
	Differences int64             `json:"differences"`
	Unindexed   int64             `json:"unindexed,omitempty"`
	AsOf        map[string]uint64 `json:"asOf"` // event numbers, by partition
	First       []string          `json:"first,omitempty"`
	// Found is First with what differs.
	Found []engine.Difference `json:"found,omitempty"`
	Audit *audit.Report       `json:"audit,omitempty"`
}

// verify compares the store with the log.
func verify(ctx context.Context, e *env, a verifyArgs) (err error) {
	if !a.audit && (len(a.topics) > 0 || a.settled) {
		return failure(statusUsage, "--audit-topic and --settled go with --audit")
	}
	log, store, err := e.open(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), log.Close()) }()
	partitions, err := partitionsOf(log, a.partitions)
	if err != nil {
		return err
	}
	total, err := records(ctx, log, partitions)
	if err != nil {
		return err
	}
	p := e.newProgress("verify", total)
	v, err := engine.VerifyPartitions(ctx, log, store, partitions, func(partition int32, done, _ int64) { p.set(partition, done) })
	p.end()
	if err != nil {
		return err
	}
	r := verified{Partitions: v.Partitions, Events: v.Events, Instances: v.Instances, Differences: v.Differences, Unindexed: v.Unindexed, AsOf: map[string]uint64{}, First: v.First, Found: v.Found}
	for partition, n := range v.AsOf {
		r.AsOf[strconv.Itoa(int(partition))] = n
	}
	if a.audit {
		if total, err = records(ctx, log, nil); err != nil {
			return err
		}
		p := e.newProgress("audit", total)
		report, err := audit.Log(ctx, log, audit.Options{Topics: a.topics, Settled: a.settled, Progress: func(done, _ int64) { p.set(0, done) }})
		p.end()
		if err != nil {
			return err
		}
		r.Audit = &report
	}
	if err := e.printVerified(r); err != nil {
		return err
	}
	switch {
	case r.Differences > 0:
		return failure(statusDifference, "the store differs from the log in %d rows", r.Differences)
	case r.Audit != nil && r.Audit.Violations > 0:
		return failure(statusDifference, "the log has %d violations", r.Audit.Violations)
	}
	return nil
}

func (e *env) printVerified(r verified) error {
	if e.asJSON() {
		return e.print(r)
	}
	t := e.table("PARTITIONS", "EVENTS", "INSTANCES", "DIFFERENCES")
	t.row(strconv.Itoa(r.Partitions), strconv.FormatInt(r.Events, 10), strconv.FormatInt(r.Instances, 10), strconv.FormatInt(r.Differences, 10))
	if err := t.end(); err != nil {
		return err
	}
	for _, d := range r.Found {
		fmt.Fprintf(e.stdout, "partition %d: %s\n", d.Partition, clean(d.Text))
		for k, c := range d.Changes {
			if k == shownChanges {
				fmt.Fprintf(e.stdout, "  and %d more\n", len(d.Changes)-k)
				break
			}
			fmt.Fprintln(e.stdout, "  "+clean(c.String()))
		}
	}
	if n := r.Differences - int64(len(r.Found)); n > 0 {
		fmt.Fprintf(e.stdout, "and %d more rows\n", n)
	}
	if r.Unindexed > 0 {
		fmt.Fprintf(e.stdout, "%d blocks of events are not in the store's index of ids: an earlier version folded them. Nothing is wrong, and rebuild adds them\n", r.Unindexed)
	}
	if r.Audit == nil {
		return nil
	}
	fmt.Fprintf(e.stdout, "audit: %d events of %d instances, %d messages, %d violations\n", r.Audit.Events, r.Audit.Instances, r.Audit.Messages, r.Audit.Violations)
	for _, v := range r.Audit.First {
		fmt.Fprintln(e.stdout, clean(v.String()))
	}
	return nil
}

// records is how many offsets of the events topic there are to read; partitions nil = all.
func records(ctx context.Context, log eventlog.Log, partitions []int32) (total int64, err error) {
	t, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return 0, fmt.Errorf("describe the events topic: %w", err)
	}
	for k, p := range t.Partitions {
		if partitions == nil || slices.Contains(partitions, int32(k)) {
			total += p.End - p.Start
		}
	}
	return total, nil
}
