package engine

import (
	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// cache is the bookkeeping of the entities that an owner has in memory. Protocol rule 26:
// what the store has not acknowledged is never evicted.
type cache struct {
	stored  map[string]indexed         // what the store's indexes have of each instance that changed since the last cut
	pending []map[machine.Row]struct{} // what was cut off and the store has not acknowledged, oldest first
	cuts    uint64                     // how often something was cut off

	instances []string // in the order in which they came; a used one goes to the end
	keys      []eventlog.KeyRef
	known     map[string]*cached
	total     int64
	changed   amount // since the last cut
}

// amount is what a batch would have, roughly.
type amount struct {
	rows  int   // that are not in State.Changed: entries of wide instances
	bytes int64 // of instances and events
}

// cached is an instance in memory.
type cached struct {
	size int64
	wide int
	cut  uint64 // cache.cuts when its size was counted as changed
	used bool   // since it came or was spared
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

// wideTasks is how many tasks an instance may have before their index entries are counted. Most
// tasks of most instances have ended, and have none.
const wideTasks = 16

// wideRows is what entries count for, of which some four cost as much as a row that changes.
func wideRows(entries int) int { return max(0, entries-wideTasks) / 4 }

// note says that an instance is in memory and was used; changed: since the last cut.
func (c *cache) note(id string, i *machine.Instance, changed bool) {
	k := c.known[id]
	if k == nil {
		k = &cached{}
		c.known[id] = k
		c.instances = append(c.instances, id)
	} else {
		k.used = true
	}
	n, wide := instanceSize(i), 0
	if i != nil {
		wide = wideRows(len(i.Tasks))
	}
	switch {
	case !changed:
	case k.cut == c.cuts:
		c.changed.bytes += n - k.size
		c.changed.rows += wide - k.wide
	default:
		k.cut = c.cuts
		c.changed.bytes += n
		c.changed.rows += wide
	}
	c.total += n - k.size
	k.size, k.wide = n, wide
}

// before notes what the store's indexes have of an instance that is about to change.
func (c *cache) before(i *machine.Instance) {
	if x := index(i); x.count != "" || len(x.entries) > 0 { // a new one has none
		c.stored[i.ID] = x
		c.changed.rows += wideRows(len(x.entries))
	}
}

// cut begins to count anew; rows is what was cut off.
func (c *cache) cut(rows map[machine.Row]struct{}) {
	clear(c.stored)
	c.pending = append(c.pending, rows)
	c.changed = amount{}
	c.cuts++
}

// dirty says that the store lacks a row as it is in memory.
func (c *cache) dirty(s *machine.State, r machine.Row) bool {
	if _, dirty := s.Changed[r]; dirty {
		return true
	}
	for _, rows := range c.pending {
		if _, dirty := rows[r]; dirty {
			return true
		}
	}
	return false
}

// evict drops clean entities until the cache fits, oldest first, those used since the last
// time spared once.
func (c *cache) evict(s *machine.State, limit int64, dirtyToo bool) {
	if c.total <= limit && len(c.keys) < cachedKeys {
		return
	}
	dirtyKeys := map[eventlog.KeyRef]bool{}
	for _, rows := range append([]map[machine.Row]struct{}{s.Changed}, c.pending...) {
		for r := range rows {
			if r.Kind == machine.RowWaiter || r.Kind == machine.RowKept {
				dirtyKeys[r.Key] = true
			}
		}
	}
	for _, m := range s.Matched {
		dirtyKeys[m.Key] = true
	}
	for rounds := len(c.instances); rounds > 0 && c.total > limit; rounds-- {
		id := c.instances[0]
		c.instances = c.instances[1:]
		k := c.known[id]
		if (k.used || c.dirty(s, machine.Row{Kind: machine.RowInstance, ID: id})) && !dirtyToo || s.Frozen[id] != "" {
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
