package workflowtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog/embedlog"
	"github.com/godagger/dagger/workflow"
)

// NewFrom is New with the instances of a file that "daggerctl export" or Engine.Export wrote:
// the report of a mistake becomes a test. Each instance is in the state that it had, waits for
// what it waited for, and goes on at the time of the export with the definitions given; one
// whose definition is another one now waits for a worker that has it. A handler that ran
// starts again. Virtual time begins at the time of the export.
func NewFrom(t testing.TB, file string, definitions ...workflow.AnyDefinition) *Kit {
	t.Helper()
	requireBubble(t)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("workflowtest: %v", err)
	}
	time.Sleep(time.Until(exportedAt(t, data)))
	log, err := embedlog.OpenMemory(embedlog.Options{Partitions: 4})
	if err != nil {
		t.Fatalf("workflowtest: %v", err)
	}
	t.Cleanup(func() { // after the engine
		if err := log.Close(); err != nil {
			t.Errorf("workflowtest: %v", err)
		}
	})
	if _, err := workflow.Import(context.Background(), log, bytes.NewReader(data)); err != nil {
		t.Fatalf("workflowtest: %s: %v", file, err)
	}
	return open(t, workflow.Config{OpenedLog: log, Store: "mem:", Logger: slog.New(slog.DiscardHandler)}, definitions...)
}

// exportedAt is the time in the head of an export.
func exportedAt(t testing.TB, data []byte) time.Time {
	t.Helper()
	var line struct {
		Head struct {
			At time.Time `json:"at"`
		} `json:"head"`
	}
	first, err := bufio.NewReader(bytes.NewReader(data)).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(first, &line)
	}
	if err != nil || line.Head.At.IsZero() {
		t.Fatal("workflowtest: the file is no export")
	}
	return line.Head.At
}
