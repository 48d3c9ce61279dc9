package engine

import (
	"context"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// ReadInstance folds one instance, from the store's row where it can be read and the events
// after it; store may be nil. The plan is nil when the instance's events do not have it.
// ErrTrimmed: the store can't be read, and the log has dropped the events that would tell.
func ReadInstance(ctx context.Context, log eventlog.Log, store projection.Store, id string) (*machine.Instance, *machine.Plan, error) {
	f := newFold(log.Partitions(), id)
	if err := f.read(ctx, log, store, 0); err != nil {
		return nil, nil, err
	}
	i, err := f.instance()
	if err != nil {
		return nil, nil, err
	}
	return i, f.plan(), nil
}
