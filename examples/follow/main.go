// Command follow keeps a projection of its own: how many orders are in which status, by the
// hour in which they were started. It follows the events of any application:
//
//	go run ./examples/follow -log kafka://localhost:9092/pizza
//	go run ./examples/follow -log file:dagger-data/log -once
//
// Kill it and start it again: it goes on where it was, and counts nothing twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	_ "github.com/godagger/dagger/backends/all"
	"github.com/godagger/dagger/eventlog"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/projection"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "follow:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("follow", flag.ContinueOnError)
	flags.SetOutput(stderr)
	logURL := flags.String("log", "file:dagger-data/log", "`URL` of the log: file:DIR or kafka://host:9092/app")
	storeURL := flags.String("store", "pebble:follow-data", "`URL` of this projection's own store")
	once := flags.Bool("once", false, "end when everything that is in the log is counted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log, err := eventlog.Open(ctx, *logURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	// Its application name is its own, so that nobody takes the engine's store for it.
	id := projection.Identity{App: log.App() + "-by-hour", Partitions: log.Partitions()}
	store, err := projection.Open(ctx, *storeURL, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := projection.Follow(ctx, log, store, byHour, projection.FollowOptions{UntilEnd: *once}); err != nil {
		return err
	}
	return report(context.WithoutCancel(ctx), store, id.Partitions, stdout)
}

// orders is the kind of the rows: instance id -> hour and status.
const orders = projection.KindInstance

// byHour is the projection.
func byHour(ctx context.Context, tx *projection.Tx, e *eventlog.Event) error {
	status := ""
	switch e.Type {
	case eventlog.InstanceStarted:
		status = "running"
	case eventlog.InstanceCompleted:
		status = "completed"
	case eventlog.InstanceFailed:
		status = "failed"
	case eventlog.InstanceRetried:
		status = "running"
	case eventlog.InstanceStopped:
		status = "stopped"
	default:
		return nil
	}
	hour := time.UnixMilli(e.At).UTC().Format("2006-01-02 15:00")
	row, err := tx.Get(ctx, orders, []byte(e.ID))
	if err != nil {
		return err
	}
	if row != nil {
		old, before, _ := strings.Cut(string(row), "|")
		tx.Add([]byte(old+"|"+before), -1)
		if e.Type != eventlog.InstanceStarted { // a later run counts for its own hour
			hour = old
		}
	}
	tx.Add([]byte(hour+"|"+status), 1)
	tx.Put(orders, []byte(e.ID), []byte(hour+"|"+status))
	return nil
}

// report prints the counters of all partitions together.
func report(ctx context.Context, store projection.Store, partitions int32, w io.Writer) error {
	counts := map[string]int64{}
	for p := range partitions {
		v, err := store.View(ctx, p)
		if err != nil {
			return err
		}
		err = v.Dump(ctx, func(r projection.Row) error {
			if r.Kind != projection.KindCount {
				return nil
			}
			var n int64
			_, err := fmt.Sscan(string(r.Value), &n)
			counts[string(r.Key)] += n
			return err
		})
		if err := errors.Join(err, v.Close()); err != nil {
			return err
		}
	}
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOUR\tSTATUS\tORDERS")
	for _, k := range keys {
		hour, status, _ := strings.Cut(k, "|")
		fmt.Fprintf(t, "%s\t%s\t%d\n", hour, status, counts[k])
	}
	return t.Flush()
}
