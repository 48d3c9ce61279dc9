package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	cdb "github.com/cockroachdb/pebble/v2"

	"github.com/godagger/dagger/projection"
)

// handle is a View and a Partition. All handles of a partition share its database; the last
// one closes it.
type handle struct {
	p      *partition
	closed atomic.Bool
}

const (
	defaultLimit = 1000
	// retainBatch is the size up to which the memory of a batch is used again.
	retainBatch = 8 << 20
)

// begin takes the database for use; it may be nil. The caller calls p.use.RUnlock when err is
// nil.
func (h *handle) begin(ctx context.Context) (db *cdb.DB, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := h.p
	if err := p.take(p.use.TryRLock, p.use.RLock, p.use.RUnlock); err != nil {
		return nil, err
	}
	switch {
	case h.closed.Load() || p.dead.Load():
		err = projection.ErrClosed
	case p.lost.Load() != nil:
		err = p.lostError()
	}
	if err != nil {
		p.use.RUnlock()
		return nil, err
	}
	return p.db, nil
}

// Watermark implements projection.View.
func (h *handle) Watermark(ctx context.Context) (projection.Watermark, error) {
	if _, err := h.begin(ctx); err != nil {
		return projection.Watermark{}, fmt.Errorf("read watermark of partition %d: %w", h.p.n, err)
	}
	defer h.p.use.RUnlock()
	if err := h.p.share(); err != nil {
		return projection.Watermark{}, fmt.Errorf("read watermark of partition %d: %w", h.p.n, err)
	}
	defer h.p.mu.RUnlock()
	return h.p.watermark, nil
}

// Get implements projection.View.
func (h *handle) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	values, at, err := h.get(ctx, kind, keys)
	if err != nil {
		return nil, 0, fmt.Errorf("get rows of partition %d: %w", h.p.n, err)
	}
	return values, at, nil
}

func (h *handle) get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	db, err := h.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer h.p.use.RUnlock()
	if db == nil || len(keys) <= fewKeys {
		return h.getFew(db, kind, keys)
	}
	it, at, err := h.iterate(db, []byte{byte(kind)}, projection.PrefixEnd([]byte{byte(kind)}))
	if err != nil {
		return nil, 0, err
	}
	values := make([][]byte, len(keys))
	var name []byte
	for i, key := range keys {
		name = append(append(name[:0], byte(kind)), key...)
		var value []byte
		if it.SeekPrefixGE(name) { // a key is its own prefix: this asks the filters, as Get does
			value, err = it.ValueAndErr()
			values[i] = append(make([]byte, 0, len(value)), value...)
		} else {
			err = it.Error() // the next seek would forget it
		}
		if err != nil {
			break
		}
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return nil, 0, h.p.readError(err)
	}
	return values, at.N, nil
}

// fewKeys is up to how many keys point reads are cheaper than an iterator.
const fewKeys = 4

func (h *handle) getFew(db *cdb.DB, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	p := h.p
	// Nothing is committed while this is held, so all reads are of one watermark.
	if err := p.share(); err != nil {
		return nil, 0, err
	}
	defer p.mu.RUnlock()
	values := make([][]byte, len(keys))
	for i, key := range keys {
		if db == nil {
			break
		}
		value, closer, err := db.Get(append([]byte{byte(kind)}, key...))
		if errors.Is(err, cdb.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, p.readError(err)
		}
		values[i] = append(make([]byte, 0, len(value)), value...)
		if err := closer.Close(); err != nil {
			return nil, 0, p.readError(err)
		}
	}
	return values, p.watermark.N, nil
}

// iterate returns an iterator over [from, to) and the watermark that it sees. The caller has
// begun and closes it.
func (h *handle) iterate(db *cdb.DB, from, to []byte) (*cdb.Iterator, projection.Watermark, error) {
	if err := h.p.share(); err != nil {
		return nil, projection.Watermark{}, err
	}
	defer h.p.mu.RUnlock()
	it, err := db.NewIter(&cdb.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, projection.Watermark{}, h.p.readError(err)
	}
	return it, h.p.watermark, nil
}

// Scan implements projection.View.
func (h *handle) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	rows, at, err := h.scan(ctx, kind, from, to, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("scan rows of partition %d: %w", h.p.n, err)
	}
	return rows, at, nil
}

