package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

// Snapshots is a policy of snapshots. The zero value is none.
type Snapshots struct {
	Bucket snapshot.Bucket // nil: no snapshots
	Every  time.Duration   // between two of a partition that changes; 0 = an hour
	Keep   int             // of a partition; 0 = 3
	// Trim lets the log drop events that are needed neither beside the oldest kept snapshot
	// nor beside the store, nor by a cursor in the bucket. Without it nothing is dropped.
	Trim bool
}

// snapshotsLoop takes snapshots of the partitions that this process owns until ctx ends.
func (e *Engine) snapshotsLoop(ctx context.Context) {
	policy := e.cfg.Snapshots
	if policy.Bucket == nil {
		return
	}
	defaults(&policy.Every, time.Hour)
	next := map[int32]time.Time{}
	for k := int64(0); ; k++ {
		wake := time.Now().Add(policy.Every)
		for p := range e.log.Partitions() {
			r := e.runner(p)
			if r == nil {
				delete(next, p)
				continue
			}
			if _, known := next[p]; !known { // spread over the time
				next[p] = time.Now().Add(policy.Every * time.Duration(p+1) / time.Duration(e.log.Partitions()))
			}
			if !r.partitionStatus().Ready {
				wake = sooner(wake, time.Now().Add(policy.Every/16+time.Millisecond))
				continue
			}
			if !time.Now().Before(next[p]) {
				next[p] = time.Now().Add(policy.Every)
				if _, err := TakeSnapshot(ctx, e.log, e.store, p, policy); err != nil && ctx.Err() == nil {
					e.logger.Warn("take a snapshot", "partition", p, "err", err)
					e.problems.set(fmt.Sprintf("snapshots of partition %d", p), err)
				} else if err == nil {
					e.problems.set(fmt.Sprintf("snapshots of partition %d", p), nil)
				}
			}
			wake = sooner(wake, next[p])
		}
		sleep(ctx, max(time.Millisecond, min(time.Until(wake), policy.Every/8+time.Millisecond)))
		if ctx.Err() != nil {
			return
		}
	}
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// TakeSnapshot copies a partition of the store into the policy's bucket, removes the oldest
// copies above Keep, and lets the log drop what the policy allows. The partition may be
// worked on. The manifest's N is 0 when there was nothing to copy; where the newest snapshot
// is as new as the store, it is that one.
func TakeSnapshot(ctx context.Context, log eventlog.Log, store projection.Store, partition int32, policy Snapshots) (m snapshot.Manifest, err error) {
	defaults(&policy.Keep, 3)
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return m, fmt.Errorf("describe the events topic: %w", err)
	}
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	v, err := store.View(ctx, partition)
	if err != nil {
		return m, fmt.Errorf("read partition %d of the store: %w", partition, err)
	}
	defer v.Close()
	have, err := v.Watermark(ctx)
	if err != nil {
		return m, fmt.Errorf("read partition %d of the store: %w", partition, err)
	}
	if have.N > 0 && have.LogID != topic.ID {
		return m, fmt.Errorf("%w: it has folded the events topic %s, this log's is %s", ErrForeignStore, have.LogID, topic.ID)
	}
	list, _, err := snapshot.List(ctx, policy.Bucket, id, partition, topic.ID)
	if err != nil {
		return m, err
	}
	if len(list) > 0 && list[0].N >= have.N {
		m = list[0]
	} else {
		forwarded := uint64(math.MaxUint64)
		m, err = snapshot.Take(ctx, policy.Bucket, id, partition, v,
			func(row projection.Row) { forwarded = min(forwarded, needed(math.MaxUint64, row)) },
			func(w projection.Watermark) uint64 { return min(w.N, forwarded) })
		if err != nil || m.N == 0 {
			return m, err
		}
		list = append([]snapshot.Manifest{m}, list...)
	}
	for len(list) > policy.Keep {
		last := len(list) - 1
		if err := snapshot.Delete(ctx, policy.Bucket, list[last]); err != nil {
			return m, err
		}
		list = list[:last]
	}
	if !policy.Trim || len(list) == 0 {
		return m, nil
	}
	if err := trimEvents(ctx, log, store, v, partition, policy, list); err != nil {
		return m, fmt.Errorf("trim events: %w", err)
	}
	return m, nil
}

// trimEvents lets the log drop events; protocol rule 14. A snapshot that allows it must be
// whole: it is read once more.
func trimEvents(ctx context.Context, log eventlog.Log, store projection.Store, v projection.View, partition int32, policy Snapshots, list []snapshot.Manifest) error {
	id := projection.Identity{App: log.App(), Partitions: log.Partitions()}
	rows, keep, err := v.Scan(ctx, projection.KindPartition, nil, nil, 0)
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	for _, row := range rows {
		keep = needed(keep, row)
	}
	for _, m := range list {
		keep = min(keep, m.From)
	}
	cursors, err := snapshot.Cursors(ctx, policy.Bucket, id, partition)
	if err != nil {
		return err
	}
	for _, c := range cursors {
		if c.LogID == list[0].LogID {
			keep = min(keep, c.N)
		}
	}
	f, err := newFolder(ctx, log, store, partition)
	if err != nil {
		return err
	}
	defer f.close()
	first, err := f.r.firstEvent()
	if err != nil || keep <= first {
		return err
	}
	for _, m := range list {
		if err := errors.Join(snapshot.Check(ctx, policy.Bucket, m), f.r.ofThisHistory(m)); err != nil {
			return err
		}
	}
	oldest := list[len(list)-1]
	if err := f.r.seek(opTail{from: keep, hint: oldest.Offset, until: oldest.Offset}); err != nil {
		return err
	}
	below := int64(0)
	for _, t := range f.r.tailBuf {
		if t.event.N <= keep {
			below = t.offset
		}
	}
	if below <= f.start {
		return nil
	}
	return log.DeleteRecords(ctx, eventlog.EventsTopic(log.App()), partition, below)
}

// ListSnapshots are the snapshots of this log in a bucket, by partition, the newest of each first.
// What can't be read as a manifest is left out and told in damaged.
func ListSnapshots(ctx context.Context, log eventlog.Log, b snapshot.Bucket) (list []snapshot.Manifest, damaged []string, err error) {
	topic, err := log.Topic(ctx, eventlog.EventsTopic(log.App()))
	if err != nil {
		return nil, nil, fmt.Errorf("describe the events topic: %w", err)
	}
	for p := range log.Partitions() {
		l, bad, err := snapshot.List(ctx, b, projection.Identity{App: log.App(), Partitions: log.Partitions()}, p, topic.ID)
		if err != nil {
			return nil, nil, err
		}
		list, damaged = append(list, l...), append(damaged, bad...)
	}
	return list, damaged, nil
}
