package aerospike

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"github.com/godagger/dagger/projection"
)

const (
	// pageSize is how large a page may become, as far as its writer knows, before it is read and
	// divided. The server writes a page anew with each change, so small ones are better; the
	// directory, which is written with each division, wants large ones.
	pageSize = 16 << 10
	// entryCost is about what an entry takes beside its key and value.
	entryCost = 8
	// manyEmpty is how many empty pages are worth a directory without them.
	manyEmpty = 16
	// keptRedos and keptBytes are how many redos, and how much of them, stay for those who read the
	// partition whole meanwhile; see part.dump.
	keptRedos = 64
	keptBytes = 8 << 20
	// knownRows is how many record rows the writer remembers to be in the index.
	knownRows = 16_000
)

// writer is what the process that changes a partition knows of it, as long as nobody else
// changes it.
type writer struct {
	token    int64              // of the state for which this holds
	pages    map[int64]pageInfo // of those it has read or written
	known    map[string]bool    // record rows that are in the index: their values are in blobs
	counters map[string]int64   // those it has read or written
	garbage  []change           // removals of what nobody reads any more
}

// pageInfo is what the writer knows of a page.
type pageInfo struct {
	kind  projection.Kind
	most  int  // bytes, at most
	blobs bool // values may be in blobs
	empty bool
}

// trust forgets everything unless nobody has changed the partition since.
func (w *writer) trust(token int64) {
	if w.token != token {
		*w = writer{token: token, pages: map[int64]pageInfo{}, known: map[string]bool{}, counters: map[string]int64{}}
	}
}

// plan is how a batch is written.
type plan struct {
	redo      *redo
	directory *directory // a new one; nil when it is as it was
	blobs     []change   // long values
	dropped   []int64    // pages that are no longer in the directory

	pages    map[int64]pageInfo
	known    map[string]rowState
	counters map[string]int64
}

// rowState is what becomes of a record row.
type rowState int

const (
	rowShort rowState = iota
	rowLong           // its value is in a blob
	rowGone
)

// planner makes a plan.
type planner struct {
	p    *part
	st   *state
	plan plan
	// entries are the changes of entries, by kind: nil deletes.
	entries map[projection.Kind]map[string][]byte
}

// newPlan makes the plan of a batch for a state that has nothing pending.
func (p *part) newPlan(ctx context.Context, st *state, b *projection.Batch) (*plan, error) {
	l := planner{p: p, st: st, entries: map[projection.Kind]map[string][]byte{}}
	l.plan = plan{redo: &redo{n: int64(b.New.N)}, pages: map[int64]pageInfo{}, known: map[string]rowState{}}
	if err := l.rows(b); err != nil {
		return nil, err
	}
	if err := l.count(ctx, b.Add); err != nil {
		return nil, err
	}
	if err := l.arrange(ctx); err != nil {
		return nil, err
	}
	l.plan.redo.index()
	return &l.plan, nil
}

func (l *planner) entry(kind projection.Kind, key string, stored []byte) {
	if l.entries[kind] == nil {
		l.entries[kind] = map[string][]byte{}
	}
	l.entries[kind][key] = stored
}

// rows takes rows of a batch apart: records, entries, and blobs for what is long.
func (l *planner) rows(b *projection.Batch) error {
	for i := range b.Put {
		r := &b.Put[i]
		if err := l.p.s.fits(r); err != nil {
			return err
		}
		key, stored, most := string(r.Key), encode(r.Kind, r.Value), maxEntry
		if isRecord(r.Kind) {
			most = l.p.s.pieceSize / 2
		}
		row := rowShort
		if len(stored) > most {
			content, changes := l.p.s.newBlob(l.p.space(l.st), stored)
			l.plan.blobs = append(l.plan.blobs, changes...)
			stored, row = reference(content), rowLong
		}
		if !isRecord(r.Kind) {
			l.entry(r.Kind, key, stored)
			continue
		}
		l.plan.redo.rows = append(l.plan.redo.rows, rowChange{key, stored})
		if _, known := l.p.writer.known[key]; !known {
			l.entry(r.Kind, key, []byte{})
		}
		l.plan.known[key] = row
	}
	for i := range b.Del {
		key := string(b.Del[i].Key)
		l.entry(b.Del[i].Kind, key, nil)
		if isRecord(b.Del[i].Kind) {
			l.plan.redo.rows = append(l.plan.redo.rows, rowChange{key, []byte{gone}})
			l.plan.known[key] = rowGone
		}
	}
	return nil
}

// fits refuses a row that is too large, before anything is written.
func (s *Store) fits(r *projection.Row) error {
	switch {
	case len(r.Value) > maxValue:
		return fmt.Errorf("%w: the value of row %#x %.40q has %d bytes, %d are allowed", projection.ErrTooLarge, byte(r.Kind), r.Key, len(r.Value), maxValue)
	case len(r.Key) > s.maxKey():
		return fmt.Errorf("%w: the key of row %#x %.40q has %d bytes, %d are allowed with a max-record-size of %d",
			projection.ErrTooLarge, byte(r.Kind), r.Key, len(r.Key), s.maxKey(), s.recordSize)
	}
	return nil
}

// count turns changes of counters into entries.
func (l *planner) count(ctx context.Context, deltas []projection.Delta) error {
	sums := map[string]int64{}
	for _, d := range deltas {
		sums[string(d.Key)] += d.N
	}
	maps.DeleteFunc(sums, func(_ string, n int64) bool { return n == 0 })
	l.plan.counters = sums
	var unknown []string
	for key := range sums {
		if _, known := l.p.writer.counters[key]; !known {
			unknown = append(unknown, key)
		}
	}
	stored, err := l.p.find(ctx, l.st, projection.KindCount, unknown)
	if err != nil {
		return err
	}
	for i, key := range unknown {
		n := int64(0)
		if stored[i] != nil {
			value, err := decode(stored[i])
			if err == nil {
				n, err = strconv.ParseInt(string(value), 10, 64)
			}
			if err != nil {
				return fmt.Errorf("%w: counter %q: %w", errMissing, key, err)
			}
		}
		l.p.writer.counters[key] = n
	}
	for key, n := range sums {
		if len(key) > l.p.s.maxKey() {
			return fmt.Errorf("%w: the name of a counter has %d bytes", projection.ErrTooLarge, len(key))
		}
		n += l.p.writer.counters[key]
		if sums[key] = n; n == 0 {
			l.entry(projection.KindCount, key, nil)
		} else {
			l.entry(projection.KindCount, key, encode(projection.KindCount, strconv.AppendInt(nil, n, 10)))
		}
	}
	return nil
}
