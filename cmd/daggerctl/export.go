package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

type exportArgs struct {
	id        string
	partition int
	all       bool
	atRest    bool
	file      string
}

func exportCommand(e *env) *cobra.Command {
	var a exportArgs
	c := &cobra.Command{
		Use: "export ID | --partition N | --all", Short: "write the events of an instance, a partition or everything as JSON lines",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return failure(statusUsage, "one instance id, --partition or --all is needed")
			}
			return nil
		},
		Long: "export writes events as they stand in the log, one in a line: {\"partition\":…,\"offset\":…,\"event\":{…}}, between a head and an end that shows that the file is whole. " +
			"The export of one instance is what to add to a report of a mistake: workflowtest replays it in a test. Parameters and messages stand in it as they are.\n\n" +
			"With --all it can be imported only if nothing was under way: stop the engines when nothing has happened for some seconds, and export with --at-rest.",
		Example: "  daggerctl export order-42 > order-42.jsonl\n  daggerctl export --all --at-rest --file all.jsonl",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				a.id = args[0]
			}
			return export(c.Context(), e, a)
		},
	}
	f := c.Flags()
	f.IntVar(&a.partition, "partition", -1, "the partition `N`")
	f.BoolVar(&a.all, "all", false, "everything")
	f.BoolVar(&a.atRest, "at-rest", false, "with --all: no engine runs (exit status 4 if one does), so that it can be imported")
	f.StringVar(&a.file, "file", "-", "write to the `FILE`; - is standard output")
	complete(c, e)
	return c
}

// export writes events.
func export(ctx context.Context, e *env, a exportArgs) (err error) {
	given := 0
	for _, is := range []bool{a.id != "", a.partition >= 0, a.all} {
		if is {
			given++
		}
	}
	if given != 1 {
		return failure(statusUsage, "one instance id, --partition or --all is needed")
	}
	if a.atRest && !a.all {
		return failure(statusUsage, "--at-rest goes with --all")
	}
	open := e.openToRead
	if a.id == "" { // all is read
		open = func(ctx context.Context) (eventlog.Log, projection.Store, error) {
			log, err := e.openLog(ctx)
			return log, nil, err
		}
	}
	log, store, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	if a.partition >= int(log.Partitions()) {
		return failure(statusUsage, "--partition %d: the log has partitions 0 to %d", a.partition, log.Partitions()-1)
	}
	o := engine.ExportOptions{ID: a.id, Store: store, AtRest: a.atRest}
	var partitions []int32
	if a.partition >= 0 {
		p := int32(a.partition)
		o.Partition, partitions = &p, []int32{p}
	}
	w := e.stdout
	if a.file != "-" {
		f, failed := os.OpenFile(a.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if failed != nil {
			return failure(statusFailed, "write export: %w", failed)
		}
		defer func() {
			if err = errors.Join(err, f.Close()); err != nil {
				err = errors.Join(err, os.Remove(a.file))
			}
		}()
		w = f
	}
	total, err := records(ctx, log, partitions)
	if err != nil {
		return err
	}
	bar := e.newProgress("export", total)
	o.Progress = func(p int32, n, _ int64) { bar.set(p, n) }
	done, err := engine.Export(ctx, log, w, o)
	bar.end()
	if errors.Is(err, engine.ErrNotQuiet) || errors.Is(err, engine.ErrUnfinished) {
		return &statusError{statusRefused, fmt.Errorf("export: %w", err)}
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if a.file != "-" {
		e.note("%d events in %s", done.Events, a.file)
	}
	return nil
}

type importArgs struct {
	file string
	to   string
}

func importCommand(e *env) *cobra.Command {
	var a importArgs
	c := &cobra.Command{
		Use: "import FILE --to URL", Short: "bring exported instances into a new application", Annotations: map[string]string{without: "log store"}, Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failure(statusUsage, "one file is needed; - is standard input")
			}
			return nil
		},
		Long: "import reads what export wrote and makes a new application of it, which may have another count of partitions. " +
			"Each instance is there with the state that it had, waits for what it waited for, and keeps the messages that it had not taken; messages that waited for somebody go on waiting. " +
			"What it did before stays in the export: in the new log it begins with the import. Handlers that ran, or waited for their next attempt, start again, with new idempotency keys. " +
			"Ids of calls are forgotten: a call that is repeated over the import is a new one.\n\n" +
			"At the end the new log is audited; a violation is exit status 5. Cut off, it goes on when it is given again with the same file; until then no engine starts on the new log.",
		Example: "  daggerctl export --all --at-rest --log file:dagger-data/log --file all.jsonl\n  daggerctl import all.jsonl --to 'kafka://localhost:9092/orders?partitions=64'",
		RunE: func(c *cobra.Command, args []string) error {
			a.file = args[0]
			return importFile(c.Context(), e, a)
		},
	}
	c.Flags().StringVar(&a.to, "to", "", "`URL` of the new log (needed)")
	return c
}

// importFile makes an application of an export.
func importFile(ctx context.Context, e *env, a importArgs) (err error) {
	switch {
	case a.to == "":
		return failure(statusUsage, "--to is needed")
	case e.log != "" || e.store != "":
		return failure(statusUsage, "import has --to instead of --log and --store")
	}
	r := io.Reader(os.Stdin)
	if a.file != "-" {
		f, err := os.Open(a.file)
		if err != nil {
			return failure(statusUsage, "read export: %w", err)
		}
		defer f.Close()
		r = f
	}
	log, err := openNew(ctx, a.to, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	done, err := engine.Import(ctx, log, r, engine.ImportOptions{Now: e.now().UnixMilli()})
	switch {
	case errors.Is(err, engine.ErrNotEmpty), errors.Is(err, engine.ErrNotAtRest), errors.Is(err, eventlog.ErrPartitions):
		return &statusError{statusRefused, err}
	case err != nil:
		return fmt.Errorf("import: %w", err)
	}
	report, err := audit.Log(ctx, log, audit.Options{})
	if err != nil {
		return err
	}
	if e.asJSON() {
		if err := e.print(done); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.stdout, "%d instances and %d messages in %d partitions, %d events; audit: %d violations\n", done.Instances, done.Messages, done.Partitions, done.Events, report.Violations)
	}
	if report.Violations > 0 {
		for _, v := range report.First {
			e.note("%s", clean(v.String()))
		}
		return failure(statusDifference, "the new log has %d violations", report.Violations)
	}
	return nil
}
