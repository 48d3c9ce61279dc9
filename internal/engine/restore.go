package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

// restored brings a partition that was just acquired to where a snapshot is, when it is empty
// or so old that the log no longer has what it needs. Nothing is done where there is no
// snapshot to trust: the log decides then.
func (r *runner) restored(epoch uint64, res *result) error {
	b := r.e.cfg.Snapshots.Bucket
	if b == nil || res.watermark.N > 0 && res.watermark.LogID != r.e.eventsID {
		return nil
	}
	first, err := r.firstEvent()
	if err != nil {
		return err
	}
	if res.watermark.N > 0 {
		enough, err := r.reaches(res.watermark, first)
		if err != nil || enough {
			return err
		}
		r.logger.Warn("the store is older than the log's beginning; a snapshot is taken instead", "event", res.watermark.N, "log begins at", first)
		r.closeStore()
		if err := r.e.store.Drop(r.life, r.partition, epoch); err != nil {
			return fmt.Errorf("empty the store's partition: %w", err)
		}
		if r.store, err = acquireSteady(r.life, r.e.store, r.partition, epoch); err != nil {
			return err
		}
	}
	m, err := r.fromSnapshot(b, epoch, first)
	if err != nil {
		return fmt.Errorf("restore from a snapshot: %w", err)
	}
	if m.N > 0 {
		r.logger.Info("partition was restored from a snapshot", "event", m.N, "rows", m.Rows, "taken", m.Taken)
	}
	res.watermark, err = r.store.Watermark(r.life)
	return err
}

// reaches says whether the log has all that is needed beside a store.
func (r *runner) reaches(w projection.Watermark, first uint64) (bool, error) {
	if first <= 1 {
		return true, nil
	}
	rows, _, err := r.store.Scan(r.life, projection.KindPartition, nil, nil, 0)
	if err != nil {
		return false, fmt.Errorf("read store: %w", err)
	}
	need := w.N
	for _, row := range rows {
		need = min(need, needed(w.N, row))
	}
	return first <= need, nil
}

// needed is the first event that must be in the log beside rows of event n, as far as one of
// them tells: the last one folded, to compare its checksum, and what is not yet forwarded.
func needed(n uint64, row projection.Row) uint64 {
	var p positionRow
	if row.Kind == projection.KindPartition && string(row.Key) == string(keyPosition) && decodeRow(row.Value, &p) == nil {
		return min(n, p.Forwarded+1)
	}
	return n
}

// firstEvent is the number of the first event that the log still has; 0 = it has none.
func (r *runner) firstEvent() (uint64, error) {
	topic, err := r.e.log.Topic(r.life, eventlog.EventsTopic(r.e.log.App()))
	if err != nil {
		return 0, fmt.Errorf("describe the events topic: %w", err)
	}
	have := topic.Partitions[r.partition]
	e, _, err := r.eventAt(have.Start, have.End)
	if err != nil || e == nil {
		return 0, err
	}
	return e.event.N, nil
}

// eventAt is the first event at or behind an offset; nil when there is none before until.
func (r *runner) eventAt(offset, until int64) (*tailEvent, int64, error) {
	reader, err := r.e.log.Read(r.life, eventlog.EventsTopic(r.e.log.App()), r.partition, offset, r.e.eventsID, eventlog.ReadCommitted)
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	for at := offset; at < until; {
		records, next, err := reader.Next(r.life)
		if err != nil {
			return nil, 0, fmt.Errorf("read events: %w", err)
		}
		for k := range records {
			e, err := decodeEvent(&records[k], r.partition)
			if err != nil {
				return nil, 0, err
			}
			if e != nil {
				return &tailEvent{event: e, offset: records[k].Offset, value: records[k].Value}, next, nil
			}
		}
		at = next
	}
	return nil, until, nil
}

