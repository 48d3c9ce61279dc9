package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

type listArgs struct {
	definition string
	status     string
	idPrefix   string
	limit      int
	cursor     string
	at         string
	count      bool
}

// listed are the statuses that instances can have.
var listed = []string{"EXECUTING", "COMPLETED", "FAILURE", "STOPPED", "QUARANTINED"}

func listCommand(e *env) *cobra.Command {
	var a listArgs
	c := &cobra.Command{
		Use: "list", Short: "list instances, oldest first", Args: noArgs,
		Long: "list prints instances as the store has them, oldest first. With -o json it is one array, with -o jsonl one object a line.\n\n" +
			"With --at it prints them as they were at a moment. The log is folded for that from its beginning, in memory, and the store is not looked at.\n\n" + atHelp,
		Example: "  daggerctl list --status FAILURE\n  daggerctl list --count\n  daggerctl list --at 2026-11-24T10:00:00Z --definition Order",
		RunE:    func(c *cobra.Command, _ []string) error { return list(c.Context(), e, a) },
	}
	f := c.Flags()
	f.StringVar(&a.definition, "definition", "", "only instances of the definition `NAME`")
	f.StringVar(&a.status, "status", "", "only instances with the `STATUS`: "+strings.Join(listed, ", "))
	f.StringVar(&a.idPrefix, "id-prefix", "", "only instances whose id begins with `TEXT`")
	f.IntVar(&a.limit, "limit", 100, "print at most so many")
	f.StringVar(&a.cursor, "cursor", "", "go on where a list that was cut off says")
	f.StringVar(&a.at, "at", "", "as they were at the `MOMENT`, by the log alone (default: as the store has them)")
	f.BoolVar(&a.count, "count", false, "print how many there are, by definition and status")
	complete(c, e)
	return c
}

