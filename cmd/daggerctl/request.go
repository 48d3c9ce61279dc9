package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// requestArgs are what start, stop and retry are given.
type requestArgs struct {
	eventlog.Request        // what is asked
	params           string // of start: JSON, @FILE, or - for standard input
}

const decided = "The request is appended to <app>.requests, and the instance's owner decides it. On an embedded log no other engine can be running, " +
	"so that one without handlers decides it here: tasks then wait for the program that has them.\n\n" +
	"A command whose answer was lost can be given again with the same --request: it is decided once."

func startCommand(e *env) *cobra.Command {
	a := requestArgs{Request: eventlog.Request{Type: eventlog.StartInstance}}
	c := &cobra.Command{
		Use: "start DEFINITION ID", Short: "start an instance",
		Long: "start starts an instance with the given id, with the version of the definition that the owner's worker has, or the newest that was registered. " +
			"An id that has run before is refused.\n\n" + decided,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return failure(statusUsage, "a definition and an instance id are needed")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			a.Definition, a.ID = args[0], args[1]
			return request(c.Context(), e, a, c.InOrStdin())
		},
	}
	c.Flags().StringVar(&a.params, "params", "{}", "the parameters, a `JSON` object; @FILE reads a file, - standard input")
	c.Flags().StringVar(&a.Plan, "plan", "", "`HASH` of the exact plan, instead of the newest version")
	requestFlag(c, &a)
	c.ValidArgsFunction = cobra.NoFileCompletions
	return c
}

func stopCommand(e *env) *cobra.Command {
	return reasonCommand(e, eventlog.StopInstance, &cobra.Command{
		Use: "stop ID... --reason TEXT", Short: "stop instances",
		Long: "stop ends an instance as STOPPED: nothing of it starts any more, and the contexts of its handlers end.\n\n" + several + decided,
		Example: "  daggerctl stop order-42 --reason 'cancelled by the customer'\n" +
			"  daggerctl list --id-prefix test- --limit 100000 -o jsonl | jq -r .id | daggerctl stop - --reason 'end of the test'",
	})
}

func retryCommand(e *env) *cobra.Command {
	return reasonCommand(e, eventlog.RetryInstance, &cobra.Command{
		Use: "retry ID... --reason TEXT", Short: "let failed instances go on from the task that failed",
		Long: "retry lets a failed instance go on from the task that failed, with all its attempts again.\n\n" + several + decided,
		Example: "  daggerctl retry order-42 --reason 'drivers are back'\n" +
			"  daggerctl list --status FAILURE --limit 100000 -o jsonl | jq -r .id | daggerctl retry - --reason 'mended in 1.4.2'",
	})
}

func deleteCommand(e *env) *cobra.Command {
	return reasonCommand(e, eventlog.DeleteInstance, &cobra.Command{
		Use: "delete ID... --reason TEXT", Short: "forget instances that have ended",
		Long: "delete forgets an instance that has ended: its state goes from the store, its events stay in the log. Its id may be started anew.\n\n" + several + decided,
	})
}

func reasonCommand(e *env, t eventlog.RequestType, c *cobra.Command) *cobra.Command {
	a := requestArgs{Request: eventlog.Request{Type: t}}
	c.Args = someIDs
	c.RunE = func(c *cobra.Command, args []string) error {
		if strings.TrimSpace(a.Reason) == "" {
			return failure(statusUsage, "--reason is needed")
		}
		if len(args) == 1 && args[0] != "-" {
			a.ID = args[0]
			return request(c.Context(), e, a, nil)
		}
		if a.Request.Request != "" {
			return failure(statusUsage, "--request is for one instance")
		}
		ids, err := idsOf(args, c.InOrStdin())
		if err != nil {
			return err
		}
		return requests(c.Context(), e, a.Request, ids)
	}
	c.Flags().StringVar(&a.Reason, "reason", "", "why, for the record (needed)")
	requestFlag(c, &a)
	complete(c, e)
	return c
}

