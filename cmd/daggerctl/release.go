package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

type releaseArgs struct {
	id     string
	state  string
	reason string
	caller string
}

func releaseCommand(e *env) *cobra.Command {
	var a releaseArgs
	c := &cobra.Command{
		Use: "release ID --reason TEXT", Short: "let an instance in quarantine go on", Args: oneID,
		Long: "release ends the quarantine of an instance: it goes on from its last good state, or from the one in a file " +
			"(the member \"state\" of an InstanceReset event, as docs/event-log.md has it). The request is appended to the log, and the instance's " +
			"owner decides it. On an embedded log no other engine can be running, so that one without handlers decides it here.",
		RunE: func(c *cobra.Command, args []string) error {
			a.id = args[0]
			return release(c.Context(), e, a)
		},
	}
	c.Flags().StringVar(&a.state, "state", "", "go on from the state in the `FILE`")
	c.Flags().StringVar(&a.reason, "reason", "", "why, for the record (needed)")
	callerFlag(c, &a.caller)
	complete(c, e)
	return c
}

// answerTime is how long an owner has to answer when --timeout does not say.
const answerTime = 30 * time.Second

func (e *env) answerTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if e.timeout > 0 {
		return ctx, func() {} // it has its end
	}
	return context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("%w after %v", errTimeout, answerTime))
}

// released is the result.
type released struct {
	ID      string `json:"id"`
	Request string `json:"request"`
	N       uint64 `json:"n"` // event that answers
}

// release asks for the end of a quarantine and waits for the answer.
func release(ctx context.Context, e *env, a releaseArgs) (err error) {
	if strings.TrimSpace(a.reason) == "" {
		return failure(statusUsage, "--reason is needed")
	}
	r := &eventlog.Request{V: 1, Type: eventlog.ReleaseInstance, Request: rand.Text(), Made: e.now().UnixMilli(), ID: a.id, Reason: a.reason,
		Caller: cmp.Or(a.caller, e.getenv("USER"))}
	if a.state != "" {
		if r.State, err = os.ReadFile(a.state); err != nil {
			return failure(statusUsage, "--state: %w", err)
		}
		if !json.Valid(r.State) {
			return failure(statusUsage, "--state: %s is no JSON", a.state)
		}
	}
	log, store, err := e.openToAsk(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	i, _, err := engine.ReadInstance(ctx, log, store, a.id)
	if err != nil {
		return fmt.Errorf("release %s: %w", a.id, err)
	}
	if i.Quarantined == "" {
		return failure(statusRefused, "release %s: it is not in quarantine but %s", a.id, i.StatusName())
	}
	ctx, cancel := e.answerTime(ctx)
	defer cancel()
	n, answer, err := e.decide(ctx, log, store, r)
	switch {
	case err != nil:
		return fmt.Errorf("release %s: %w", a.id, err)
	case answer == machine.NotFound:
		return failure(statusNotFound, "release %s: %s", a.id, answer)
	case answer != machine.OK:
		return failure(statusRefused, "release %s: refused: %s", a.id, answer)
	}
	if e.asJSON() {
		return e.print(released{a.id, r.Request, n})
	}
	fmt.Fprintf(e.stdout, "%s is released, by event %d\n", a.id, n)
	return nil
}

// decide appends a request, sees to it that somebody decides it, and waits for the event
// that answers it.
func (e *env) decide(ctx context.Context, log eventlog.Log, store projection.Store, r *eventlog.Request) (n uint64, answer string, err error) {
	stop, err := e.decider(ctx, log, store)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return ask(ctx, log, r)
}

// decider runs an engine on an embedded log, where no other one can, until stop is called.
func (e *env) decider(ctx context.Context, log eventlog.Log, store projection.Store) (stop func() error, err error) {
	if !strings.HasPrefix(log.URL(), "file:") {
		return func() error { return nil }, nil
	}
	return e.engine(ctx, log, store)
}

// ask appends a request and waits for the event that answers it.
func ask(ctx context.Context, log eventlog.Log, r *eventlog.Request) (n uint64, answer string, err error) {
	value, err := eventlog.AppendRequest(nil, r)
	if err != nil {
		return 0, "", &statusError{statusUsage, fmt.Errorf("encode request: %w", err)}
	}
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return 0, "", fmt.Errorf("describe the events topic: %w", err)
	}
	partition := eventlog.PartitionOf(r.ID, log.Partitions())
	if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic(log.App()), Partition: partition, Key: []byte(r.PartitionKey()), Value: value}); err != nil {
		return 0, "", fmt.Errorf("append request: %w", err)
	}
	found := errors.New("found")
	err = follow(ctx, log, topic, partition, topic.Partitions[partition].End, -1, func(rec *eventlog.Record) error {
		var ev eventlog.Event
		if err := eventlog.DecodeEvent(rec.Value, &ev); err != nil {
			return fmt.Errorf("offset %d: %w", rec.Offset, err)
		}
		if ev.ID == r.ID && ev.Request == r.Request && ev.Seq > 0 {
			n, answer = ev.N, machine.OK
			return found
		}
		if ev.Pos != nil {
			for _, x := range ev.Pos.Refused {
				if x.ID == r.ID && x.Request == r.Request {
					n, answer = ev.N, x.Answer
					return found
				}
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, found):
		return n, answer, nil
	case errors.Is(context.Cause(ctx), errTimeout):
		return 0, "", fmt.Errorf("%w: no engine answered, does one run? The request %s stands in the log, and an engine that runs decides it", context.Cause(ctx), r.Request)
	}
	return 0, "", err
}

// engine runs an engine without handlers until stop is called: it decides what the log's
// requests ask for and starts nothing. That it lacks every definition is no news.
func (e *env) engine(ctx context.Context, log eventlog.Log, store projection.Store) (stop func() error, err error) {
	eng, err := engine.New(ctx, engine.Config{Log: log, Store: store, Worker: "daggerctl",
		Logger: slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return nil, fmt.Errorf("make engine: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- eng.Run(ctx) }() // waited for by stop
	return func() error {
		cancel()
		return errors.Join(<-ended, eng.Close())
	}, nil
}