// list prints a page of instances.
func list(ctx context.Context, e *env, a listArgs) (err error) {
	if a.limit < 1 {
		return failure(statusUsage, "--limit must be at least 1")
	}
	if a.status != "" {
		if err := oneOf("status", a.status, listed...); err != nil {
			return err
		}
	}
	from, app, err := e.listFrom(ctx, a.at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	f := engine.Filter{Definition: a.definition, Status: a.status, IDPrefix: a.idPrefix, Cursor: a.cursor}
	if a.count {
		return e.count(ctx, from, f)
	}
	found := []instance{}
	for {
		f.Limit = min(a.limit-len(found), 1000)
		page, err := from.list(ctx, f)
		if err != nil {
			return err
		}
		for _, i := range page.Instances {
			v := view(i, nil)
			v.Version = from.versions[v.Plan]
			found = append(found, v)
		}
		if f.Cursor = page.Cursor; f.Cursor == "" || len(found) >= a.limit {
			break
		}
	}
	if f.Cursor != "" {
		defer func() {
			if err == nil {
				e.note("there are more: --cursor %s", f.Cursor)
			}
		}()
	}
	if len(found) == 0 && from.whole && a == (listArgs{limit: a.limit}) {
		e.note("application %s has no instances; another one is named in the log's URL", app)
	}
	if len(found) == 0 {
		e.noteUndefined(ctx, from, a.definition)
	}
	switch e.output {
	case "json":
		return e.print(found)
	case "jsonl":
		for _, v := range found {
			if err := e.print(v); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("ID", "DEFINITION", "STATUS", "STEP", "SINCE", "UPDATED", "ERROR")
	for _, v := range found {
		step, since := v.step()
		t.row(v.ID, v.Definition, v.Status, step, e.time(since), e.time(v.Updated), line(v.Error))
	}
	return t.end()
}

// lister lists and counts, now or at a moment.
type lister struct {
	list  func(context.Context, engine.Filter) (engine.Page, error)
	count func(context.Context, engine.Filter) (map[string]int64, map[int32]uint64, error)
	close func() error
	whole bool // no partition is missing
	// defined is engine.ErrUnknownDefinition where no definition with the name was registered; nil
	// where that can't be told
	defined func(ctx context.Context, name string) error
	// versions are numbers of definitions by the hashes of their plans, where JSON is printed
	versions map[string]int
}

func (e *env) listFrom(ctx context.Context, at string) (l lister, app string, err error) {
	if at != "" {
		p, err := e.point("at", at)
		if err != nil {
			return l, "", err
		}
		return e.listPast(ctx, p)
	}
	if e.log != "" && e.store == "" {
		return l, "", failure(statusUsage, "--log is given without --store: name both, or --at now for what the log alone says")
	}
	log, store, err := e.open(ctx, false)
	if errors.Is(err, projection.ErrInUse) {
		return l, "", fmt.Errorf("%w; ask that process, or --at now for what the log says", err)
	}
	if err != nil {
		return l, "", err
	}
	l = lister{
		list: func(ctx context.Context, f engine.Filter) (engine.Page, error) { return engine.ReadList(ctx, store, f) },
		count: func(ctx context.Context, f engine.Filter) (map[string]int64, map[int32]uint64, error) {
			return engine.ReadCount(ctx, store, f)
		},
		close: func() error { return errors.Join(store.Close(), log.Close()) },
		defined: func(ctx context.Context, name string) error {
			_, err := engine.ReadDefinition(ctx, log, name)
			return err
		},
	}
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		err = fmt.Errorf("describe the events topic: %w", err)
	} else {
		err = engine.CheckStore(ctx, store, topic.ID)
	}
	if err == nil {
		l.whole, err = e.noteMissing(ctx, store, topic)
	}
	if err == nil {
		l.versions, err = e.versions(ctx, log)
	}
	if err != nil {
		return l, "", errors.Join(err, l.close())
	}
	return l, log.App(), nil
}

// noteMissing tells which partitions of the log the store has nothing of, if any: it is new, or
// they are another worker's.
func (e *env) noteMissing(ctx context.Context, store projection.Store, topic eventlog.Topic) (whole bool, err error) {
	var missing []string
	for k, p := range topic.Partitions {
		if p.End == p.Start {
			continue
		}
		v, err := store.View(ctx, int32(k))
		if err != nil {
			return false, fmt.Errorf("look at partition %d of the store: %w", k, err)
		}
		w, err := v.Watermark(ctx)
		if err := errors.Join(err, v.Close()); err != nil {
			return false, fmt.Errorf("look at partition %d of the store: %w", k, err)
		}
		if w.N == 0 {
			missing = append(missing, strconv.Itoa(k))
		}
	}
	if len(missing) > 0 {
		e.note("the store has nothing yet of the partitions %s: their instances are missing here; --at now reads them from the log", strings.Join(missing, ","))
	}
	return len(missing) == 0, nil
}

// listPast folds the log up to the moment.
func (e *env) listPast(ctx context.Context, p engine.Point) (l lister, app string, err error) {
	log, err := e.openLog(ctx)
	if err != nil {
		return l, "", err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	total, err := records(ctx, log, nil)
	if err != nil {
		return l, "", err
	}
	bar := e.newProgress("fold", total)
	past, err := engine.ReadPast(ctx, log, p, bar.set)
	bar.end()
	if errors.Is(err, engine.ErrPoint) {
		return l, "", failure(statusUsage, "--at: %w", err)
	}
	if err != nil {
		return l, "", err
	}
	e.note("as of %s", asOf(past.AsOf()))
	versions, err := e.versions(ctx, log)
	if err != nil {
		return l, "", err
	}
	return lister{
		versions: versions,
		list:     past.List,
		count: func(ctx context.Context, f engine.Filter) (map[string]int64, map[int32]uint64, error) {
			n, err := past.Count(ctx, f)
			return n, past.AsOf(), err
		},
		close: func() error { return nil },
	}, log.App(), nil
}

// noteUndefined tells who found nothing that there never was a definition of the name.
func (e *env) noteUndefined(ctx context.Context, from lister, name string) {
	if name == "" || from.defined == nil {
		return
	}
	if err := from.defined(ctx, name); errors.Is(err, engine.ErrUnknownDefinition) {
		e.note("--definition: %v", err)
	}
}

func (e *env) versions(ctx context.Context, log eventlog.Log) (map[string]int, error) {
	if !e.asJSON() {
		return nil, nil
	}
	return engine.ReadVersions(ctx, log)
}

// counted is a count as JSON.
type counted struct {
	Definition string `json:"definition"`
	Status     string `json:"status"`
	Instances  int64  `json:"instances"`
}

// count prints how many instances there are.
func (e *env) count(ctx context.Context, from lister, f engine.Filter) error {
	n, _, err := from.count(ctx, f)
	if err != nil {
		return err
	}
	l := []counted{}
	for _, name := range slices.Sorted(maps.Keys(n)) {
		slash := max(strings.LastIndexByte(name, '/'), 0)
		l = append(l, counted{name[:slash], name[slash+1:], n[name]})
	}
	if len(l) == 0 {
		e.noteUndefined(ctx, from, f.Definition)
	}
	switch e.output {
	case "json":
		return e.print(l)
	case "jsonl":
		for _, c := range l {
			if err := e.print(c); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("DEFINITION", "STATUS", "INSTANCES")
	for _, c := range l {
		t.row(c.Definition, c.Status, strconv.FormatInt(c.Instances, 10))
	}
	return t.end()
}

// completeTime is how long a completion may take: a shell waits for it.
const completeTime = 2 * time.Second

// complete lets shells complete definitions, statuses and ids; without a word when the log
// or store can't be read.
func complete(c *cobra.Command, e *env) {
	nothing := cobra.ShellCompDirectiveNoFileComp
	ask := func(c *cobra.Command, f func(ctx context.Context) []string) []string {
		if fromEnvironment(c, e.getenv) != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeTime)
		defer cancel()
		return f(ctx)
	}
	if c.Flags().Lookup("definition") != nil {
		_ = c.RegisterFlagCompletionFunc("definition", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return ask(c, e.definitions), nothing
		})
		_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(listed, nothing))
		return
	}
	c.ValidArgsFunction = func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, nothing
		}
		return ask(c, func(ctx context.Context) []string { return e.ids(ctx, prefix) }), nothing
	}
}

// definitions are those that have instances.
func (e *env) definitions(ctx context.Context) (names []string) {
	log, store, err := e.open(ctx, false)
	if err != nil {
		return nil
	}
	defer func() { _ = errors.Join(store.Close(), log.Close()) }()
	counts, _, err := engine.ReadCount(ctx, store, engine.Filter{})
	if err != nil {
		return nil
	}
	for name := range counts {
		name = name[:max(strings.LastIndexByte(name, '/'), 0)]
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ids are some that begin with a prefix.
func (e *env) ids(ctx context.Context, prefix string) (ids []string) {
	log, store, err := e.open(ctx, false)
	if err != nil {
		return nil
	}
	defer func() { _ = errors.Join(store.Close(), log.Close()) }()
	page, err := engine.ReadList(ctx, store, engine.Filter{IDPrefix: prefix, Limit: 50})
	if err != nil {
		return nil
	}
	for _, i := range page.Instances {
		ids = append(ids, i.ID)
	}
	return ids
}
