package workflow

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// Export writes the events of an instance to w as JSON lines, as they are in the log, parameters and
// messages included; workflowtest.NewFrom makes a test of them. ErrNotFound: there is no such
// instance.
func (e *Engine) Export(ctx context.Context, w io.Writer, id string) error {
	if id == "" {
		return fmt.Errorf("export: %w", e.told(id, engine.ErrNotFound))
	}
	if _, err := engine.Export(ctx, e.log, w, engine.ExportOptions{ID: id, Store: e.store}); err != nil {
		return e.told(id, fmt.Errorf("export: %w", err))
	}
	return nil
}

// ExportPartition writes the events of a partition to w as JSON lines, while engines work. The result
// is for looking at; Import needs that of ExportAll.
func (e *Engine) ExportPartition(ctx context.Context, w io.Writer, partition int32) error {
	if partition < 0 || partition >= e.log.Partitions() {
		return fmt.Errorf("export: partition %d: the log has %d", partition, e.log.Partitions())
	}
	if _, err := engine.Export(ctx, e.log, w, engine.ExportOptions{Partition: &partition}); err != nil {
		return fmt.Errorf("export partition %d: %w", partition, e.told("", err))
	}
	return nil
}

// ExportLog writes all events to w as JSON lines, while engines work. The result is for looking at;
// Import needs that of ExportAll.
func (e *Engine) ExportLog(ctx context.Context, w io.Writer) error {
	if _, err := engine.Export(ctx, e.log, w, engine.ExportOptions{}); err != nil {
		return fmt.Errorf("export: %w", e.told("", err))
	}
	return nil
}

// ExportAll writes all events of an application to w as JSON lines, for Import. No engine may run on
// the log; to be sure, it joins the engines' consumer groups for a moment.
func ExportAll(ctx context.Context, log eventlog.Log, w io.Writer) error {
	if _, err := engine.Export(ctx, log, w, engine.ExportOptions{AtRest: true}); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// Import makes a new application of what Engine.Export or ExportAll wrote, in a log that may have
// another number of partitions. Each instance has the state that it had and waits for what it
// waited for; its history begins with the import. Handlers that ran, or waited for their next
// attempt, start again with new idempotency keys. After an error or the end of ctx, call Import
// again with the same export to go on; until it has succeeded, no engine starts on the log. The
// errors are ErrExport, ErrNotEmpty and ErrNotAtRest.
func Import(ctx context.Context, log eventlog.Log, r io.Reader) (Imported, error) {
	done, err := engine.Import(ctx, log, r, engine.ImportOptions{Now: time.Now().UnixMilli()})
	if err != nil {
		return Imported(done), fmt.Errorf("import: %w", err)
	}
	return Imported(done), nil
}

// Imported counts what Import did.
type Imported struct {
	Instances  int64 `json:"instances"`
	Messages   int64 `json:"messages"`   // that wait for an instance, in the new application
	Events     int64 `json:"events"`     // written
	Read       int64 `json:"read"`       // events of the export
	Partitions int32 `json:"partitions"` // of the new application
}

// Errors of Import.
var (
	ErrExport    = engine.ErrExport    // what was read is no export, is incomplete, or comes from a newer version
	ErrNotEmpty  = engine.ErrNotEmpty  // the log has events already
	ErrNotAtRest = engine.ErrNotAtRest // something between partitions was under way when the export was made
)

// CopyLog copies an application into an empty log with the same number of partitions, for example
// from the embedded log to Kafka or back, so that every instance goes on there. No engine may run on
// from. Messages that Command tasks have sent are copied only if topics names their topic. The
// engine that goes on must have an empty store. After an error or the end of ctx, call CopyLog again
// with the same logs to go on; until it has succeeded, no engine starts on the copy.
func CopyLog(ctx context.Context, from, to eventlog.Log, topics ...string) error {
	if _, err := engine.CopyLog(ctx, from, to, engine.CopyOptions{Topics: topics}); err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return nil
}
