package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// whyFenced says more of a store that has a later epoch. Mostly another worker took the
// partition meanwhile; but epochs are event numbers, and a store of another log, or one that
// has folded more than the log holds, has later ones for ever.
func (r *runner) whyFenced(ctx context.Context, epoch uint64, fenced error) error {
	if !errors.Is(fenced, projection.ErrFenced) {
		return fenced
	}
	w, err := watermark(ctx, r.e.store, r.partition)
	switch {
	case err != nil || w.N == 0:
	case w.LogID != r.e.eventsID:
		return foreign(r.e.store, w.LogID, r.e.eventsID)
	case w.N >= epoch:
		return fmt.Errorf("%w; it stands at event %d, and the log ended with event %d: when no other worker has taken the partition, the log is older than its store (was it restored?); use an empty store with it", fenced, w.N, epoch)
	}
	return fenced
}

// refuseForeign looks whose events the partition has folded before it is claimed: a claim
// would shut out the owner of another log. release is called once it is claimed, so that what
// looking has opened is not opened twice. What can't be read is for Acquire.
func (r *runner) refuseForeign(ctx context.Context) (release func(), err error) {
	v, err := r.e.store.View(ctx, r.partition)
	if err != nil {
		return func() {}, nil
	}
	release = func() {
		if err := v.Close(); err != nil {
			r.logger.Debug("close store partition", "err", err)
		}
	}
	if w, err := v.Watermark(ctx); err == nil && w.N > 0 && w.LogID != r.e.eventsID {
		release()
		return nil, foreign(r.e.store, w.LogID, r.e.eventsID)
	}
	return release, nil
}

// foreign is the error of a store that has folded another events topic.
func foreign(store projection.Store, has, want string) error {
	return fmt.Errorf("%w: %s has folded the events topic %s, this log's is %s; use an empty store with this log", ErrForeignStore, store.URL(), has, want)
}
