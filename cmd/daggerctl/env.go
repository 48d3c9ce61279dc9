package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// The pair that is used when neither a log nor a store is named.
const (
	defaultLog   = "file:dagger-data/log"
	defaultStore = "pebble:dagger-data/store"
)

// env is what every verb has: where to look and how to print.
type env struct {
	log, store string // URLs; "" = not named
	output     string // table, json or jsonl
	progress   string // auto, bar, plain or none
	iso        bool   // times as they are, not relative
	timeout    time.Duration
	stdout     io.Writer
	stderr     io.Writer
	getenv     func(string) string
	now        func() time.Time
}

func (e *env) asJSON() bool { return e.output == "json" || e.output == "jsonl" }

// urls are the log and the store to open. Whoever names only one means only that one.
func (e *env) urls() (log, store string, err error) {
	switch {
	case e.log == "" && e.store == "":
		return defaultLog, defaultStore, nil
	case e.log == "":
		return "", "", failure(statusUsage, "--store is given without --log: name both")
	}
	return e.log, e.store, nil
}

// openLog opens a log that exists.
func (e *env) openLog(ctx context.Context) (eventlog.Log, error) {
	raw, _, err := e.urls()
	if err != nil {
		return nil, err
	}
	if scheme, _, _ := strings.Cut(raw, ":"); !slices.Contains(eventlog.Schemes(), scheme) {
		return nil, failure(statusUsage, "--log: the scheme is one of %s", strings.Join(eventlog.Schemes(), ", "))
	}
	if err := exists("log", "file:", raw); err != nil {
		return nil, err
	}
	log, err := eventlog.Open(ctx, opened(raw))
	if err != nil {
		return nil, unreachable(typed{err, raw})
	}
	return log, nil
}

// typed is an error of opening a log that shows its URL as it was typed.
type typed struct {
	error
	raw string
}

func (t typed) Error() string {
	added := strings.TrimPrefix(opened(t.raw), t.raw)
	return strings.Replace(t.error.Error(), added+": ", ": ", 1)
}

func (t typed) Unwrap() error { return t.error }

// opened is the URL with which a log is opened that must exist: a mistake in the name of an
// application must not create its topics.
func opened(raw string) string {
	_, query, has := strings.Cut(raw, "?")
	switch {
	case !strings.HasPrefix(raw, "kafka:") || strings.Contains(query, "create="):
		return raw
	case has:
		return raw + "&create=false"
	}
	return raw + "?create=false"
}

// openStore opens the store of the log's application; create lets it be a new one.
func (e *env) openStore(ctx context.Context, log eventlog.Log, create bool) (projection.Store, error) {
	_, raw, err := e.urls()
	if err != nil {
		return nil, err
	}
	if raw == "" {
		return nil, failure(statusUsage, "--log is given without --store: name both")
	}
	if scheme, _, _ := strings.Cut(raw, ":"); !slices.Contains(projection.Schemes(), scheme) {
		return nil, failure(statusUsage, "--store: the scheme is one of %s", strings.Join(projection.Schemes(), ", "))
	}
	if !create {
		if err := exists("store", "pebble:", raw); err != nil {
			return nil, err
		}
	}
	store, err := projection.Open(ctx, raw, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		return nil, unreachable(err)
	}
	return store, nil
}

// open opens both.
func (e *env) open(ctx context.Context, create bool) (eventlog.Log, projection.Store, error) {
	log, err := e.openLog(ctx)
	if err != nil {
		return nil, nil, err
	}
	store, err := e.openStore(ctx, log, create)
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return log, store, nil
}

// openToRead opens the log, and the store where one is named: it makes reading faster. A store
// that another process holds, or that is not there, is done without.
func (e *env) openToRead(ctx context.Context) (eventlog.Log, projection.Store, error) {
	log, err := e.openLog(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, url, _ := e.urls(); url == "" {
		return log, nil, nil
	}
	store, err := e.openStore(ctx, log, false)
	if errors.Is(err, projection.ErrInUse) {
		return log, nil, nil
	}
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return log, store, nil
}

// openToAsk opens the log, and on an embedded one the store: there an engine is needed that
// decides what is asked.
func (e *env) openToAsk(ctx context.Context) (eventlog.Log, projection.Store, error) {
	log, err := e.openLog(ctx)
	if err != nil || !strings.HasPrefix(log.URL(), "file:") {
		return log, nil, err
	}
	store, err := e.openStore(ctx, log, false)
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return log, store, nil
}

func closeStore(store projection.Store) error {
	if store == nil {
		return nil
	}
	return store.Close()
}

// unreachable is an error of opening: what is wrong with settings and identity fails, the
// rest can't be reached.
func unreachable(err error) error {
	if errors.Is(err, eventlog.ErrURL) || errors.Is(err, projection.ErrURL) {
		return &statusError{statusUsage, err}
	}
	if errors.Is(err, eventlog.ErrNoTopic) {
		return &statusError{statusNotFound, err}
	}
	for _, is := range []error{
		eventlog.ErrPartitions, eventlog.ErrSettings, eventlog.ErrTopicChanged, projection.ErrForeign,
	} {
		if errors.Is(err, is) {
			return err
		}
	}
	return &statusError{statusUnreachable, err}
}

// exists refuses a directory that is not there, which opening would create.
func exists(what, scheme, raw string) error {
	rest, ok := strings.CutPrefix(raw, scheme)
	if !ok {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host != "" {
		return nil // opening it says why
	}
	dir := u.Path
	if u.Opaque != "" {
		if dir, err = url.PathUnescape(u.Opaque); err != nil {
			dir = rest
		}
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return failure(statusUnreachable, "there is no %s in %s: name it with --%s", what, dir, what)
	}
	return nil
}

// note tells the user something beside the result.
func (e *env) note(format string, args ...any) {
	fmt.Fprintf(e.stderr, format+"\n", args...)
}