// fromSnapshot fills the empty partition from the newest snapshot that is whole and belongs
// to this log. The manifest's N is 0 when there is none.
func (r *runner) fromSnapshot(b snapshot.Bucket, epoch, first uint64) (snapshot.Manifest, error) {
	id := projection.Identity{App: r.e.log.App(), Partitions: r.e.log.Partitions()}
	list, damaged, err := snapshot.List(r.life, b, id, r.partition, r.e.eventsID)
	if err != nil {
		return snapshot.Manifest{}, err
	}
	for _, name := range damaged {
		r.logger.Warn("a snapshot can't be used", "manifest", name)
	}
	for _, m := range list {
		if m.From < first {
			r.logger.Warn("a snapshot is older than the log's beginning", "object", m.Object, "needs", m.From, "log begins at", first)
			continue
		}
		if err := r.ofThisHistory(m); err != nil {
			if r.life.Err() != nil {
				return snapshot.Manifest{}, context.Cause(r.life)
			}
			r.logger.Warn("a snapshot does not fit the log", "object", m.Object, "err", err)
			continue
		}
		if err := snapshot.Check(r.life, b, m); err != nil {
			if r.life.Err() != nil {
				return snapshot.Manifest{}, context.Cause(r.life)
			}
			r.logger.Warn("a snapshot can't be used", "object", m.Object, "err", err)
			continue
		}
		if err := fill(r.life, b, m, r.store, epoch); err != nil {
			return snapshot.Manifest{}, err
		}
		return m, nil
	}
	return snapshot.Manifest{}, nil
}

// ofThisHistory compares the snapshot's last event with the log's.
func (r *runner) ofThisHistory(m snapshot.Manifest) error {
	e, _, err := r.eventAt(m.Offset, m.Offset+1)
	switch {
	case err != nil:
		return err
	case e == nil || e.event.N != m.N || e.checksum() != m.Sum:
		return fmt.Errorf("event %d at offset %d is another one", m.N, m.Offset)
	}
	return nil
}

// Bounds of a batch that fills a partition.
const (
	fillRows  = 5000
	fillBytes = 4 << 20
)

// fill writes the rows of a snapshot into an empty partition. All but the last batch have a
// watermark whose checksum is that of no event, so that what a crash leaves of it is noticed
// and begun again.
func fill(ctx context.Context, b snapshot.Bucket, m snapshot.Manifest, to projection.Partition, epoch uint64) error {
	mark := m.Watermark()
	mark.Epoch = epoch
	batch := projection.Batch{}
	size := 0
	apply := func(last bool) error {
		batch.New = mark
		if !last {
			batch.New.N, batch.New.Sum = batch.Expected+1, 0
		}
		if err := to.Apply(ctx, batch); err != nil {
			return fmt.Errorf("write store: %w", err)
		}
		batch, size = projection.Batch{Expected: batch.New.N}, 0
		return nil
	}
	if err := snapshot.Read(ctx, b, m, func(row projection.Row) error {
		if row.Kind == projection.KindCount {
			n, err := strconv.ParseInt(string(row.Value), 10, 64)
			if err != nil {
				return fmt.Errorf("%w: counter %q is no number", snapshot.ErrDamaged, row.Key)
			}
			batch.Add = append(batch.Add, projection.Delta{Key: row.Key, N: n})
		} else {
			batch.Put = append(batch.Put, row)
		}
		size += len(row.Key) + len(row.Value)
		if (len(batch.Put)+len(batch.Add) < fillRows && size < fillBytes) || batch.Expected+2 >= mark.N {
			return nil
		}
		return apply(false)
	}); err != nil {
		return err
	}
	if err := apply(true); err != nil {
		return err
	}
	if err := to.Flush(ctx); err != nil {
		return fmt.Errorf("flush store: %w", err)
	}
	return nil
}

// RestoreOptions say from where and how a store is restored.
type RestoreOptions struct {
	Snapshots snapshot.Bucket
	Parallel  int // partitions at once; 0 = as many as there are processors
	Progress  func(partition int32, done, total int64)
}

// Restore makes the store of a whole application anew from the newest valid snapshots and the
// rest of the log; a partition without one is folded from the log alone. It is Rebuild with
// Snapshots, for which there must be some.
func Restore(ctx context.Context, log eventlog.Log, store projection.Store, o RestoreOptions) ([]Rebuilt, error) {
	if o.Snapshots == nil {
		return nil, errors.New("engine: restore needs snapshots")
	}
	return Rebuild(ctx, log, store, RebuildOptions{Snapshots: o.Snapshots, Parallel: o.Parallel, Progress: o.Progress})
}