func (h *handle) scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	db, err := h.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	p := h.p
	defer p.use.RUnlock()
	if db == nil || to != nil && bytes.Compare(from, to) >= 0 {
		if err := p.share(); err != nil {
			return nil, 0, err
		}
		defer p.mu.RUnlock()
		return nil, p.watermark.N, nil
	}
	if limit <= 0 {
		limit = defaultLimit
	}
	lower := append([]byte{byte(kind)}, from...)
	upper := projection.PrefixEnd(lower[:1])
	if to != nil {
		upper = append([]byte{byte(kind)}, to...)
	}
	it, at, err := h.iterate(db, lower, upper)
	if err != nil {
		return nil, 0, err
	}
	var rows []projection.Row
	for ok := it.First(); ok && len(rows) < limit; ok = it.Next() {
		// One allocation for key and value.
		k, v := it.Key()[1:], it.Value()
		both := append(append(make([]byte, 0, len(k)+len(v)), k...), v...)
		rows = append(rows, projection.Row{Kind: kind, Key: both[:len(k):len(k)], Value: both[len(k):]})
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, 0, p.readError(err)
	}
	return rows, at.N, nil
}

// Dump implements projection.View. When the partition is dropped or closed meanwhile, it
// gives up with ErrClosed.
func (h *handle) Dump(ctx context.Context, f func(projection.Row) error) error {
	_, err := h.DumpAt(ctx, f)
	return err
}

// DumpAt implements projection.Dumper.
func (h *handle) DumpAt(ctx context.Context, f func(projection.Row) error) (projection.Watermark, error) {
	at, err := h.dump(ctx, f)
	if err != nil {
		return at, fmt.Errorf("dump partition %d: %w", h.p.n, err)
	}
	return at, nil
}

func (h *handle) dump(ctx context.Context, f func(projection.Row) error) (at projection.Watermark, err error) {
	db, err := h.begin(ctx)
	if err != nil {
		return at, err
	}
	p := h.p
	defer p.use.RUnlock()
	if db == nil {
		if err := p.share(); err != nil {
			return at, err
		}
		defer p.mu.RUnlock()
		return p.watermark, nil
	}
	it, at, err := h.iterate(db, []byte{byte(projection.MinKind)}, nil)
	if err != nil {
		return at, err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if err = ctx.Err(); err == nil && p.stop.Load() {
			err = fmt.Errorf("%w while it was read", projection.ErrClosed)
		}
		if err == nil {
			key := it.Key()
			err = f(projection.Row{Kind: projection.Kind(key[0]), Key: key[1:], Value: it.Value()})
		}
	}
	if e := errors.Join(it.Error(), it.Close()); e != nil && err == nil {
		err = p.readError(e)
	}
	return at, err
}

// Apply implements projection.Partition.
func (h *handle) Apply(ctx context.Context, b projection.Batch) error {
	if err := h.apply(ctx, b); err != nil {
		return fmt.Errorf("apply to partition %d: %w", h.p.n, err)
	}
	return nil
}

func (h *handle) apply(ctx context.Context, b projection.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	db, err := h.begin(ctx)
	if err != nil {
		return err
	}
	p := h.p
	for db == nil {
		p.use.RUnlock()
		if err := p.outlive(p.create); err != nil {
			return err
		}
		if db, err = h.begin(ctx); err != nil {
			return err
		}
	}
	if err := p.take(p.applying.TryLock, p.applying.Lock, p.applying.Unlock); err != nil {
		p.use.RUnlock()
		return err
	}
	batch, counted, err := p.batchOf(db, &b)
	if err != nil || batch == nil {
		p.applying.Unlock()
		p.use.RUnlock()
		return err
	}
	return p.outlive(func() error {
		defer p.use.RUnlock()
		defer p.applying.Unlock()
		defer batch.Close()
		return p.commit(db, batch, b.New, counted)
	})
}

// create opens the database, and makes it if there is none.
func (p *partition) create() error {
	p.life.Lock()
	defer p.life.Unlock()
	return p.openDB(true)
}

// batchOf is what the database is to take, with the counters that it changes; nil when it has
// it already. applying is held.
func (p *partition) batchOf(db *cdb.DB, b *projection.Batch) (batch *cdb.Batch, counted map[string]int64, err error) {
	// Only who holds applying changes the watermark.
	fits, err := b.Settles(p.watermark)
	if err != nil || !fits {
		return nil, nil, err
	}
	size := 128 + len(b.New.LogID)
	for i := range b.Put {
		size += len(b.Put[i].Key) + len(b.Put[i].Value) + 12
	}
	for i := range b.Del {
		size += len(b.Del[i].Key) + 8
	}
	batch = db.NewBatchWithSize(size, cdb.WithMaxRetainedSizeBytes(retainBatch))
	if counted, err = p.fill(db, batch, b); err != nil {
		return nil, nil, errors.Join(err, batch.Close())
	}
	return batch, counted, nil
}

