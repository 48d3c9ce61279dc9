package engine

import (
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// What the store is given: the changes since the last cut, as they stand between two turns. A
// store that is behind would be given more with each moment, and a Redis does nothing else while it
// takes a batch: some 7 µs for each row that changed with its entries. So what has come to cutRows
// of them is cut off, whether the store is ready for it or not, and waits. Each piece is the state at
// an event number, and leads from the one before it to that.

// gatherRows is how many changed rows a recovery gathers before it writes them, where
// ownerConfig names no number: 30 ms of a Redis. What is written soon is still in the processor's
// cache, too.
const gatherRows = 4_000

// gatherBytes is how many bytes may go with each row of a batch, on average: what a Redis takes
// in the time of the row.
const gatherBytes = 4 << 10

// gathered says that so many rows have changed since the last cut, or their bytes. A turn can't be
// cut, and has up to turnEvents events.
func (o *owner) gathered(rows int) bool {
	return len(o.st.Changed)+o.cache.changed.rows >= rows || o.cache.changed.bytes >= int64(rows)*gatherBytes
}

// cutAt is the event at which the store will stand when it has taken all that was cut off.
func (o *owner) cutAt() uint64 {
	switch {
	case len(o.cuts) > 0:
		return o.cuts[len(o.cuts)-1].New.N
	case o.flight != nil:
		return o.flight.New.N
	}
	return o.mark.N
}

// cut makes one atomic change of all that changed since the last one.
func (o *owner) cut() *projection.Batch {
	s := o.st
	b := &projection.Batch{Expected: o.cutAt(),
		New: projection.Watermark{N: s.N, Epoch: o.epoch, Offset: o.last.offset, LogID: o.logID, Sum: o.last.checksum()}}
	b.Put = make([]projection.Row, 0, 3*len(s.Changed)) // an instance and its list entries
	for r := range s.Changed {
		if r.Kind != machine.RowInstance {
			row(s, r, b)
			continue
		}
		i := s.Instances[r.ID]
		if i == nil {
			b.Del = append(b.Del, projection.Row{Kind: projection.KindInstance, Key: []byte(r.ID)})
		} else {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: []byte(r.ID), Value: encodeRow(i)})
		}
		index(i).diff(o.cache.stored[r.ID], b)
	}
	b.Put, o.block.done = append(b.Put, o.block.done...), nil
	b.Del, o.block.dropped = append(b.Del, o.block.dropped...), nil
	mergeDeltas(b)
	o.cache.cut(s.TakeChanged())
	return b
}

// batch is all that the store lacks, for one who has it take that and waits.
func (o *owner) batch() *projection.Batch {
	o.flight = o.cut()
	return o.flight
}

// rest makes flight what an owner that ends gives the store next; false: nothing is left, or may
// be given.
func (o *owner) rest() bool {
	o.projectDue = true
	o.project()
	o.effects.apply = nil
	return o.flight != nil
}

// mergeDeltas names each counter once.
func mergeDeltas(b *projection.Batch) {
	sum := map[string]int64{}
	var order []string
	for _, d := range b.Add {
		if _, known := sum[string(d.Key)]; !known {
			order = append(order, string(d.Key))
		}
		sum[string(d.Key)] += d.N
	}
	b.Add = b.Add[:0]
	for _, k := range order {
		if sum[k] != 0 {
			b.Add = append(b.Add, projection.Delta{Key: []byte(k), N: sum[k]})
		}
	}
}

// project puts what the store should take into the effects, between turns: what was cut off, and
// when the driver has asked for it the rest. One batch is under way at a time. Protocol rule 12:
// nothing of the partition while an instance is frozen, so nothing is cut off then.
func (o *owner) project() {
	idle := o.flight == nil && len(o.cuts) == 0
	if o.st.N != o.cutAt() && (idle && o.projectDue || o.gathered(o.gatherRows/2)) && (len(o.st.Frozen) == 0 || o.rules.projectFrozen) {
		b := o.cut()
		o.cuts = append(o.cuts, b)
		o.cutBytes += batchBytes(b)
		if idle {
			o.projectDue = false
		}
	}
	o.next()
}

// next gives the store the oldest of what was cut off.
func (o *owner) next() {
	if o.flight != nil || len(o.cuts) == 0 {
		return
	}
	o.flight, o.cuts = o.cuts[0], o.cuts[1:]
	o.cutBytes -= batchBytes(o.flight)
	o.effects.apply = o.flight
}

func batchBytes(b *projection.Batch) (n int64) {
	for _, rows := range [][]projection.Row{b.Put, b.Del} {
		for k := range rows {
			n += int64(len(rows[k].Key) + len(rows[k].Value))
		}
	}
	return n
}

const (
	// swampedRows and swampedBytes are how much may have changed in memory, of one partition and
	// at the least, while a batch is on its way to the store.
	swampedRows  = 100_000
	swampedBytes = 2 << 20
	// swampedOutbox is how many requests may wait for the inboxes of other partitions.
	swampedOutbox = 10_000
)

// swamped says that the store does not keep up, or the inboxes of others: the owner takes nothing
// more until they have answered, or what can't be evicted would fill the memory.
func (o *owner) swamped() bool {
	return len(o.outbox) >= swampedOutbox ||
		o.flight != nil && (len(o.st.Changed)+len(o.cuts)*o.gatherRows/2 >= swampedRows || o.cache.total+o.cutBytes >= max(4*o.cacheSize, swampedBytes))
}

// applied says how the store took the batch. The next step acts on an error: nothing in
// memory can be trusted to match the store then.
func (o *owner) applied(err error) {
	b := o.flight
	if b == nil {
		return // of an earlier life of this owner
	}
	o.flight = nil
	if err != nil {
		o.storeErr = err
		return
	}
	o.mark = b.New
	if len(o.cache.pending) > 0 {
		o.cache.pending = o.cache.pending[1:]
	}
	o.cache.evict(o.st, o.cacheSize, o.rules.evictDirty)
}
