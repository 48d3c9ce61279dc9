package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

type copyLogArgs struct {
	from, to string
	topics   []string
}

func copyLogCommand(e *env) *cobra.Command {
	var a copyLogArgs
	c := &cobra.Command{
		Use: "copy-log --from URL --to URL", Short: "move an application with all its instances into another log", Args: noArgs,
		Annotations: map[string]string{without: "log store"},
		Long: "copy-log copies an application from one log into another, for example from the embedded one to Kafka or back, so that every instance goes on there: " +
			"the events as they are, requests that were not consumed, definitions, dead letters, and messages that no engine has read. " +
			"Event numbers stay; offsets do not.\n\n" +
			"No engine may run on the source, and the application must be new in the target, with the same count of partitions: else it is refused. " +
			"Messages that Command tasks have sent stay where they are, unless --topic names their topic.\n\n" +
			"A store belongs to its log: give the engine that goes on with the copy an empty one, which it fills from the events. " +
			"Cut off, it goes on when it is given again; until then no engine starts on the target.",
		Example: "  daggerctl copy-log --from file:dagger-data/log --to 'kafka://localhost:9092/orders?partitions=16'\n" +
			"  daggerctl copy-log --from kafka://localhost:9092/orders --to file:restored/log --topic order_status_topic",
		RunE: func(c *cobra.Command, _ []string) error { return copyLog(c.Context(), e, a) },
	}
	f := c.Flags()
	f.StringVar(&a.from, "from", "", "`URL` of the log that is copied")
	f.StringVar(&a.to, "to", "", "`URL` of the new log")
	f.StringSliceVar(&a.topics, "topic", nil, "copy the whole `TOPIC` of yours too; may be repeated")
	return c
}

// copyLog copies a log.
func copyLog(ctx context.Context, e *env, a copyLogArgs) (err error) {
	switch {
	case a.from == "" || a.to == "":
		return failure(statusUsage, "--from and --to are needed")
	case a.from == a.to:
		return failure(statusUsage, "--from and --to are the same log")
	case e.log != "" || e.store != "":
		return failure(statusUsage, "copy-log has --from and --to instead of --log and --store")
	}
	with := *e
	with.log = a.from
	from, err := with.openLog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := openNew(ctx, a.to, from.Partitions())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	total, err := records(ctx, from, nil)
	if err != nil {
		return err
	}
	bar := e.newProgress("copy", total)
	done, err := engine.CopyLog(ctx, from, to, engine.CopyOptions{Topics: a.topics, Progress: func(n, _ int64) { bar.set(0, n) }})
	bar.end()
	switch {
	case errors.Is(err, engine.ErrNotEmpty), errors.Is(err, engine.ErrNotQuiet), errors.Is(err, engine.ErrUnfinished), errors.Is(err, eventlog.ErrPartitions):
		return &statusError{statusRefused, err}
	case err != nil:
		return err
	}
	if e.asJSON() {
		return e.print(done)
	}
	fmt.Fprintf(e.stdout, "%d events in %d partitions, %d requests, %d definitions, %d dead letters\n", done.Events, done.Partitions, done.Requests, done.Definitions, done.DeadLetters)
	for _, topic := range slices.Sorted(maps.Keys(done.Messages)) {
		fmt.Fprintf(e.stdout, "%d messages of %s\n", done.Messages[topic], clean(topic))
	}
	return nil
}

// openNew opens a log that need not exist, with a count of partitions where its URL names
// none.
func openNew(ctx context.Context, raw string, partitions int32) (eventlog.Log, error) {
	if _, query, has := strings.Cut(raw, "?"); !strings.Contains(query, "partitions=") && partitions > 0 {
		mark := "?"
		if has {
			mark = "&"
		}
		raw += fmt.Sprintf("%spartitions=%d", mark, partitions)
	}
	log, err := eventlog.Open(ctx, raw)
	if errors.Is(err, eventlog.ErrPartitions) {
		return nil, &statusError{statusRefused, err}
	}
	if err != nil {
		return nil, unreachable(err)
	}
	return log, nil
}
