package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
)

const several = "Several ids are asked for together; - reads them from standard input, one a line, each once. " +
	"One that is refused does not keep the others: it is told on standard error, and the exit status is that of the refused, or 1 where they differ.\n\n"

// askedAtOnce is how many requests wait for their answers at once.
const askedAtOnce = 32

func someIDs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return failure(statusUsage, "an instance id is needed, or - for ids on standard input")
	}
	return nil
}

// idsOf are the ids that a verb is given, each once.
func idsOf(args []string, stdin io.Reader) (ids []string, err error) {
	if len(args) == 1 && args[0] == "-" {
		args = nil
		lines := bufio.NewScanner(stdin)
		for lines.Scan() {
			args = append(args, strings.TrimSuffix(lines.Text(), "\r"))
		}
		if err := lines.Err(); err != nil {
			return nil, failure(statusUsage, "read ids: %w", err)
		}
	}
	seen := map[string]bool{}
	for _, id := range args {
		if id != "" && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// requests asks several instances for the same. What is refused is told and counted; an error
// ends it.
func requests(ctx context.Context, e *env, of eventlog.Request, ids []string) (err error) {
	verb := strings.ToLower(string(of.Type))
	if len(ids) == 0 {
		e.note("%s: no ids", verb)
		return nil
	}
	log, store, err := e.openToAsk(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store), log.Close()) }()
	stop, err := e.decider(ctx, log, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // of what follows, and of the output
	var fatal error
	refused := map[int]int{} // by exit status
	one := func(id string) {
		r := of
		r.V, r.ID, r.Request, r.Made, r.Caller = 1, id, rand.Text(), e.now().UnixMilli(), cmp.Or(of.Caller, e.getenv("USER"))
		var n uint64
		var answer string
		err := r.Validate()
		if err != nil {
			err = failure(statusUsage, "%s: %w", verb, err)
		} else {
			wait, enough := e.answerTime(ctx)
			defer enough()
			n, answer, err = ask(wait, log, &r)
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			err = e.answered(&r, n, answer)
		}
		if err == nil || fatal != nil {
			return
		}
		if s, ok := errors.AsType[*statusError](err); ok {
			refused[s.status]++
			report(e.stderr, e.asJSON(), s.status, err)
			return
		}
		fatal = fmt.Errorf("%s %s: %w", verb, id, err)
		cancel(fatal)
	}
	work := make(chan string)
	var workers sync.WaitGroup
	for range min(askedAtOnce, len(ids)) {
		workers.Go(func() {
			for id := range work {
				one(id)
			}
		})
	}
	for _, id := range ids {
		select {
		case work <- id:
		case <-ctx.Done():
		}
	}
	close(work)
	workers.Wait()
	if fatal != nil || ctx.Err() != nil {
		return cmp.Or(fatal, context.Cause(ctx))
	}
	count, status := 0, statusDone
	for s, n := range refused {
		if count += n; status != statusDone {
			s = statusFailed
		}
		status = s
	}
	if count > 0 {
		return failure(status, "%s: %d of %d were refused", verb, count, len(ids))
	}
	return nil
}
