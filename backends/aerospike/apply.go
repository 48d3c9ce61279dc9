package aerospike

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/godagger/dagger/projection"
)

// Apply implements projection.Partition, in four steps, each of which may be repeated:
//
//  1. a redo, which says what changes, and long values, are written under names of their own;
//  2. the mark gets the new watermark and the redo's name, on the condition that it is the one
//     for which the batch was planned: from here on the batch is applied;
//  3. pages and rows are changed, on the condition that no later event has changed them;
//  4. what nobody reads any more is removed.
//
// Who finds a batch between 2 and the end of 3 lays the redo over what he reads, or makes 3
// himself before he goes on.
func (h *handle) Apply(ctx context.Context, b projection.Batch) error {
	err := b.Check()
	if err == nil {
		err = h.begin(ctx)
	}
	if err == nil {
		err = h.p.apply(ctx, &b)
	}
	if err != nil {
		return h.fail("apply to", err)
	}
	return nil
}

func (p *part) apply(ctx context.Context, b *projection.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, fresh := p.now.Load(), false
	for {
		if st == nil || st.mark == nil {
			var err error
			if st, err = p.load(ctx); err != nil {
				return err
			}
			fresh = true
		}
		if st.mark == nil {
			return fmt.Errorf("%w: the server has forgotten the partition", projection.ErrStateLost)
		}
		fits, err := b.Settles(st.mark.at)
		switch {
		case st.mark.lost != "":
			err = p.check(ctx, st)
		case st.mark.sealed:
			err = fmt.Errorf("%w: it is on its way to the place of the partition", projection.ErrStateLost)
		case err == nil && fits:
			err = p.applyTo(ctx, st, b)
		case !fresh: // what is known may be old
			st = nil
			continue
		case err == nil:
			err = p.settled(ctx, st)
		case !errors.Is(err, projection.ErrFenced):
			if lost := p.sameCluster(ctx, st.mark); lost != nil {
				err = lost // a server that was restarted may stand anywhere
			}
		}
		if !errors.Is(err, errMoved) {
			return err
		}
		st = nil
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// settled makes sure of a batch that was applied before.
func (p *part) settled(ctx context.Context, st *state) error {
	p.writer.trust(st.mark.token)
	wait := p.cluster(ctx)
	_, err := p.finish(ctx, st)
	cluster, clusterErr := wait()
	switch {
	case errors.Is(err, errMoved): // whoever moved it on has made the rest
		return nil
	case err != nil:
		return err
	case clusterErr != nil:
		return clusterErr
	}
	return st.mark.whole(cluster)
}

// sameCluster fails when the cluster isn't any more as it was when the partition was built.
func (p *part) sameCluster(ctx context.Context, m *mark) error {
	cluster, err := p.s.clusterName(ctx)
	if err != nil {
		return err
	}
	return m.whole(cluster)
}

// applyTo applies a batch to a state. errMoved: the partition isn't in it any more, and nothing
// was applied.
func (p *part) applyTo(ctx context.Context, st *state, b *projection.Batch) error {
	p.writer.trust(st.mark.token)
	st, err := p.finish(ctx, st)
	if err != nil {
		return err
	}
	plan, err := p.newPlan(ctx, st, b)
	if errors.Is(err, errMissing) {
		return p.missing(ctx, st, err)
	}
	if err != nil {
		return err
	}
	at, next := p.space(st), st.mark.retoken()
	next.at = b.New
	after := &state{mark: next, directory: st.directory, kept: st.kept}
	var unkept []blob
	changes := plan.blobs
	if len(plan.redo.pages)+len(plan.redo.rows) > 0 {
		after.kept, unkept = st.keep()
		plan.redo.kept = after.kept
		content, pieces := p.s.newBlob(at, plan.redo.encode())
		next.redo, after.pending = content, plan.redo
		changes = append(changes, pieces...)
	}
	if plan.directory != nil {
		content, pieces := p.s.newBlob(at, plan.directory.encode())
		next.directory, after.directory = content, plan.directory
		changes = append(changes, pieces...)
	}
	if _, err := p.s.changeAll(ctx, changes); err != nil {
		return err
	}
	if err := p.s.changeMark(ctx, p.key, st.mark.token, next); err != nil {
		return err
	}
	p.now.Store(after)
	p.writer.commit(plan, next.token)
	p.discard(at, st.mark, next, unkept, plan.dropped)
	return p.settled(ctx, after)
}

// missing says what it means that a record isn't there.
func (p *part) missing(ctx context.Context, st *state, err error) error {
	if e := p.check(ctx, st); e != nil {
		return e
	}
	return p.lose(ctx, st.mark, err.Error())
}

// finish makes what is pending, and returns the state without it.
func (p *part) finish(ctx context.Context, st *state) (*state, error) {
	if st.pending == nil {
		return st, nil
	}
	w := &p.writer
	at := p.space(st)
	changes := st.pending.changes(at, func(page int64) bool {
		info, known := w.pages[page]
		return !known || info.blobs
	}, func(row string) bool {
		long, known := w.known[row]
		return !known || long
	})
	made := len(changes)
	// A batch names no record twice, and nothing here is both changed and removed.
	changes = append(changes, w.garbage...)
	w.garbage = nil
	results, err := p.s.changeAll(ctx, changes)
	if err != nil {
		return nil, err
	}
	for i, r := range results[:made] {
		c := &changes[i]
		page := i < len(st.pending.pages)
		switch {
		case page && r.code == codeNotFound:
			return nil, p.missing(ctx, st, fmt.Errorf("%w: %s", errMissing, c.key))
		case r.code != codeOK:
			continue // made before
		}
		p.drop(at, c, r)
		if page {
			id := st.pending.pages[i].id
			if info, known := w.pages[id]; known {
				info.empty = r.size == 0
				w.pages[id] = info
			}
		}
	}
	done := *st
	done.pending = nil
	p.now.CompareAndSwap(st, &done)
	return &done, nil
}

// drop has the blobs removed that a change took away.
func (p *part) drop(at space, c *change, r result) {
	kept := map[int64]bool{}
	for _, e := range c.add {
		if b, ok := blobOf(e.value); ok {
			kept[b.id] = true
		}
	}
	for _, e := range append(r.old, entry{value: r.blob}) {
		if b, ok := blobOf(e.value); ok && !kept[b.id] {
			p.writer.garbage = append(p.writer.garbage, p.s.dropBlob(at, b)...)
		}
	}
}

// keep divides the redos up to the state's own into those that are kept, and those that are not.
func (st *state) keep() (kept, not []blob) {
	all := slices.Clone(st.kept)
	if st.mark.redo.id != 0 {
		all = append(all, st.mark.redo)
	}
	bytes := 0
	for i := len(all) - 1; i >= 0; i-- {
		if bytes += all[i].size; len(all)-i > keptRedos || bytes > keptBytes {
			return all[i+1:], all[:i+1]
		}
	}
	return all, nil
}

// discard has removed what a new mark doesn't name any more.
func (p *part) discard(at space, old, now *mark, redos []blob, pages []int64) {
	w := &p.writer
	for _, b := range redos {
		w.garbage = append(w.garbage, p.s.dropBlob(at, b)...)
	}
	if old.directory.id != 0 && old.directory != now.directory {
		w.garbage = append(w.garbage, p.s.dropBlob(at, old.directory)...)
	}
	for _, id := range pages {
		w.garbage = append(w.garbage, change{key: at.page(id), mode: remove})
	}
}

// commit is what the writer knows after a plan was applied.
func (w *writer) commit(l *plan, token int64) {
	w.token = token
	for id, info := range l.pages {
		w.pages[id] = info
	}
	for _, id := range l.dropped {
		delete(w.pages, id)
	}
	for key, n := range l.counters {
		w.counters[key] = n
	}
	if len(w.known)+len(l.known) > knownRows {
		clear(w.known)
	}
	for key, row := range l.known {
		if row == rowGone {
			delete(w.known, key)
		} else {
			w.known[key] = row == rowLong
		}
	}
}
