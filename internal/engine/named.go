package engine

import (
	"context"
	"fmt"
	"math"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// stretch is a part of a partition, by the numbers of its first and last event.
type stretch struct{ from, until uint64 }

const (
	// blockRows is how many filters are read at once.
	blockRows = 512
	// nearBlocks is how many blocks between two that are wanted are read with them: as long as it
	// takes to find another place in the log.
	nearBlocks = 1
)

// named are the parts of the log that may name an id or have events of a type, in order, as far
// as the store has an index of them; what it has none of is one of them. Without a store that can
// be read this is the whole log, as the zero hint says.
func (s *finder) named(ctx context.Context, store projection.Store, id string, also []eventlog.Type) (l []stretch, hint found, err error) {
	if store != nil {
		l, hint, err = s.indexed(ctx, store, id, also)
		if ctx.Err() != nil {
			return nil, found{}, context.Cause(ctx)
		}
	}
	if store == nil || err != nil { // held by another process, or damaged: the log has all
		return []stretch{{1, math.MaxUint64}}, found{}, nil
	}
	return l, hint, nil
}

func (s *finder) indexed(ctx context.Context, store projection.Store, id string, also []eventlog.Type) (l []stretch, hint found, err error) {
	v, err := store.View(ctx, s.partition)
	if err != nil {
		return nil, hint, err
	}
	defer v.Close()
	w, err := v.Watermark(ctx)
	if err != nil {
		return nil, hint, err
	}
	l = []stretch{{1, math.MaxUint64}}
	if w.N == 0 || w.LogID != s.topicID || w.Offset < s.start {
		return l, hint, nil
	}
	hint = found{n: w.N, offset: w.Offset}
	hash, types := hashOf(id), typeBit(eventlog.PlanUsed)
	for _, t := range also {
		types |= typeBit(t)
	}
	for from := []byte(nil); ; {
		rows, _, err := v.Scan(ctx, projection.KindBlock, from, nil, blockRows)
		if err != nil {
			return nil, hint, err
		}
		for _, row := range rows {
			b, rest, err := projection.CutUint64(row.Key)
			if err != nil || len(rest) > 0 || b >= math.MaxUint64/blockEvents {
				return nil, hint, fmt.Errorf("%w: key of a row of the blocks' index", projection.ErrStateLost)
			}
			if !mayName(row.Value, hash, types) {
				l = without(l, b)
			}
		}
		if len(rows) < blockRows {
			return l, hint, nil
		}
		from = append(rows[len(rows)-1].Key, 0)
	}
}

// without takes a block out of the last stretch; blocks come in order.
func without(l []stretch, b uint64) []stretch {
	last := &l[len(l)-1]
	first, next := blockFirst(b), blockFirst(b+1)
	if last.from >= first {
		last.from = next
		return l
	}
	last.until = first - 1
	return append(l, stretch{next, math.MaxUint64})
}

// join makes one of stretches that are near to each other.
func join(l []stretch) []stretch {
	kept := l[:1]
	for _, x := range l[1:] {
		if last := &kept[len(kept)-1]; x.from-last.until <= nearBlocks*blockEvents+1 {
			last.until = x.until
		} else {
			kept = append(kept, x)
		}
	}
	return kept
}