func (p *partition) fill(db *cdb.DB, batch *cdb.Batch, b *projection.Batch) (counted map[string]int64, err error) {
	for i := range b.Put {
		r := &b.Put[i]
		op := batch.SetDeferred(1+len(r.Key), len(r.Value))
		op.Key[0] = byte(r.Kind)
		copy(op.Key[1:], r.Key)
		copy(op.Value, r.Value)
		if err := op.Finish(); err != nil {
			return nil, err
		}
	}
	for i := range b.Del {
		r := &b.Del[i]
		op := batch.DeleteDeferred(1 + len(r.Key))
		op.Key[0] = byte(r.Kind)
		copy(op.Key[1:], r.Key)
		if err := op.Finish(); err != nil {
			return nil, err
		}
	}
	if counted, err = p.count(db, batch, b.Add); err != nil {
		return nil, err
	}
	return counted, batch.Set(watermarkKey, appendWatermark(nil, b.New), nil)
}

// commit changes rows and watermark together. applying is held.
func (p *partition) commit(db *cdb.DB, batch *cdb.Batch, w projection.Watermark, counted map[string]int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := db.Apply(batch, cdb.NoSync); err != nil {
		return p.readError(err)
	}
	p.watermark = w
	for key, n := range counted {
		p.counters[key] = n
	}
	return nil
}

// count adds the new counter rows to the batch and returns their numbers.
func (p *partition) count(db *cdb.DB, batch *cdb.Batch, deltas []projection.Delta) (map[string]int64, error) {
	if len(deltas) == 0 {
		return nil, nil
	}
	counted := make(map[string]int64, len(deltas))
	for _, d := range deltas {
		n, known := counted[string(d.Key)]
		if !known {
			n, known = p.counters[string(d.Key)]
		}
		if !known {
			var err error
			if n, err = p.readCounter(db, d.Key); err != nil {
				return nil, err
			}
		}
		counted[string(d.Key)] = n + d.N
	}
	for key, n := range counted {
		name := append([]byte{byte(projection.KindCount)}, key...)
		var err error
		if n == 0 {
			err = batch.Delete(name, nil)
		} else {
			err = batch.Set(name, strconv.AppendInt(nil, n, 10), nil)
		}
		if err != nil {
			return nil, err
		}
	}
	return counted, nil
}

func (p *partition) readCounter(db *cdb.DB, key []byte) (int64, error) {
	raw, closer, err := db.Get(append([]byte{byte(projection.KindCount)}, key...))
	if errors.Is(err, cdb.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, p.readError(err)
	}
	defer closer.Close()
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, p.lose(fmt.Errorf("counter %q holds no number", key))
	}
	return n, nil
}

// Flush implements projection.Partition: it syncs the write-ahead log or, where there is
// none, writes tables; ctx ends the waiting for the latter.
func (h *handle) Flush(ctx context.Context) error {
	db, err := h.begin(ctx)
	if err != nil {
		return fmt.Errorf("flush partition %d: %w", h.p.n, err)
	}
	err = h.p.outlive(func() error {
		defer h.p.use.RUnlock()
		switch {
		case db == nil:
			return nil
		case h.p.noWAL():
			return flushTables(ctx, db)
		}
		return db.LogData(nil, cdb.Sync)
	})
	if err != nil {
		return fmt.Errorf("flush partition %d: %w", h.p.n, h.p.readError(err))
	}
	return nil
}

func flushTables(ctx context.Context, db *cdb.DB) error {
	flushed, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements projection.View. The last handle of a partition closes its database;
// nothing that was applied is lost. Twice is fine.
func (h *handle) Close() error {
	if h.closed.Swap(true) {
		return nil
	}
	if err := h.p.outlive(h.p.leave); err != nil {
		return fmt.Errorf("close partition %d: %w", h.p.n, err)
	}
	return nil
}

func (p *partition) leave() error {
	p.life.Lock()
	defer p.life.Unlock()
	p.refs--
	if p.refs > 0 || p.dead.Load() {
		return nil
	}
	return p.closeDB()
}
