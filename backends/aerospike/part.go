package aerospike

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/godagger/dagger/projection"
)

// part is what this process knows of a partition, or of one that is being built beside it. All
// handles of it share it.
type part struct {
	s   *Store
	n   int32
	key string // of its mark

	now  atomic.Pointer[state] // the newest that is known; nil = nothing
	seen atomic.Bool           // it was there: if it isn't later on, it was lost

	mu     sync.Mutex // held by who changes it, for all below
	writer writer
}

// state is a partition at one token. It never changes.
type state struct {
	mark      *mark      // nil: it never was
	directory *directory // where its entries are
	pending   *redo      // laid over what is read; nil: all pages and rows have it
	kept      []blob     // redos before the mark's that are still there
}

// space is where the pages and rows of the state are.
func (p *part) space(st *state) space { return space{p.n, st.mark.inc} }

// load reads the state from the server.
func (p *part) load(ctx context.Context) (*state, error) {
	for {
		seen := p.seen.Load() // before the read: it may come into being right after it
		m, err := p.s.readMark(ctx, p.key)
		if err != nil {
			return nil, err
		}
		if m == nil {
			if seen {
				return nil, fmt.Errorf("%w: the server has forgotten the partition", projection.ErrStateLost)
			}
			return &state{}, nil
		}
		p.seen.Store(true)
		st, err := p.complete(ctx, m)
		if errors.Is(err, errMissing) || errors.Is(err, errFormat) {
			if again, e := p.s.readMark(ctx, p.key); e != nil {
				return nil, e
			} else if again != nil && again.token == m.token {
				return nil, p.lose(ctx, m, "directory or redo: "+err.Error())
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		p.now.Store(st)
		return st, nil
	}
}

// complete reads what a mark names, but for what is known already.
func (p *part) complete(ctx context.Context, m *mark) (*state, error) {
	st := &state{mark: m, directory: emptyDirectory}
	if m.lost != "" {
		return st, nil
	}
	known := p.now.Load()
	if known != nil && (known.mark == nil || known.mark.inc != m.inc) {
		known = nil
	}
	at := p.space(st)
	if m.directory.id != 0 {
		if known != nil && known.mark.directory == m.directory {
			st.directory = known.directory
		} else {
			raw, err := p.s.readBlobs(ctx, at, []blob{m.directory})
			if err != nil {
				return nil, err
			}
			if st.directory, err = decodeDirectory(raw[0]); err != nil {
				return nil, err
			}
		}
	}
	if m.redo.id != 0 {
		if known != nil && known.mark.redo == m.redo {
			st.pending, st.kept = known.pending, known.kept
			return st, nil
		}
		raw, err := p.s.readBlobs(ctx, at, []blob{m.redo})
		if err != nil {
			return nil, err
		}
		if st.pending, err = decodeRedo(raw[0]); err != nil {
			return nil, err
		}
		st.kept = st.pending.kept
	}
	return st, nil
}

// check says whether what was read with a state, before this call, is the partition at the
// state's token: the token is still there, and no node was started, has left or has come since
// the incarnation began. errMoved: read again. Protocol rule 26.
func (p *part) check(ctx context.Context, st *state) error {
	wait, seen := p.cluster(ctx), p.seen.Load()
	r, err := p.s.readOne(ctx, read{key: p.key, bins: []string{binToken}})
	cluster, clusterErr := wait()
	switch {
	case err != nil:
		return err
	case r == nil && seen:
		return fmt.Errorf("%w: the server has forgotten the partition", projection.ErrStateLost)
	case st.mark == nil && r == nil:
		return nil
	case st.mark == nil || r.int(binToken) != st.mark.token:
		return errMoved
	case clusterErr != nil:
		return clusterErr
	}
	return st.mark.whole(cluster)
}

// cluster asks how the cluster is called, while the caller does something else. He must wait.
func (p *part) cluster(ctx context.Context) (wait func() (string, error)) {
	var name string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		name, err = p.s.clusterName(ctx)
	}()
	return func() (string, error) {
		<-done
		return name, err
	}
}

// view calls f with states until what f read is all of one state, which it returns. f fails with
// errMissing where something isn't there that should be. Where others change the partition
// faster than f reads, it fails with ErrMoves after a while.
func (p *part) view(ctx context.Context, f func(*state) error) (*state, error) {
	patience := p.s.patience()
	for {
		st, err := p.now.Load(), error(nil)
		if st == nil || st.mark == nil {
			if st, err = p.load(ctx); err != nil {
				return nil, err
			}
		}
		var failed error
		if st.mark != nil && st.mark.lost == "" {
			if failed = f(st); failed != nil && !errors.Is(failed, errMissing) {
				return nil, failed
			}
		}
		switch err := p.check(ctx, st); {
		case errors.Is(err, errMoved):
			if patience.over() {
				return nil, projection.ErrMoves
			}
			if _, err := p.load(ctx); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		case failed != nil:
			return nil, p.lose(ctx, st.mark, failed.Error())
		}
		return st, nil
	}
}

// lose marks the partition as lost, unless it has moved on.
func (p *part) lose(ctx context.Context, m *mark, why string) error {
	lost := fmt.Errorf("%w: %s", projection.ErrStateLost, why)
	next := m.retoken()
	next.lost = why
	if err := p.s.changeMark(ctx, p.key, m.token, next); err != nil && !errors.Is(err, errMoved) {
		return fmt.Errorf("%w (and marking it failed: %v)", lost, err)
	}
	return lost
}
