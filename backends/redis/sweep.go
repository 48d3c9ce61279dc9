package redis

import (
	"context"
	"slices"
	"strings"
)

// sweepPage is how many keys are removed in one call. The server frees what was in them beside
// its other work.
const sweepPage = 32

// sweep removes generations that were replaced, in the background. What it does not end, because
// the store is closed or the server is away, the next Acquire or Stage goes on with.
func (s *Store) sweep(ctx context.Context, partition int32, old string) {
	if old == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return
	}
	_, works := s.sweeps[partition]
	s.sweeps[partition] = old
	if works {
		return
	}
	ctx = context.WithoutCancel(ctx) // Close ends it
	s.ends.Go(func() {
		for {
			s.mu.Lock()
			next := s.sweeps[partition]
			if s.sweeps[partition] = ""; next == "" {
				delete(s.sweeps, partition)
			}
			s.mu.Unlock()
			if next == "" {
				return
			}
			for _, gen := range strings.Fields(next) {
				if s.remove(ctx, partition, gen) != nil {
					break
				}
			}
		}
	})
}

// firstGeneration is how a watermark lists the generation whose name is empty.
const firstGeneration = "-"

// remove removes one generation, as long as the watermark lists it.
func (s *Store) remove(ctx context.Context, partition int32, gen string) error {
	base := s.names.base(partition)
	if gen != firstGeneration {
		base += gen
	}
	pages := slices.Collect(slices.Chunk(containersOf(base), sweepPage))
	for k, page := range pages {
		last := ""
		if k == len(pages)-1 {
			last = "last"
		}
		reply, err := s.run(ctx, sweepScript, append([]string{s.names.watermark(partition)}, page...), gen, last)
		if err != nil {
			return err
		}
		if text(first(reply)) == "gone" {
			return nil
		}
	}
	return nil
}
