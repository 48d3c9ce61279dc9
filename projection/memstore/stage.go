package memstore

import (
	"context"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// staged is a partition that is built beside the one in use: a handle of a store of its own.
type staged struct {
	*handle
	of   *Store
	side *Store
}

// Stage implements projection.Stager.
func (s *Store) Stage(ctx context.Context, p int32) (projection.Staged, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx, p); err != nil {
		return nil, fmt.Errorf("stage partition %d: %w", p, err)
	}
	if s.staging[p] {
		return nil, fmt.Errorf("stage partition %d: %w", p, projection.ErrInUse)
	}
	side := s.sides[p]
	if side == nil {
		side = New(s.id)
		s.sides[p] = side
	}
	s.staging[p] = true
	side.mu.Lock()
	defer side.mu.Unlock()
	if side.parts[p] == nil {
		side.parts[p] = &partition{kinds: map[projection.Kind]*ordered{}}
	}
	return &staged{handle: &handle{s: side, p: p}, of: s, side: side}, nil
}

// Reset implements projection.Staged.
func (g *staged) Reset(ctx context.Context) error {
	if g.closed.Load() {
		return projection.ErrClosed
	}
	return g.side.Drop(ctx, g.p, 0)
}

// Replace implements projection.Staged.
func (g *staged) Replace(ctx context.Context) error {
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	if g.closed.Load() {
		return fmt.Errorf("replace partition %d: %w", g.p, projection.ErrClosed)
	}
	if err := g.of.check(ctx, g.p); err != nil {
		return fmt.Errorf("replace partition %d: %w", g.p, err)
	}
	g.closed.Store(true)
	g.side.mu.Lock()
	defer g.side.mu.Unlock()
	built := g.side.parts[g.p]
	if old := g.of.parts[g.p]; old != nil {
		built.watermark.Epoch = old.watermark.Epoch
		*old = *built
	} else {
		g.of.parts[g.p] = built
	}
	delete(g.of.sides, g.p)
	delete(g.of.staging, g.p)
	return nil
}

// Close implements projection.View; what was built stays. Twice is fine.
func (g *staged) Close() error {
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	if !g.closed.Swap(true) {
		delete(g.of.staging, g.p)
	}
	return nil
}
