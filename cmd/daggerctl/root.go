package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// run is the program: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	e := &env{stdout: stdout, stderr: stderr, getenv: getenv, now: time.Now}
	ended := ctx
	root := command(e, func(c context.Context) { ended = c })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return statusDone
	}
	status := statusOf(ended, err)
	if status == statusInterrupted {
		err = errors.New("interrupted")
	}
	report(stderr, e.asJSON(), status, err)
	return status
}

// variables are the flags that can also be set in the environment.
var variables = map[string]string{
	"log": "DAGGER_LOG", "store": "DAGGER_STORE", "output": "DAGGER_OUTPUT", "progress": "DAGGER_PROGRESS", "timeout": "DAGGER_TIMEOUT", "time": "DAGGER_TIME",
}

// without is the annotation of a verb that has other flags in the place of these, and so passes
// over their variables.
const without = "without"

// command is the tree of verbs. started is told the context that a verb runs in.
func command(e *env, started func(context.Context)) *cobra.Command {
	root := &cobra.Command{
		Use: "daggerctl", Short: "look into the log and the store of a Dagger application, and mend them",
		Long: "daggerctl looks into the log and the store of a Dagger application, and mends them.\n\n" +
			"Without --log and --store it works on the embedded pair under ./dagger-data.\n\n" + statuses,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return failure(statusUsage, "unknown command %q; see daggerctl --help", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&e.log, "log", "", "`URL` of the log: file:DIR or kafka://host:9092/app")
	f.StringVar(&e.store, "store", "", "`URL` of the store: pebble:DIR, redis://host:6379/0 or aerospike://host:3000/namespace")
	f.StringVarP(&e.output, "output", "o", "table", "`FORMAT` of the result: table, json or jsonl")
	f.StringVar(&e.progress, "progress", "auto", "how long work is shown: auto, bar, plain or none")
	f.DurationVar(&e.timeout, "timeout", 0, "give up after this time, e.g. 30s (0: never)")
	times := f.String("time", "relative", "how tables show times: relative or iso")
	for name, variable := range variables {
		f.Lookup(name).Usage += " [$" + variable + "]"
	}
	cancel := context.CancelFunc(func() {})
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if err := fromEnvironment(c, e.getenv); err != nil {
			return err
		}
		for _, name := range []string{"log", "store"} {
			if f := c.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
				return failure(statusUsage, "--%s is empty; leave it out for the embedded pair under ./dagger-data", name)
			}
		}
		if e.timeout < 0 {
			return failure(statusUsage, "--timeout is negative; 0 is never")
		}
		if f := c.Flags().Lookup("parallel"); f != nil && strings.HasPrefix(f.Value.String(), "-") {
			return failure(statusUsage, "--parallel is negative; 0 is as many as there are processors")
		}
		if err := oneOf("output", e.output, "table", "json", "jsonl"); err != nil {
			return err
		}
		if err := oneOf("progress", e.progress, "auto", "bar", "plain", "none"); err != nil {
			return err
		}
		if err := oneOf("time", *times, "relative", "iso"); err != nil {
			return err
		}
		e.iso = *times == "iso"
		ctx := c.Context()
		if e.timeout > 0 {
			ctx, cancel = context.WithTimeoutCause(ctx, e.timeout, fmt.Errorf("%w after %v", errTimeout, e.timeout))
		}
		started(ctx)
		c.SetContext(ctx)
		return nil
	}
	root.PersistentPostRun = func(*cobra.Command, []string) { cancel() }
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &statusError{statusUsage, err} })
	root.AddCommand(listCommand(e), showCommand(e), historyCommand(e), diffCommand(e), tailCommand(e), deadLettersCommand(e), verifyCommand(e), rebuildCommand(e), restoreCommand(e), snapshotCommand(e), snapshotsCommand(e), copyStateCommand(e), copyLogCommand(e), exportCommand(e), importCommand(e), checkpointCommand(e), startCommand(e), stopCommand(e), retryCommand(e), deleteCommand(e), drawCommand(e), releaseCommand(e), doctorCommand(e), versionCommand(e))
	return root
}

func fromEnvironment(c *cobra.Command, getenv func(string) string) error {
	for name, variable := range variables {
		if strings.Contains(c.Annotations[without], name) {
			continue
		}
		flag := c.Flags().Lookup(name)
		if v := getenv(variable); v != "" && flag != nil && !flag.Changed {
			if err := c.Flags().Set(name, v); err != nil {
				return failure(statusUsage, "%s: %w", variable, err)
			}
		}
	}
	return nil
}

func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return failure(statusUsage, "--%s is one of %s, not %q", flag, strings.Join(allowed, ", "), value)
}

// noArgs and oneID check the arguments of a verb.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return failure(statusUsage, "unexpected argument %q", args[0])
	}
	return nil
}

func oneID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return failure(statusUsage, "one instance id is needed")
	}
	return nil
}
