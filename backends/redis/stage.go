package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// staged is a handle of what is built beside a partition: containers of the next generation and
// a watermark of their own. Who stages the partition last writes there; an earlier builder in
// another process is refused.
type staged struct {
	*handle
}

// Stage implements projection.Stager.
func (s *Store) Stage(ctx context.Context, partition int32) (projection.Staged, error) {
	g, err := s.stage(ctx, partition)
	if err != nil {
		return nil, fmt.Errorf("stage partition %d: %w", partition, err)
	}
	return g, nil
}

func (s *Store) stage(ctx context.Context, partition int32) (*staged, error) {
	if err := s.begin(ctx, partition); err != nil {
		return nil, err
	}
	s.mu.Lock()
	mine := !s.staged[partition]
	s.staged[partition] = true
	s.mu.Unlock()
	if !mine {
		return nil, projection.ErrInUse
	}
	g := &staged{&handle{s: s, partition: partition, gen: &generation{}, by: rand.Text()}}
	old, err := g.open(ctx, true)
	if err == nil {
		_, err = g.claim(ctx, 0)
	}
	if errors.Is(err, projection.ErrStateLost) {
		err = g.reset(ctx)
	}
	if err != nil {
		s.unstage(partition)
		return nil, err
	}
	s.sweep(ctx, partition, old)
	return g, nil
}

// unstage lets the next Stage come.
func (s *Store) unstage(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.staged, partition)
}

// open finds the generation that is built, or begins one; take: whoever builds it.
func (g *staged) open(ctx context.Context, take bool) (old string, err error) {
	mode := ""
	if take {
		mode = "take"
	}
	names := []string{g.s.names.watermark(g.partition), g.record()}
	reply, err := g.s.run(ctx, stageScript, names, g.by, epochText(0), g.s.buckets, mode)
	if err == nil {
		err = refusal(reply, 0)
	}
	if err != nil {
		return "", err
	}
	g.gen.set(text(reply[1]))
	g.seen.Store(true)
	return text(reply[2]), nil
}

// Reset implements projection.Staged.
func (g *staged) Reset(ctx context.Context) error {
	err := g.begin(ctx)
	if err == nil {
		err = g.reset(ctx)
	}
	if err != nil {
		return g.fail("reset", err)
	}
	return nil
}

func (g *staged) reset(ctx context.Context) error {
	// The server may have forgotten all of it.
	if _, err := g.open(ctx, false); err != nil {
		return err
	}
	return g.drop(ctx, 0)
}

// Replace implements projection.Staged.
func (g *staged) Replace(ctx context.Context) error {
	err := g.begin(ctx)
	if err == nil {
		err = g.replace(ctx)
	}
	if err != nil {
		return g.fail("replace", err)
	}
	return nil
}

func (g *staged) replace(ctx context.Context) error {
	gen := g.gen.get()
	base := g.s.names.base(g.partition)
	names := containersOf(base+gen, g.s.names.watermark(g.partition), g.record())
	reply, err := g.s.run(ctx, replaceScript, names, gen, g.by, allTypes)
	if err == nil {
		err = refusal(reply, 0)
	}
	if err != nil {
		return err
	}
	g.s.gens[g.partition].set(gen)
	if err := g.Close(); err != nil {
		return err
	}
	g.s.sweep(ctx, g.partition, text(reply[1]))
	return nil
}

// Close implements projection.View; what was built stays. Twice is fine.
func (g *staged) Close() error {
	if !g.closed.Swap(true) {
		g.s.unstage(g.partition)
	}
	return nil
}
