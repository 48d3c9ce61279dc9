package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/internal/engine"
)

func checkpointCommand(e *env) *cobra.Command {
	var address string
	c := &cobra.Command{
		Use: "checkpoint DIR | checkpoint NAME --address URL", Short: "copy a Pebble store into a directory",
		Long: "checkpoint copies the partitions of a Pebble store, each as of one event, into a new directory, which is then a store of its own.\n\n" +
			"A worker holds its store while it runs. With --address the worker that is asked there makes the copy, while it works: " +
			"a new directory NAME in the one that its program gave to webui.Options.Checkpoints.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return failure(statusUsage, "one directory is needed, or with --address one name")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if address != "" {
				return askCheckpoint(c.Context(), e, address, args[0])
			}
			return checkpoint(c.Context(), e, args[0])
		},
	}
	c.Flags().StringVar(&address, "address", "", "`URL` of a running worker, e.g. http://localhost:8080")
	return c
}

// checkpointed is the result, and what a worker answers.
type checkpointed struct {
	Directory string           `json:"directory"`
	AsOf      map[int32]uint64 `json:"asOf"`
}

// checkpoint copies a store that nobody holds.
func checkpoint(ctx context.Context, e *env, dir string) (err error) {
	log, store, err := e.open(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), log.Close()) }()
	asOf, err := engine.Checkpoint(ctx, store, dir)
	if err != nil {
		return err
	}
	return e.printCheckpoint(checkpointed{dir, asOf})
}

func (e *env) printCheckpoint(r checkpointed) error {
	if e.asJSON() {
		return e.print(r)
	}
	_, err := fmt.Fprintf(e.stdout, "%d partitions are in %s\n", len(r.AsOf), clean(r.Directory))
	return err
}

// askCheckpoint has a worker copy its store.
func askCheckpoint(ctx context.Context, e *env, address, name string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return failure(statusUsage, "--address is a URL such as http://localhost:8080")
	}
	u = u.JoinPath("/api/v1/store/checkpoint")
	u.RawQuery = url.Values{"name": {name}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return failure(statusUsage, "--address: %w", err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return &statusError{statusUnreachable, fmt.Errorf("ask %s: %w", u.Host, err)}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return &statusError{statusUnreachable, fmt.Errorf("ask %s: %w", u.Host, err)}
	}
	var told struct {
		checkpointed
		Detail string `json:"detail"`
	}
	readable := json.Unmarshal(body, &told) == nil
	switch {
	case answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusMethodNotAllowed:
		return failure(statusRefused, "%s makes no checkpoints: its program names no webui.Options.Checkpoints", u.Host)
	case answer.StatusCode == http.StatusBadRequest:
		return failure(statusUsage, "%s: %s", u.Host, clean(told.Detail))
	case answer.StatusCode != http.StatusOK:
		return failure(statusRefused, "%s: %s (%s)", u.Host, clean(told.Detail), answer.Status)
	case !readable:
		return fmt.Errorf("the answer of %s can't be read", u.Host)
	}
	return e.printCheckpoint(told.checkpointed)
}
