package workflow

import (
	"context"
	"fmt"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

// CopyStateOptions say how CopyState works. The zero value is a good choice.
type CopyStateOptions struct {
	Parallel int // partitions at once; 0 = as many as there are processors
	// Progress is called with the offsets of a partition that are read (done) and that there
	// are (total): first, with compares false, while the new store is made, then while it is
	// compared with the log. It may be nil, and is called from several goroutines.
	Progress func(compares bool, partition int32, done, total int64)
}

// CopiedState counts what CopyState did.
type CopiedState struct {
	Partitions  int      `json:"partitions"`
	Events      int64    `json:"events"` // folded
	Instances   int64    `json:"instances"`
	Compared    int      `json:"compared"`        // partitions of the old store that were compared
	Differences int64    `json:"differences"`     // of the new store from the log or from the old store
	First       []string `json:"first,omitempty"` // the first differences, to be read by people
}

// CopyState changes the kind of store: it builds the store to from the log, and then compares
// it byte for byte with the log and with the old store from, each partition as of the event
// at which from stands. from is only read. Differences are counted; they are no error. No
// engine should run meanwhile: its events would be missing in to, until an engine on to folds
// them. After an error or the end of ctx, the next call goes on with what was built.
func CopyState(ctx context.Context, log eventlog.Log, from, to projection.Store, o CopyStateOptions) (CopiedState, error) {
	c, err := engine.CopyState(ctx, log, from, to, engine.CopyStateOptions(o))
	if err != nil {
		return CopiedState(c), fmt.Errorf("copy state: %w", err)
	}
	return CopiedState(c), nil
}
