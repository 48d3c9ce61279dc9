package aerospike

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/godagger/dagger/projection"
)

// staged is a partition that is being built beside the one in use: it has a mark and an
// incarnation of its own.
type staged struct {
	handle
	mu   sync.Mutex // held by what ends it
	done bool
}

// Stage implements projection.Stager.
func (s *Store) Stage(ctx context.Context, partition int32) (projection.Staged, error) {
	err := s.begin(ctx, partition)
	if err == nil {
		s.mu.Lock()
		if s.staged[partition] {
			err = projection.ErrInUse
		} else {
			s.staged[partition] = true
		}
		s.mu.Unlock()
	}
	if err == nil {
		g := &staged{handle: handle{p: s.part(partition, stagedKey(partition))}}
		if err = g.begun(ctx); err == nil {
			return g, nil
		}
		g.free()
	}
	return nil, fmt.Errorf("stage partition %d: %w", partition, err)
}

func (g *staged) free() {
	g.p.s.mu.Lock()
	delete(g.p.s.staged, g.p.n)
	g.p.s.mu.Unlock()
}

// begun takes what was left, or begins anew: when nothing was, when it was damaged, and when it
// was on its way to the place of the partition and may be there by now or soon.
func (g *staged) begun(ctx context.Context) error {
	s := g.p.s
	for {
		m, err := s.readMark(ctx, g.p.key)
		if err != nil {
			return err
		}
		live, err := s.readMark(ctx, liveKey(g.p.n))
		if err != nil {
			return err
		}
		// A Drop of the partition has everything removed below its incarnation, but for one that
		// it finds staged: so one that is begun must be above, or be seen.
		if m != nil && !m.sealed && m.lost == "" && (live == nil || m.inc != live.inc) && (m.at.N > 0 || live == nil || m.inc > live.inc) {
			err := g.p.inspect(ctx)
			if errors.Is(err, projection.ErrStateLost) {
				return g.renew(ctx)
			}
			return err
		}
		if err := g.renew(ctx); err != nil {
			return err
		}
	}
}

// renew begins an empty incarnation.
func (g *staged) renew(ctx context.Context) error {
	s := g.p.s
	for {
		m, err := s.readMark(ctx, g.p.key)
		if err != nil {
			return err
		}
		live, err := s.readMark(ctx, liveKey(g.p.n))
		if err != nil {
			return err
		}
		token, above := int64(0), int64(0)
		if m != nil {
			token, above = m.token, m.inc
		}
		if live != nil {
			above = max(above, live.inc)
		}
		next, err := s.fresh(ctx, 0, above)
		if err != nil {
			return err
		}
		if err = s.changeMark(ctx, g.p.key, token, next); err == nil {
			_, err = g.p.load(ctx)
			return err
		}
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

// Reset implements projection.Staged.
func (g *staged) Reset(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.handle.begin(ctx)
	if err == nil {
		g.p.mu.Lock()
		err = g.renew(ctx)
		g.p.mu.Unlock()
	}
	if err != nil {
		return g.fail("reset staged", err)
	}
	return nil
}

// Replace implements projection.Staged. The staged mark is sealed first, so that nobody else
// goes on with what may be the partition from then on.
func (g *staged) Replace(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.handle.begin(ctx)
	if err == nil {
		g.p.mu.Lock()
		err = g.replace(ctx)
		g.p.mu.Unlock()
	}
	if err != nil {
		return g.fail("replace", err)
	}
	return g.end()
}

func (g *staged) replace(ctx context.Context) error {
	s := g.p.s
	st, err := g.p.view(ctx, func(*state) error { return nil })
	if err != nil {
		return err
	}
	if st.mark == nil {
		return fmt.Errorf("%w: what was built is gone", projection.ErrStateLost)
	}
	g.p.writer.trust(st.mark.token)
	if st, err = g.p.finish(ctx, st); err != nil {
		return err
	}
	if !st.mark.sealed {
		sealed := st.mark.retoken()
		sealed.sealed = true
		if err := s.changeMark(ctx, g.p.key, st.mark.token, sealed); err != nil {
			return err
		}
	}
	for {
		live, err := s.readMark(ctx, liveKey(g.p.n))
		if err != nil {
			return err
		}
		if live != nil && live.inc == st.mark.inc {
			break // an earlier try did it
		}
		next, token := st.mark.retoken(), int64(0)
		next.sealed, next.at.Epoch = false, 0
		if live != nil {
			token = live.token
			next.at.Epoch = live.at.Epoch
		}
		if err = s.changeMark(ctx, liveKey(g.p.n), token, next); err == nil {
			break
		}
		if !errors.Is(err, errMoved) {
			return err
		}
	}
	p := s.part(g.p.n, liveKey(g.p.n))
	p.seen.Store(true)
	p.now.Store(nil)
	if err := g.renew(ctx); err != nil {
		return nil // it is in its place; who stages next begins anew
	}
	s.sweep(ctx, g.p.n, st.mark.inc)
	return nil
}

// Close implements projection.View. What was built stays.
func (g *staged) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.end()
}

func (g *staged) end() error {
	if !g.done {
		g.done = true
		g.free()
	}
	return g.handle.Close()
}
