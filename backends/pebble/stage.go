package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/godagger/dagger/projection"
)

// A partition that is built beside p-N is the database p-N.staged. To put it in its place it
// becomes p-N.ready, p-N becomes p-N.dropped, and p-N.ready becomes p-N; Open finishes what a
// crash has cut off after the first of these.
const (
	stagedSuffix = ".staged"
	readySuffix  = ".ready"
)

// staged is a handle of the database beside the one in use.
type staged struct {
	*handle
}

// Stage implements projection.Stager.
func (s *Store) Stage(ctx context.Context, n int32) (projection.Staged, error) {
	g, err := s.stage(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("stage partition %d: %w", n, err)
	}
	return g, nil
}

func (s *Store) stage(ctx context.Context, n int32) (*staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := s.partition(n); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed || s.staged[n] != nil {
		s.mu.Unlock()
		if s.closed {
			return nil, projection.ErrClosed
		}
		return nil, projection.ErrInUse
	}
	p := s.newPartition(n, s.fs.PathJoin(s.dir, partitionDir(n)+stagedSuffix))
	s.staged[n] = p
	s.mu.Unlock()
	return outlast(p, p.stage, func(g *staged) { g.Close() })
}

func (p *partition) stage() (*staged, error) {
	p.life.Lock()
	defer p.life.Unlock()
	err := p.openDB(false)
	if errors.Is(err, projection.ErrStateLost) {
		if err = p.s.fs.RemoveAll(p.dir); err == nil {
			p.lost.Store(nil)
			err = p.openDB(false)
		}
	}
	if err != nil {
		p.s.unstage(p)
		return nil, err
	}
	p.refs++
	return &staged{&handle{p: p}}, nil
}

// unstage lets the next Stage come.
func (s *Store) unstage(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged[p.n] == p {
		delete(s.staged, p.n)
	}
}

// stagedRows of changed rows become tables of their own, without a detour by the memtable, and
// the fewer there are, the less they are sorted among each other.
const stagedRows = 16_000

// Gather implements projection.Gatherer.
func (*staged) Gather() int { return stagedRows }

// Reset implements projection.Staged.
func (g *staged) Reset(ctx context.Context) error {
	if _, err := g.begin(ctx); err != nil && !errors.Is(err, projection.ErrStateLost) {
		return fmt.Errorf("reset partition %d: %w", g.p.n, err)
	} else if err == nil {
		g.p.use.RUnlock()
	}
	if err := g.p.outlive(g.p.reset); err != nil {
		return fmt.Errorf("reset partition %d: %w", g.p.n, err)
	}
	return nil
}

func (p *partition) reset() error {
	p.life.Lock()
	defer p.life.Unlock()
	p.takeUse()
	defer p.use.Unlock()
	_ = p.closeUnused() // it is thrown away
	if err := p.s.fs.RemoveAll(p.dir); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watermark = projection.Watermark{}
	p.lost.Store(nil)
	return nil
}

// Replace implements projection.Staged.
func (g *staged) Replace(ctx context.Context) error {
	if g.closed.Load() {
		return fmt.Errorf("replace partition %d: %w", g.p.n, projection.ErrClosed)
	}
	if err := g.Flush(ctx); err != nil {
		return fmt.Errorf("replace partition %d: %w", g.p.n, err)
	}
	if err := g.Close(); err != nil { // waits for who still reads it
		return fmt.Errorf("replace partition %d: %w", g.p.n, err)
	}
	live, err := g.p.s.partition(g.p.n)
	if err == nil {
		err = live.stuck()
	}
	if err == nil {
		err = live.outlive(func() error { return live.replaceBy(g.p.dir) })
	}
	if err != nil {
		return fmt.Errorf("replace partition %d: %w", g.p.n, err)
	}
	return nil
}

// Close implements projection.View.
func (g *staged) Close() error {
	defer g.p.s.unstage(g.p)
	return g.handle.Close()
}

// replaceBy puts the closed database of a directory in the place of this one, whose handles
// go on with it.
func (p *partition) replaceBy(dir string) error {
	fsys := p.s.fs
	p.life.Lock()
	defer p.life.Unlock()
	if p.dead.Load() {
		return projection.ErrClosed
	}
	if _, err := fsys.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return errors.New("nothing was built")
	} else if err != nil {
		return err
	}
	p.takeUse()
	defer p.use.Unlock()
	damaged := p.lost.Load() != nil
	if err := p.closeUnused(); err != nil {
		damaged = true
	}
	ready := p.dir + readySuffix
	if err := fsys.RemoveAll(ready); err != nil {
		return err
	}
	if err := fsys.Rename(dir, ready); err != nil {
		return err
	}
	if err := syncDir(fsys, p.s.dir); err != nil {
		return err
	}
	if err := p.removeDir(damaged); err != nil {
		return errors.Join(err, p.lose(err))
	}
	if err := fsys.Rename(ready, p.dir); err != nil {
		return errors.Join(err, p.lose(err))
	}
	if err := syncDir(fsys, p.s.dir); err != nil {
		return errors.Join(err, p.lose(err))
	}
	p.lost.Store(nil)
	p.mu.Lock()
	p.watermark = projection.Watermark{Epoch: p.watermark.Epoch}
	p.mu.Unlock()
	if p.refs == 0 {
		return nil
	}
	db, watermark, err := p.load()
	if err != nil {
		return err
	}
	p.set(db, watermark)
	return nil
}

// finishReplaced finishes replacements that a crash cut off.
func (s *Store) finishReplaced() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		base, found := strings.CutSuffix(name, readySuffix)
		if !found || !strings.HasPrefix(name, "p-") {
			continue
		}
		dir := s.fs.PathJoin(s.dir, base)
		if _, err := s.fs.Stat(dir); err == nil {
			if err := s.fs.RemoveAll(dir + ".dropped"); err != nil {
				return err
			}
			if err := s.fs.Rename(dir, dir+".dropped"); err != nil {
				return err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.fs.Rename(dir+readySuffix, dir); err != nil {
			return err
		}
		if err := syncDir(s.fs, s.dir); err != nil {
			return err
		}
	}
	return nil
}
