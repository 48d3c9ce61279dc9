package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/godagger/dagger/projection"
)

// ErrNoCheckpoints: the store can't copy itself into a directory.
var ErrNoCheckpoints = errors.New("engine: the store has no checkpoints")

// Checkpoint copies all partitions that a store has into a directory that does not exist or is
// empty, and says as of which events. After an error it is not there, or as it was.
func Checkpoint(ctx context.Context, store projection.Store, dir string) (asOf map[int32]uint64, err error) {
	c, ok := store.(projection.Checkpointer)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoCheckpoints, store.URL())
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("%s is not empty", dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	partitions, err := store.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	// It gets its name when it is whole.
	part := filepath.Clean(dir) + ".part"
	if err := os.RemoveAll(part); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	asOf = map[int32]uint64{}
	for _, p := range partitions {
		w, err := c.Checkpoint(ctx, p, part)
		if err != nil {
			return nil, err
		}
		asOf[p] = w.N
	}
	if len(partitions) == 0 {
		return nil, errors.New("the store is empty")
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return asOf, os.Rename(part, dir)
}
