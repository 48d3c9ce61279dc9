package engine

import (
	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// cache is the bookkeeping of the entities that an owner has in memory. Protocol rule 26:
// what the store has not acknowledged is never evicted.
type cache struct {
	stored map[string]indexed // what the store's indexes have of each instance that changed since
	flight map[machine.Row]struct{}

	instances []string // in the order in which they came; a used one goes to the end
	keys      []eventlog.KeyRef
	known     map[string]*cached
	total     int64
}

// cached is an instance in memory.
type cached struct {
	size int64
	used bool // since it came or was spared
}

// cachedKeys is how many correlation keys stay in memory.
const cachedKeys = 2000

func newCache() cache {
	return cache{stored: map[string]indexed{}, known: map[string]*cached{}}
}

// instanceSize is a rough count of the bytes that an instance takes in memory.
func instanceSize(i *machine.Instance) int64 {
	if i == nil {
		return 64
	}
	n := int64(1000 + len(i.Params) + 300*len(i.Tasks) + 100*(len(i.Applied)+len(i.Refused)+len(i.Subs)))
	for k := range i.Stops {
		n += 300 + int64(len(i.Stops[k].Message.Value)+len(i.Stops[k].Message.Bytes))
	}
	for _, b := range i.Buffer {
		n += 200 + int64(len(b.Message.Value)+len(b.Message.Bytes))
	}
	return n
}

// note says that an instance is in memory and was used.
func (c *cache) note(id string, i *machine.Instance) {
	k := c.known[id]
	if k == nil {
		k = &cached{}
		c.known[id] = k
		c.instances = append(c.instances, id)
	} else {
		k.used = true
	}
	n := instanceSize(i)
	c.total += n - k.size
	k.size = n
}

// evict drops clean entities until the cache fits, oldest first, those used since the last
// time spared once.
func (c *cache) evict(s *machine.State, limit int64, dirtyToo bool) {
	if len(c.flight) > 0 || c.total <= limit && len(c.keys) < cachedKeys {
		return
	}
	dirtyKeys := map[eventlog.KeyRef]bool{}
	for r := range s.Changed {
		if r.Kind == machine.RowWaiter || r.Kind == machine.RowKept {
			dirtyKeys[r.Key] = true
		}
	}
	for _, m := range s.Matched {
		dirtyKeys[m.Key] = true
	}
	for rounds := len(c.instances); rounds > 0 && c.total > limit; rounds-- {
		id := c.instances[0]
		c.instances = c.instances[1:]
		k := c.known[id]
		_, dirty := s.Changed[machine.Row{Kind: machine.RowInstance, ID: id}]
		if (dirty || k.used) && !dirtyToo || s.Frozen[id] != "" {
			k.used = false
			c.instances = append(c.instances, id)
			continue
		}
		c.total -= k.size
		delete(c.known, id)
		delete(s.Instances, id)
	}
	for rounds := len(c.keys); rounds > 0 && len(c.keys) >= cachedKeys; rounds-- {
		k := c.keys[0]
		c.keys = c.keys[1:]
		if dirtyKeys[k] {
			c.keys = append(c.keys, k)
			continue
		}
		delete(s.Keys, k)
	}
}

// batch makes one atomic change of all that changed since the last one.
func (o *owner) batch() *projection.Batch {
	s := o.st
	b := &projection.Batch{Expected: o.mark.N,
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
	clear(o.cache.stored)
	b.Put, o.block.done = append(b.Put, o.block.done...), nil
	b.Del, o.block.dropped = append(b.Del, o.block.dropped...), nil
	mergeDeltas(b)
	o.cache.flight = s.TakeChanged()
	o.flight = b
	return b
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

// project puts what the store should take into the effects, between turns and when the
// driver has asked for it. One batch is under way at a time. Protocol rule 12: nothing of the
// partition while an instance is frozen.
func (o *owner) project() {
	if !o.projectDue || o.flight != nil || o.st.N == o.mark.N || len(o.st.Frozen) > 0 && !o.rules.projectFrozen {
		return
	}
	o.projectDue = false
	o.effects.apply = o.batch()
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
	return len(o.outbox) >= swampedOutbox || o.flight != nil && (len(o.st.Changed) >= swampedRows || o.cache.total >= max(4*o.cacheSize, swampedBytes))
}

// applied says how the store took the batch. The next step acts on an error: nothing in
// memory can be trusted to match the store then.
func (o *owner) applied(err error) {
	b := o.flight
	if b == nil {
		return // of an earlier life of this owner
	}
	o.flight, o.cache.flight = nil, nil
	if err != nil {
		o.storeErr = err
		return
	}
	o.mark = b.New
	o.cache.evict(o.st, o.cacheSize, o.rules.evictDirty)
}
