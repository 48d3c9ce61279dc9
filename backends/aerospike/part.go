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
	directory *directory //
	pending   *redo      // laid over what is read; nil: all pages and rows have it
	kept      []blob     // redos before the mark's that are still there
}

// space is where the pages and rows of the state are.
func (p *part) space(st *state) space { return space{p.n, st.mark.inc} }

// load reads the state from the server.
func (p *part) load(ctx context.Context) (*state, error) {
	for {
		m, err := p.s.readMark(ctx, p.key)
		if err != nil {
			return nil, err
		}
		if m == nil {
			if p.seen.Load() {
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
	wait := p.cluster(ctx)
	r, err := p.s.readOne(ctx, read{key: p.key, bins: []string{binToken}})
	cluster, clusterErr := wait()
	switch {
	case err != nil:
		return err
	case r == nil && p.seen.Load():
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

// entries reads the entries of pages with keys of a span, as they are in a state. A page that
// isn't there is noted in missing, or errMissing when that is nil.
func (p *part) entries(ctx context.Context, st *state, pages []page, within span, missing map[int64]bool) ([][]entry, error) {
	at := p.space(st)
	lists := make([][]entry, len(pages))
	var reads []read
	var which []int
	for i, x := range pages {
		if c := st.change(x.id); c != nil && c.new {
			lists[i] = c.over(nil)
			continue
		}
		r := read{key: at.page(x.id), span: &within}
		reads, which = append(reads, r), append(which, i)
	}
	records, err := p.s.readAll(ctx, reads, pagesPerCall)
	if err != nil {
		return nil, err
	}
	for j, r := range records {
		i := which[j]
		if r == nil {
			if missing == nil {
				return nil, fmt.Errorf("%w: page %d", errMissing, pages[i].id)
			}
			missing[pages[i].id] = true
			continue
		}
		if lists[i] = r.entries; st.change(pages[i].id) != nil {
			lists[i] = st.change(pages[i].id).over(r.entries)
		}
	}
	for i := range lists { // what was laid over may lie outside
		if c := st.change(pages[i].id); c != nil {
			kept := lists[i][:0]
			for _, e := range lists[i] {
				if within.has(e.key) {
					kept = append(kept, e)
				}
			}
			lists[i] = kept
		}
	}
	return lists, nil
}

// pagesPerCall is how many pages are read in one call.
const pagesPerCall = 256

// change is what is pending of a page.
func (st *state) change(page int64) *pageChange {
	if st.pending == nil {
		return nil
	}
	return st.pending.byPage[page]
}

// find reads entries by key: the stored value, nil where there is none.
func (p *part) find(ctx context.Context, st *state, kind projection.Kind, keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	pages := st.directory.kinds[kind]
	if len(pages) == 0 {
		return values, nil
	}
	at := p.space(st)
	byPage := map[int64][]int{}
	var order []int64
	for i, key := range keys {
		id := pages[find(pages, key)].id
		if byPage[id] == nil {
			order = append(order, id)
		}
		byPage[id] = append(byPage[id], i)
	}
	var reads []read
	for _, id := range order {
		r := read{key: at.page(id)}
		for _, i := range byPage[id] {
			r.keys = append(r.keys, keys[i])
		}
		if c := st.change(id); c == nil || !c.new {
			reads = append(reads, r)
		}
	}
	records, err := p.s.readAll(ctx, reads, pagesPerCall)
	if err != nil {
		return nil, err
	}
	for _, id := range order {
		var entries []entry
		c := st.change(id)
		if c == nil || !c.new {
			if records[0] == nil {
				return nil, fmt.Errorf("%w: page %d", errMissing, id)
			}
			entries, records = records[0].entries, records[1:]
		}
		if c != nil {
			entries = c.over(entries)
		}
		found := make(map[string][]byte, len(entries))
		for _, e := range entries {
			found[e.key] = e.value
		}
		for _, i := range byPage[id] {
			values[i] = found[keys[i]]
		}
	}
	return values, nil
}

// rows reads record rows: the stored value, nil where there is none or a marker.
func (p *part) rows(ctx context.Context, st *state, keys []string) ([][]byte, error) {
	at := p.space(st)
	values := make([][]byte, len(keys))
	var reads []read
	var which []int
	for i, key := range keys {
		if st.pending != nil && st.pending.byRow[key] != nil {
			values[i] = st.pending.byRow[key].value
			continue
		}
		reads, which = append(reads, read{key: at.row(key), bins: []string{binValue}}), append(which, i)
	}
	records, err := p.s.readAll(ctx, reads, maxCall)
	if err != nil {
		return nil, err
	}
	for j, r := range records {
		if r != nil {
			values[which[j]] = r.bytes(binValue)
		}
	}
	for i, v := range values {
		if len(v) == 1 && v[0] == gone {
			values[i] = nil
		}
	}
	return values, nil
}

// values turns stored values into those of rows; nil stays nil.
func (p *part) values(ctx context.Context, st *state, stored [][]byte) ([][]byte, error) {
	out := make([][]byte, len(stored))
	var blobs []blob
	var which []int
	for i, v := range stored {
		if v == nil {
			continue
		}
		if b, ok := blobOf(v); ok {
			blobs, which = append(blobs, b), append(which, i)
			continue
		}
		value, err := decode(v)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMissing, err)
		}
		out[i] = value
	}
	if len(blobs) == 0 {
		return out, nil
	}
	contents, err := p.s.readBlobs(ctx, p.space(st), blobs)
	if err != nil {
		return nil, err
	}
	for j, i := range which {
		if out[i], err = decode(contents[j]); err != nil {
			return nil, fmt.Errorf("%w: %w", errMissing, err)
		}
	}
	return out, nil
}
