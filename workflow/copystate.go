package workflow

import (
	"context"
	"fmt"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

// CopyStateOptions say how CopyState works. The zero value is a good choice.
type CopyStateOptions = engine.CopyStateOptions

// CopiedState is what CopyState did.
type CopiedState = engine.CopiedState

// CopyState makes the store to of the log, whatever kind it is, and compares it byte for byte with the
// log and with the store from, as of the event at which that stands. A difference is no error, but
// counted. No engine should run: what it does meanwhile is missing in to, and an engine on to
// folds it. Cut off, the next CopyState goes on with what was built.
func CopyState(ctx context.Context, log eventlog.Log, from, to projection.Store, o CopyStateOptions) (CopiedState, error) {
	c, err := engine.CopyState(ctx, log, from, to, o)
	if err != nil {
		return c, fmt.Errorf("copy state: %w", err)
	}
	return c, nil
}
