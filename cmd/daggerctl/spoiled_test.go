package main

import (
	"bytes"
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// spoiledLog writes another number into each event that brings an instance into its state, as an
// import that is wrong would.
type spoiledLog struct{ eventlog.Log }

func (l spoiledLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return spoiledOwner{o}, err
}

type spoiledOwner struct{ eventlog.Owner }

func (o spoiledOwner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (int64, error) {
	spoiled := make([][]byte, len(events))
	for k := range events {
		if spoiled[k] = events[k]; types[k] == eventlog.InstanceReset {
			spoiled[k] = bytes.Replace(events[k], []byte(`"seq":`), []byte(`"seq":1`), 1)
		}
	}
	return o.Owner.Append(ctx, spoiled, types, messages)
}

// TestImportIsAudited: an import after which the new log breaks a promise says so, and ends with
// status 5.
func TestImportIsAudited(t *testing.T) {
	eventlog.Register("spoil", func(ctx context.Context, u *url.URL) (eventlog.Log, error) {
		log, err := eventlog.Open(ctx, inner(u))
		return spoiledLog{log}, err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	first, file := "file:"+dir+"/first", filepath.Join(dir, "all.jsonl")
	w := newWaiting()
	w.engineOn(ctx, t, first+"?partitions=2", func(e *workflow.Engine) { w.start(ctx, t, e, 3) })
	ctl := func(args ...string) (status int, said string) {
		var out, errs bytes.Buffer
		status = run(ctx, args, &out, &errs, func(string) string { return "" })
		return status, out.String() + errs.String()
	}
	if status, said := ctl("export", "--all", "--at-rest", "--log", first, "--file", file); status != statusDone {
		t.Fatalf("export: status %d: %s", status, said)
	}
	if status, said := ctl("import", file, "--to", "file:"+dir+"/right?partitions=3"); status != statusDone || !strings.Contains(said, "audit: 0 violations") {
		t.Errorf("import: status %d: %s", status, said)
	}
	status, said := ctl("import", file, "--to", "spoil:file:"+dir+"/wrong?partitions=3")
	if status != statusDifference || !strings.Contains(said, "the new log has ") || !strings.Contains(said, "InstanceReset") {
		t.Errorf("an import that spoils the log: status %d, want %d with what is wrong: %s", status, statusDifference, said)
	}
}