func requestFlag(c *cobra.Command, a *requestArgs) {
	c.Flags().StringVar(&a.Request.Request, "request", "", "`ID` of the request (default: a new one)")
	callerFlag(c, &a.Caller)
}

func callerFlag(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "caller", "", "`NAME` of who asks, for the record (default $USER)")
}

// done says what became of a request.
var done = map[eventlog.RequestType]string{
	eventlog.StartInstance: "is started", eventlog.StopInstance: "is stopped", eventlog.RetryInstance: "goes on", eventlog.DeleteInstance: "is deleted",
}

// request asks an instance for something and waits for the answer.
func request(ctx context.Context, e *env, a requestArgs, stdin io.Reader) (err error) {
	verb := strings.ToLower(string(a.Type))
	r := a.Request
	r.V, r.Made, r.Caller = 1, e.now().UnixMilli(), cmp.Or(r.Caller, e.getenv("USER"))
	if r.Request == "" {
		r.Request = rand.Text()
	}
	if r.Type == eventlog.StartInstance {
		if r.Params, err = parameters(a.params, stdin); err != nil {
			return err
		}
	}
	if err := r.Validate(); err != nil {
		return failure(statusUsage, "%s: %w", verb, err)
	}
	log, store, err := e.openToAsk(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	ctx, cancel := e.answerTime(ctx)
	defer cancel()
	n, answer, err := answerBefore(ctx, log, &r, a.Request.Request != "")
	if err == nil && answer == "" {
		n, answer, err = e.decide(ctx, log, store, &r)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, r.ID, err)
	}
	return e.answered(&r, n, answer)
}

// answered prints what became of a request, or is the refusal.
func (e *env) answered(r *eventlog.Request, n uint64, answer string) error {
	verb := strings.ToLower(string(r.Type))
	switch answer {
	case machine.OK:
	case machine.NotFound, machine.UnknownPlan:
		return failure(statusNotFound, "%s %s: %s", verb, r.ID, answer)
	default:
		return failure(statusRefused, "%s %s: refused: %s", verb, r.ID, answer)
	}
	if e.asJSON() {
		return e.print(released{r.ID, r.Request, n})
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s, by event %d\n", r.ID, done[r.Type], n)
	return err
}

// answerBefore finds the answer of a request that is given again: it has one event only. "" when
// there is none in the time for which answers are remembered.
func answerBefore(ctx context.Context, log eventlog.Log, r *eventlog.Request, again bool) (n uint64, answer string, err error) {
	if !again {
		return 0, "", nil
	}
	const memory = 26 * time.Hour
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return 0, "", fmt.Errorf("describe the events topic: %w", err)
	}
	from, err := log.OffsetAt(ctx, topic.Name, time.Now().Add(-memory))
	if err != nil {
		return 0, "", fmt.Errorf("find the events of the last day: %w", err)
	}
	p := eventlog.PartitionOf(r.ID, log.Partitions())
	err = follow(ctx, log, topic, p, from[p], topic.Partitions[p].End, func(rec *eventlog.Record) error {
		var ev eventlog.Event
		if err := eventlog.DecodeEvent(rec.Value, &ev); err != nil {
			return fmt.Errorf("offset %d: %w", rec.Offset, err)
		}
		if ev.ID == r.ID && ev.Request == r.Request && ev.Seq > 0 {
			n, answer = ev.N, machine.OK
		}
		if ev.Pos != nil {
			for _, x := range ev.Pos.Refused {
				if x.ID == r.ID && x.Request == r.Request {
					n, answer = ev.N, x.Answer
				}
			}
		}
		return nil
	})
	return n, answer, err
}

// parameters reads what an instance starts with.
func parameters(arg string, stdin io.Reader) (json.RawMessage, error) {
	data, err := []byte(arg), error(nil)
	switch {
	case arg == "-":
		data, err = io.ReadAll(stdin)
	case strings.HasPrefix(arg, "@"):
		data, err = os.ReadFile(arg[1:])
	}
	if err != nil {
		return nil, failure(statusUsage, "--params: %w", err)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil {
		return nil, failure(statusUsage, "--params is no JSON object")
	}
	return data, nil
}
